"""SLSGD (Xie, Koyejo, Gupta 2019): a trimmed mean of models, mixed with the model before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from privfl.aggregators.base import RowRule
from privfl.aggregators.trimmed_mean import TrimmedMean
from privfl.aggregators.verdict import Verdict
from privfl.core import Moves, Neighbours, Rows, Vector, require


@dataclass(frozen=True, slots=True)
class SLSGD(RowRule):
    """The model becomes (1 - alpha) w + alpha Trmean_b of the clients' models (Algorithm 1, option
    II).

    The trimmed mean moves along with a translation, so the change is alpha Trmean_b of the updates,
    and the model itself is not needed. Tolerates b < n/2 (Theorem 2). Row weights are not used. Not
    equivariant to rotation.

    >>> SLSGD(b=1, alpha=0.5)(Rows.of([[0.0], [1.0], [2.0], [99.0]]))
    tensor([0.7500])
    """

    symmetries: ClassVar[str] = "PS"

    b: int = 1
    alpha: float = 0.5

    def __post_init__(self) -> None:
        require.at_least(0, b=self.b)
        require.positive(alpha=self.alpha)
        require.within(0, 1, alpha=self.alpha)

    def max_byzantine(self, n: int) -> int:
        """b, where n > 2b."""
        require.honest_majority(rule="SLSGD", n=n, f=self.b, at_least=2 * self.b + 1)
        return self.b

    def _decide(self, rows: Rows, lost: int) -> Verdict[Vector]:
        trimmed = TrimmedMean(f=max(self.b - lost, 0)).judge(rows)
        return Verdict(trimmed.out * self.alpha, touched=trimmed.touched)

    def sensitivity(self, moves: Moves, neighbours: Neighbours) -> float:
        """Alpha times the trimmed mean's, of which it is a multiple."""
        return self.alpha * TrimmedMean(f=self.b).sensitivity(moves, neighbours)
