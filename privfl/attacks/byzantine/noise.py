"""Updates that have nothing to do with the data: GaussianUpdate noise, one constant, no number at
all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import Bounded, BoundPoison, Knows, RoundKnowledge, UpdatePoison, Vector, require


@dataclass(frozen=True, slots=True)
class GaussianUpdate(UpdatePoison):
    """Send noise of standard deviation sigma in every coordinate (Blanchard, El Mhamdi, Guerraoui,
    Stainer 2017, section 5, sigma 200).

    Seat: updates. Knows nothing.

    >>> from privfl.core import RoundPlan
    >>> known = RoundKnowledge(RoundPlan(0, (1,), d=1000, l2=1.0), torch.zeros(1000))
    >>> sent = GaussianUpdate().poison_updates(torch.zeros(1, 1000), known, torch.Generator())
    >>> bool(180 < sent.std() < 220)
    True
    """

    sigma: float = 200.0

    def __post_init__(self) -> None:
        require.positive(sigma=self.sigma)

    @property
    def knows(self) -> Knows:
        """Nothing."""
        return "nothing"

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """Noise [f, d]."""
        return (torch.randn(own.shape, generator=rng) * self.sigma).to(own)


@dataclass(frozen=True, slots=True)
class ConstantUpdate(UpdatePoison):
    """Send the same value in every coordinate (Li, Xu, Chen, Giannakis, Ling 2019: RSA, section 5,
    same-value attack).

    Seat: updates. Knows nothing.

    >>> from privfl.core import RoundPlan
    >>> known = RoundKnowledge(RoundPlan(0, (1,), d=2, l2=1.0), torch.zeros(2))
    >>> ConstantUpdate(value=7.0).poison_updates(torch.zeros(1, 2), known, torch.Generator())
    tensor([[7., 7.]])
    """

    value: float = 100.0

    def __post_init__(self) -> None:
        require.finite(value=self.value)

    @property
    def knows(self) -> Knows:
        """Nothing."""
        return "nothing"

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """The constant [f, d]."""
        return torch.full_like(own, self.value)


@dataclass(frozen=True, slots=True)
class NotFinite(BoundPoison):
    """Send infinities or NaN: one such row makes an unguarded mean useless, which no outside paper
    needs to show.

    Seat: the client's own party, since an honest one refuses to send such a row. Knows nothing. A
    server that can read rows refuses it by name; over a channel that hides them only an encoding
    into finite numbers stands in the way.

    >>> row = torch.tensor([0.5, 0.5])
    >>> NotFinite().poison_bounded(Bounded(3, row, l2=1.0), row).delta
    tensor([nan, nan])
    """

    value: Literal["nan", "inf", "-inf"] = "nan"

    def poison_bounded(self, honest: Bounded, unbounded: Vector) -> Bounded:
        """A claim of such a row [d]."""
        return Bounded.claimed(
            honest.client,
            torch.full_like(honest.delta, float(self.value)),
            honest.l2,
            honest.weight,
        )
