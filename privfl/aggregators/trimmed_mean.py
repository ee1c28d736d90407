"""The coordinate-wise trimmed mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from privfl.aggregators.base import RowRule
from privfl.aggregators.columns import sorted_columns
from privfl.aggregators.verdict import Verdict
from privfl.core import NeighbourRelation, RowBound, Rows, Vector, require


@dataclass(frozen=True, slots=True)
class TrimmedMean(RowRule):
    """Drop the f lowest and the f highest values of every coordinate and average the rest (Yin et
    al. 2018, Definition 2).

    Tolerates f < n/2. Row weights are not used. Not equivariant to rotation.

    >>> TrimmedMean(f=1)(Rows.of([[0.0], [1.0], [2.0], [1e30]]))
    tensor([1.5000])
    """

    symmetries: ClassVar[str] = "PTS"

    f: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def max_byzantine(self, n: int) -> int:
        """f, where n > 2f."""
        require.honest_majority(rule="TrimmedMean", n=n, f=self.f, at_least=2 * self.f + 1)
        return self.f

    def _decide(self, rows: Rows, lost: int) -> Verdict[Vector]:
        f = max(self.f - lost, 0)
        out = rows.values.new_empty(rows.d)
        for where, columns in sorted_columns(rows.values):
            out[where] = columns[:, f : rows.n - f].mean(dim=1)
        return Verdict(out, touched=rows.d if f else 0)

    def sensitivity(self, bound: RowBound, n: int, relation: NeighbourRelation) -> float:
        """At most step / (n - 2f) under replace_one, l2 / (n - 2f) under zero_out.

        The kept values' sum is a constant plus one client's value clipped to an interval,
        coordinate by coordinate, so it moves no farther than that client does. Under add_remove l2
        (1 + sqrt((n - 1) / (n - 1 - f))) / (n - 2f).
        """
        kept = n - 2 * self.f
        if kept < 1:
            return float("inf")
        if relation == "add_remove":
            left = n - 1
            return (
                bound.l2 * (1 + (left / (left - self.f)) ** 0.5) / kept
                if left > 2 * self.f
                else float("inf")
            )
        return (bound.step if relation == "replace_one" else bound.l2) / kept
