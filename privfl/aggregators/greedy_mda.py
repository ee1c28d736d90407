"""The greedy stand-in for minimum-diameter averaging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from privfl.aggregators.base import InHull, RowRule, mask, mean_of
from privfl.aggregators.verdict import Verdict
from privfl.core import Examples, Rows, require
from privfl.core.geometry import squared_distances


@dataclass(frozen=True, slots=True)
class GreedyMDA(InHull, RowRule):
    """Average the n - f nearest neighbours of some row (itself among them) whose diameter is least:
    at most twice the least diameter.

    The greedy stand-in for `MDA` where the exact search would be too long: O(n^3) after the
    distances. Tolerates f < n/2. Row weights are not used.

    >>> round(float(GreedyMDA(f=1)(Rows.of([[0.0], [0.5], [0.2], [7.0]])) * 30), 3)
    7.0
    """

    told_f: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {"": {"f": 3}}

    f: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def max_byzantine(self, n: int) -> int:
        """f, where n > 2f."""
        require.honest_majority(rule="GreedyMDA", n=n, f=self.f, at_least=2 * self.f + 1)
        return self.f

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        squared = squared_distances(rows.values).cpu()
        balls = squared.argsort(dim=1, stable=True)[:, : rows.n - max(self.f - lost, 0)]
        inside = [squared[ball][:, ball] for ball in balls]
        best = min(range(rows.n), key=lambda i: (float(inside[i].max()), float(inside[i].sum())))
        chosen = balls[best]
        return Verdict(
            mean_of(rows.values, chosen),
            kept=mask(rows.n, chosen),
            suspicion=squared[:, chosen].max(dim=1).values.sqrt(),
        )
