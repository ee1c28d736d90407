"""Min-Max and Min-Sum: as far out as the honest updates are from each other (Shejwalkar, Houmansadr
2021, section IV-D).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.byzantine.direction import Direction, direction
from privfl.attacks.byzantine.honest_estimate import Sees, honest_estimate
from privfl.attacks.byzantine.objective import arriving
from privfl.attacks.byzantine.search import most_harm
from privfl.core import Knows, RoundKnowledge, UpdatePoison, Vector
from privfl.core.geometry import squared_distances, squared_norms

SLACK = 1e-6
"""Relative slack of a constraint that is met in float32."""
TRIES = 30


@dataclass(frozen=True, slots=True)
class MinMax(UpdatePoison):
    """mu + gamma p with the largest gamma that leaves it as near to every honest update as two
    honest ones are to each other.

    max_i ||mu + gamma p - u_i|| <= max_ij ||u_i - u_j|| (Shejwalkar, Houmansadr 2021, equation 5).
    Each constraint is a quadratic in gamma, so gamma is exact: the paper halves steps from 10 down
    to a tolerance. ``along`` is p. What is bounded or encoded on its way arrives as another row:
    the constraint is then held, and the distance from mu looked for, on the row that arrives
    (``adaptive=False``: on the row that is handed in).

    Seat: updates, in collusion. Knows all honest updates, or its own; no rule.

    >>> MinMax(along="unit").gamma(
    ...     torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([-1.0, 0.0])
    ... )
    1.0
    """

    along: Direction = "std"
    sees: Sees = "benign"
    adaptive: bool = True

    @property
    def knows(self) -> Knows:
        """All honest updates, or its own."""
        return self.sees

    def gamma(self, honest: Float[Tensor, "h d"], p: Float[Tensor, " d"]) -> float:
        """The largest step along p [d]; 0 where p is the zero vector."""
        mu = honest.mean(dim=0)
        near, across, length = (
            squared_norms(honest, mu),
            (p @ mu - honest @ p).double(),
            float(squared_norms(p[None])[0]),
        )
        room = (squared_distances(honest).max() - near).clamp(min=0)
        return (
            float(((across.square() + length * room).sqrt() - across).min() / length)
            if length
            else 0.0
        )

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """Mu + gamma p, the same for every attacker [f, d]."""
        honest = honest_estimate("MinMax", self.sees, own, knowledge)
        p = direction(self.along, honest)
        gamma = self.gamma(honest, p)
        if self.adaptive:
            gamma = _arriving(honest, p, gamma, knowledge, self.allowed)
        return (honest.mean(dim=0) + gamma * p).expand(own.shape).clone()

    @staticmethod
    def allowed(honest: Float[Tensor, "h d"], row: Vector) -> bool:
        """Whether the constraint holds of a row [d]."""
        squared = squared_distances(honest)
        return bool(squared_norms(honest, row).max() <= squared.max() * (1 + SLACK))


@dataclass(frozen=True, slots=True)
class MinSum(UpdatePoison):
    """mu + gamma p with the largest gamma whose squared distances to the honest updates sum to no
    more than those of an honest one.

    sum_i ||mu + gamma p - u_i||^2 <= max_i sum_j ||u_i - u_j||^2 (Shejwalkar, Houmansadr 2021,
    equation 6), solved exactly; on the row that arrives, as in `MinMax`.

    Seat: updates, in collusion. Knows all honest updates, or its own; no rule.

    >>> benign = torch.tensor([[0.0, 1.0], [2.0, 1.0]])
    >>> round(MinSum(along="unit").gamma(benign, torch.tensor([-1.0, 0.0])), 6)
    1.0
    """

    along: Direction = "std"
    sees: Sees = "benign"
    adaptive: bool = True

    @property
    def knows(self) -> Knows:
        """All honest updates, or its own."""
        return self.sees

    def gamma(self, honest: Float[Tensor, "h d"], p: Float[Tensor, " d"]) -> float:
        """The largest step along p [d]; 0 where p is the zero vector."""
        length = float(squared_norms(p[None])[0])
        own = float(squared_norms(honest, honest.mean(dim=0)).sum())
        room = max(float(squared_distances(honest).sum(dim=1).max()) - own, 0.0)
        return (room / (len(honest) * length)) ** 0.5 if length else 0.0

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """Mu + gamma p, the same for every attacker [f, d]."""
        honest = honest_estimate("MinSum", self.sees, own, knowledge)
        p = direction(self.along, honest)
        gamma = self.gamma(honest, p)
        if self.adaptive:
            gamma = _arriving(honest, p, gamma, knowledge, self.allowed)
        return (honest.mean(dim=0) + gamma * p).expand(own.shape).clone()

    @staticmethod
    def allowed(honest: Float[Tensor, "h d"], row: Vector) -> bool:
        """Whether the constraint holds of a row [d]."""
        squared = squared_distances(honest)
        return bool(squared_norms(honest, row).sum() <= squared.sum(dim=1).max() * (1 + SLACK))


def _arriving(
    honest: Float[Tensor, "h d"],
    p: Float[Tensor, " d"],
    gamma: float,
    knowledge: RoundKnowledge,
    allowed: Callable[[Tensor, Tensor], bool],
) -> float:
    """The gamma whose row, as it arrives, is farthest from mu among those that are allowed; the
    exact one for the row itself where nothing changes it on its way.
    """
    mu, arrives = honest.mean(dim=0), arriving(knowledge, True)

    def far(factor: float) -> float:
        row = arrives(mu + factor * p)
        return float((row - mu).norm()) if allowed(honest, row) else -math.inf

    straight = mu + gamma * p
    if not gamma > 0 or torch.equal(arrives(straight), straight):
        return gamma
    best, most = most_harm(far, gamma, TRIES)
    return best if most > -math.inf else gamma
