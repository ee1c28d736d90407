"""The coordinate-wise trimmed mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from privfl.aggregators.base import RowRule
from privfl.aggregators.columns import sorted_columns
from privfl.aggregators.network import trimmed_by_network
from privfl.aggregators.verdict import Verdict
from privfl.core import Examples, Moves, Neighbours, Rows, Vector, require


@dataclass(frozen=True, slots=True)
class TrimmedMean(RowRule):
    """Drop the f lowest and the f highest values of every coordinate and average the rest (Yin et
    al. 2018, Definition 2).

    Tolerates f < n/2. Row weights are not used. Not equivariant to rotation. Coordinates are
    sorted, or go through a selection network where ``privfl native --build`` has compiled one; the
    result has the same bits.

    >>> TrimmedMean(f=1)(Rows.of([[0.0], [1.0], [2.0], [1e30]]))
    tensor([1.5000])
    """

    examples: ClassVar[Examples] = {"": {"f": 3}}
    symmetries: ClassVar[str] = "PTS"

    f: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def max_byzantine(self, n: int) -> int:
        """f, where n > 2f."""
        require.honest_majority(rule="TrimmedMean", n=n, f=self.f, at_least=2 * self.f + 1)
        return self.f

    def _at_once(self, rows: Rows) -> Verdict[Vector] | None:
        out = trimmed_by_network(rows.values, self.f)
        return None if out is None else self._verdict(out, self.f)

    def _decide(self, rows: Rows, lost: int) -> Verdict[Vector]:
        f = max(self.f - lost, 0)
        out = rows.values.new_empty(rows.d)
        for where, columns in sorted_columns(rows.values):
            out[where] = columns[:, f : rows.n - f].mean(dim=1)
        return self._verdict(out, f)

    def _verdict(self, out: Vector, f: int) -> Verdict[Vector]:
        return Verdict(out, touched=len(out) if f else 0)

    def sensitivity(self, moves: Moves, neighbours: Neighbours) -> float:
        """At most how far all rows move together, over n - 2f.

        Of one row at a time: the kept values' sum is a constant plus that row's value clipped to an
        interval, coordinate by coordinate, so it moves no farther than the row does; several rows
        are moved one after another. Under add_remove, of n rows in the larger world, l2 (1 +
        sqrt((n - 1) / (n - 1 - f))) / (n - 2f).
        """
        if moves.rows is None or moves.rows <= 2 * self.f:
            return float("inf")
        kept = moves.rows - 2 * self.f
        if neighbours.relation != "add_remove":
            return moves.total / kept
        left = moves.rows - 1
        if moves.changed > 1 or left <= 2 * self.f:
            return float("inf")
        return moves.longest * (1 + math.sqrt(left / (left - self.f))) / kept
