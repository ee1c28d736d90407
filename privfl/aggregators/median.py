"""The coordinate-wise median."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from privfl.aggregators.base import RowRule, majority
from privfl.aggregators.columns import middle, sorted_columns
from privfl.aggregators.network import median_by_network
from privfl.aggregators.trimmed_mean import TrimmedMean
from privfl.aggregators.verdict import Verdict
from privfl.core import Moves, Neighbours, Rows, Vector


@dataclass(frozen=True, slots=True)
class Median(RowRule):
    """Coordinate-wise median (Yin, Chen, Ramchandran, Bartlett 2018, Definition 1): the midpoint of
    the two middle values for even n.

    Tolerates f < n/2: every coordinate stays among the honest values. Row weights are not used. Not
    equivariant to rotation. Coordinates are sorted, or go through a selection network as the
    trimmed mean's do (``privfl native --build``), with the same bits.

    >>> Median()(Rows.of([[0.0], [1.0], [2.0], [9.0]]))
    tensor([1.5000])
    """

    symmetries: ClassVar[str] = "PTS"

    def max_byzantine(self, n: int) -> int:
        """Fewer than half."""
        return majority(n)

    def _at_once(self, rows: Rows) -> Verdict[Vector] | None:
        out = median_by_network(rows.values)
        return None if out is None else self._verdict(out, rows.n)

    def _decide(self, rows: Rows, lost: int) -> Verdict[Vector]:
        out = rows.values.new_empty(rows.d)
        for where, columns in sorted_columns(rows.values):
            out[where] = middle(columns)
        return self._verdict(out, rows.n)

    def _verdict(self, out: Vector, n: int) -> Verdict[Vector]:
        return Verdict(out, touched=len(out) if n > 2 else 0)

    def sensitivity(self, moves: Moves, neighbours: Neighbours) -> float:
        """How far all rows move together for odd n, half of that for even n: a median is a trimmed
        mean that keeps one or two values.
        """
        if moves.rows is None:
            return float("inf")
        return TrimmedMean(f=majority(moves.rows)).sensitivity(moves, neighbours)
