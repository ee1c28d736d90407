"""Local model poisoning of Krum (Fang, Cao, Jia, Gong 2020, section 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.byzantine.honest_estimate import Sees, honest_estimate
from privfl.attacks.byzantine.objective import arriving
from privfl.core import Knows, RoundKnowledge, UpdatePoison, Vector, require
from privfl.core.geometry import squared_distances, squared_norms


@dataclass(frozen=True, slots=True)
class FangKrum(UpdatePoison):
    """Send -lambda s, with s the signs of the mean update, and lambda the largest that Krum still
    picks (Fang et al. 2020, section 3.2).

    lambda starts at the paper's upper bound (`bound`) and is halved until Krum picks the row or
    lambda is under ``tolerance``. With ``sees="own"`` (partial knowledge) the attackers play Krum
    among their own honest updates, with one malicious row, then two, and so on.

    Krum is played with the row that arrives, after bound and encoding (``adaptive=False``: with the
    row that is handed in).

    Seat: updates, in collusion. Knows all honest updates, or its own; takes the server's rule to be
    Krum.

    >>> from privfl.core import RoundPlan, Rows
    >>> honest = Rows.of(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)) + 1)
    >>> known = RoundKnowledge(
    ...     RoundPlan(0, tuple(range(10)), d=5, l2=9.0), torch.zeros(5), benign=honest
    ... )
    >>> FangKrum().poison_updates(torch.ones(2, 5), known, torch.Generator())[0].sign()
    tensor([-1., -1., -1., -1., -1.])
    """

    tolerance: float = 1e-5
    sees: Sees = "benign"
    adaptive: bool = True

    def __post_init__(self) -> None:
        require.positive(tolerance=self.tolerance)

    @property
    def knows(self) -> Knows:
        """All honest updates, or its own."""
        return self.sees

    @staticmethod
    def bound(honest: Float[Tensor, "h d"], f: int) -> float:
        """The paper's upper bound of lambda for n = h + f rows.

        The smallest sum of distances from an honest update to its n - f - 2 nearest honest ones,
        over (n - 2f - 1) sqrt(d), plus the longest honest update over sqrt(d).
        """
        n, root = len(honest) + f, math.sqrt(honest.shape[1])
        near = squared_distances(honest).sqrt().sort(dim=1).values[:, 1 : n - f - 1]
        longest = math.sqrt(float(squared_norms(honest).max()))
        return float(near.sum(dim=1).min()) / (max(n - 2 * f - 1, 1) * root) + longest / root

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """-lambda s, the same for every attacker [f, d]."""
        honest, f = honest_estimate("FangKrum", self.sees, own, knowledge), len(own)
        signs = (honest if self.sees == "own" else torch.cat([honest, own])).mean(dim=0).sign()
        step, arrives = 0.0, arriving(knowledge, self.adaptive)
        for copies in range(1, f + 1) if self.sees == "own" else (f,):
            step = self.bound(honest, f)
            while step >= self.tolerance:
                if _krum_picks(honest, arrives(-step * signs), copies, f):
                    return (-step * signs).expand(own.shape).clone()
                step /= 2
        return (-step * signs).expand(own.shape).clone()


def _krum_picks(honest: Float[Tensor, "h d"], row: Vector, copies: int, f: int) -> bool:
    """Whether Krum, with f Byzantine clients assumed, picks one of the copies."""
    n = len(honest) + copies
    distances = squared_distances(torch.cat([honest, row.expand(copies, -1)]))
    scores = distances.sort(dim=1).values[:, 1 : 1 + max(n - f - 2, 1)].sum(dim=1)
    return int(scores.argmin()) >= len(honest)
