"""Byzantine clients that send made-up model weights: zero, random, and flipped (Han et al. 2024:
FedSecurity, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import Knows, RoundKnowledge, UpdatePoison, require


@dataclass(frozen=True, slots=True)
class ZeroWeights(UpdatePoison):
    """Send a model whose weights are all zero (FedSecurity, Han et al. 2024, section 3.1, zero
    mode): as an update, -G.

    Seat: updates. Knows nothing but the broadcast. A `FreeRider` is the one whose *update* is zero.

    >>> from privfl.core import RoundPlan
    >>> known = RoundKnowledge(RoundPlan(0, (1,), d=2, l2=1.0), torch.tensor([3.0, -1.0]))
    >>> ZeroWeights().poison_updates(torch.ones(1, 2), known, torch.Generator())
    tensor([[-3.,  1.]])
    """

    @property
    def knows(self) -> Knows:
        """Nothing."""
        return "nothing"

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """-G [f, d]."""
        return (-knowledge.before).expand(own.shape).clone()


@dataclass(frozen=True, slots=True)
class RandomWeights(UpdatePoison):
    """Send a model whose weights are uniform on [-a, a] (FedSecurity, Han et al. 2024, section 3.1,
    random mode, a = 1).

    Seat: updates. Knows nothing but the broadcast. Every client draws its own.

    >>> from privfl.core import RoundPlan
    >>> known = RoundKnowledge(RoundPlan(0, (1,), d=2, l2=1.0), torch.tensor([3.0, -1.0]))
    >>> sent = known.before + RandomWeights().poison_updates(
    ...     torch.ones(1, 2), known, torch.Generator()
    ... )
    >>> bool((sent.abs() <= 1).all())
    True
    """

    a: float = 1.0

    def __post_init__(self) -> None:
        require.positive(a=self.a)

    @property
    def knows(self) -> Knows:
        """Nothing."""
        return "nothing"

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """Uniform weights less G [f, d]."""
        weights = torch.rand(own.shape, generator=rng).mul_(2 * self.a).sub_(self.a)
        return weights.to(own) - knowledge.before


@dataclass(frozen=True, slots=True)
class FlippedWeights(UpdatePoison):
    """Send 2G - L, the mirror image of the trained model L about the broadcast G (FedSecurity, Han
    et al. 2024, section 3.1, flip mode).

    Seat: updates. Knows its own update. As an update that is -(L - G): `SignFlip` with scale 1.

    >>> from privfl.core import RoundPlan
    >>> known = RoundKnowledge(RoundPlan(0, (1,), d=2, l2=1.0), torch.tensor([3.0, -1.0]))
    >>> FlippedWeights().poison_updates(torch.tensor([[0.5, 0.25]]), known, torch.Generator())
    tensor([[-0.5000, -0.2500]])
    """

    @property
    def knows(self) -> Knows:
        """Its own update."""
        return "own"

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """(2G - L) - G [f, d]."""
        return -own
