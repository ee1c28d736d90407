"""The mean: what federated averaging does, and what one liar can move anywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from privfl.aggregators.base import cleaned, finite_rows
from privfl.core import (
    BadUpdate,
    DefenceSeat,
    Examples,
    Moves,
    Needs,
    Neighbours,
    Reads,
    Rows,
    Total,
    Vector,
)
from privfl.core.streaming import sum_of_rows

ADDED_UP = 1 << 18
"""Rows of so many values or more are added up one after the other, so that they need not all be
there; shorter ones in one product, because there are more of them.
"""


@dataclass(frozen=True, slots=True)
class Mean:
    """Weighted mean of updates (McMahan et al. 2017), from rows or from a total; breakdown point 0.

    ``weighted=False`` gives every row the weight 1. ``denominator`` divides the weighted sum by a
    fixed public number instead of by the weights present: the only mean with a sensitivity when
    clients may be added or removed.

    Raises:
        BadUpdate: an unweighted mean of a total whose contributions had other weights than 1; rows
            or a total that are not finite.

    >>> Mean()(Rows.of([[1.0], [4.0]], weights=[2.0, 1.0]))
    tensor([2.])
    """

    examples: ClassVar[Examples] = {
        "": {"weighted": False},
        "weighted": {},
        "public": {"weighted": False, "denominator": 15.0},
    }
    seats: ClassVar[frozenset[DefenceSeat]] = frozenset({"rule"})
    reads: ClassVar[Reads] = "either"
    needs_ids: ClassVar[bool] = False
    needs: ClassVar[Needs] = {}
    judges: ClassVar[bool] = False
    remembers: ClassVar[Literal[False]] = False
    symmetries: ClassVar[str] = "PTSR"

    weighted: bool = True
    denominator: float | None = None

    @property
    def public_denominator(self) -> float | None:
        """``denominator``."""
        return self.denominator or None

    def max_byzantine(self, n: int) -> int:
        """None."""
        return 0

    def __call__(self, opened: Rows | Total) -> Vector:
        """The mean [d]."""
        if isinstance(opened, Rows):
            if opened.n == 0:
                raise BadUpdate("Mean got no rows at all.")
            weights = opened.weights if self.weighted else opened.weights.new_ones(opened.n)
            whole = self.denominator or float(weights.sum())
            if self.streams(opened.d) and opened.values.device.type == "cpu":
                mean = sum_of_rows(opened.values, weights).div_(whole)
            else:
                mean = (weights / whole).to(opened.values) @ opened.values
            if not (math.isfinite(whole) and bool(finite_rows(mean[None]))):
                cleaned("Mean", opened, max_byzantine=0)  # names whose rows are not finite
                raise BadUpdate(
                    "Mean: all rows are finite, and their mean is not: values or weights are too"
                    " large; set bound to a clip, and max_weight."
                )
            return mean
        if not self.weighted and abs(opened.weight - opened.count) > 1e-3 * opened.count:
            raise BadUpdate(
                f"an unweighted mean of {opened.count} updates whose weights sum to"
                f" {opened.weight}: send weights of 1."
            )
        mean = opened.value / self.denominator if self.denominator else opened.mean()
        if not bool(finite_rows(mean[None])):
            raise BadUpdate("Mean: the total holds NaN or infinite values.")
        return mean

    def streams(self, d: int) -> bool:
        """Whether rows of this length are added up one after the other (`core.streaming`)."""
        return d >= ADDED_UP

    def sensitivity(self, moves: Moves, neighbours: Neighbours) -> float:
        """Of uniform weights: how far all rows move together, over the fixed denominator or over
        the public number of rows.

        The sum is linear, so it moves by at most the sum of the rows' moves, and attains it.
        Clients' own weights enter the sum and make it unbounded; so does dividing by the number
        present where a neighbour changes that (add_remove without a fixed denominator).
        """
        present = None if neighbours.relation == "add_remove" else moves.rows
        divisor = self.denominator or present
        return moves.total / divisor if divisor and not self.weighted else float("inf")
