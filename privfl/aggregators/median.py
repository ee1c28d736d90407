"""Coordinate-wise order statistics: the median, the trimmed mean, and the mean around the median."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privfl.aggregators.columns import middle, nearest_middle_mean, sorted_columns
from privfl.aggregators.seats import RowRule, majority
from privfl.aggregators.verdict import Verdict
from privfl.core import NeighbourRelation, RowBound, Rows, Vector, require


@dataclass(frozen=True, slots=True)
class Median(RowRule):
    """Coordinate-wise median (Yin, Chen, Ramchandran, Bartlett 2018, Definition 1): the midpoint of the two middle values for even n.

    Stands f < n/2: every coordinate stays among the honest values. Row weights are not used. Not equivariant to rotation.

    >>> Median()(Rows.of([[0.0], [1.0], [2.0], [9.0]]))
    tensor([1.5000])
    """

    symmetries: ClassVar[str] = "PTS"

    def stands(self, n: int) -> int:
        """Fewer than half."""
        return majority(n)

    def _decide(self, rows: Rows, lost: int) -> Verdict[Vector]:
        out = rows.values.new_empty(rows.d)
        for where, columns in sorted_columns(rows.values):
            out[where] = middle(columns)
        return Verdict(out, touched=rows.d if rows.n > 2 else 0)

    def sensitivity(self, bound: RowBound, n: int, relation: NeighbourRelation) -> float:
        """One client's whole step for odd n, half of it for even n: a median is a trimmed mean that keeps one or two values."""
        return TrimmedMean(f=majority(n)).sensitivity(bound, n, relation)


@dataclass(frozen=True, slots=True)
class TrimmedMean(RowRule):
    """Drop the f lowest and the f highest values of every coordinate and average the rest (Yin et al. 2018, Definition 2).

    Stands f < n/2. Row weights are not used. Not equivariant to rotation.

    >>> TrimmedMean(f=1)(Rows.of([[0.0], [1.0], [2.0], [1e30]]))
    tensor([1.5000])
    """

    symmetries: ClassVar[str] = "PTS"

    f: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def stands(self, n: int) -> int:
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

        The kept values' sum is a constant plus one client's value clipped to an interval, coordinate by coordinate, so it moves no
        farther than that client does. Under add_remove l2 (1 + sqrt((n - 1) / (n - 1 - f))) / (n - 2f).
        """
        kept = n - 2 * self.f
        if kept < 1:
            return float("inf")
        if relation == "add_remove":
            left = n - 1
            return bound.l2 * (1 + (left / (left - self.f)) ** 0.5) / kept if left > 2 * self.f else float("inf")
        return (bound.step if relation == "replace_one" else bound.l2) / kept


@dataclass(frozen=True, slots=True)
class MeaMed(RowRule):
    """Mean around the median (Xie, Koyejo, Gupta 2018): in every coordinate, average the n - f values nearest the median.

    Stands f < n/2. Row weights are not used. Not equivariant to rotation. Of values equally near, the lower are kept. No
    sensitivity is proved: which values are nearest can change all at once.

    >>> MeaMed(f=1)(Rows.of([[0.0], [1.0], [2.5], [9.0]])) * 3
    tensor([3.5000])
    """

    symmetries: ClassVar[str] = "PTS"

    f: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def stands(self, n: int) -> int:
        """f, where n > 2f."""
        require.honest_majority(rule="MeaMed", n=n, f=self.f, at_least=2 * self.f + 1)
        return self.f

    def _decide(self, rows: Rows, lost: int) -> Verdict[Vector]:
        f = max(self.f - lost, 0)
        out: Vector = torch.empty(rows.d, dtype=rows.values.dtype, device=rows.values.device)
        for where, columns in sorted_columns(rows.values):
            out[where] = nearest_middle_mean(columns, rows.n - f)
        return Verdict(out, touched=rows.d if f else 0)
