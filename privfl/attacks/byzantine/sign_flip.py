"""Sign flip: push the model back along the client's own update."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import Knows, RoundKnowledge, UpdatePoison, require


@dataclass(frozen=True, slots=True)
class SignFlip(UpdatePoison):
    """Send -scale times the client's own honest update (Li, Xu, Chen, Giannakis, Ling 2019: RSA,
    section 5, sign-flipping attack).

    Seat: updates. Knows its own update. With f attackers of n and like updates, the mean is
    reversed where scale > (n - f) / f.

    >>> from privfl.core import RoundPlan
    >>> known = RoundKnowledge(RoundPlan(0, (1,), d=2, l2=1.0), torch.zeros(2))
    >>> SignFlip(scale=4.0).poison_updates(torch.tensor([[0.5, -0.25]]), known, torch.Generator())
    tensor([[-2.,  1.]])
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        require.positive(scale=self.scale)

    @property
    def knows(self) -> Knows:
        """Its own update."""
        return "own"

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """The flipped updates [f, d]."""
        return own * -self.scale
