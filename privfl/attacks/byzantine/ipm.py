"""Inner product manipulation: a small step the wrong way, or a large one (Xie et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.byzantine.honest_estimate import Sees, honest_estimate
from privfl.core import Knows, RoundKnowledge, UpdatePoison, require


@dataclass(frozen=True, slots=True)
class IPM(UpdatePoison):
    """Send -epsilon times the mean of the honest updates (Xie, Koyejo, Gupta 2019: Fall of Empires,
    section 4).

    The mean is reversed where epsilon > h / f; a small epsilon (0.1 to 0.5) makes the result of
    Krum or the median point the wrong way.

    Seat: updates, in collusion. Knows all honest updates, or its own (``sees``).

    >>> from privfl.core import RoundPlan, Rows
    >>> known = RoundKnowledge(
    ...     RoundPlan(0, (1, 2, 3), d=1, l2=9.0), torch.zeros(1), benign=Rows.of([[1.0], [3.0]])
    ... )
    >>> IPM(epsilon=0.5).poison_updates(torch.ones(1, 1), known, torch.Generator())
    tensor([[-1.]])
    """

    epsilon: float = 0.5
    sees: Sees = "benign"

    def __post_init__(self) -> None:
        require.positive(epsilon=self.epsilon)

    @property
    def knows(self) -> Knows:
        """All honest updates, or its own."""
        return self.sees

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """-epsilon mu, the same for every attacker [f, d]."""
        return (
            (-self.epsilon * honest_estimate("IPM", self.sees, own, knowledge).mean(dim=0))
            .expand(own.shape)
            .clone()
        )
