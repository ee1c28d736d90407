"""The mean: what federated averaging does, and what one liar can move anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from privfl.aggregators.base import cleaned
from privfl.core import (
    BadUpdate,
    DefenceSeat,
    Needs,
    NeighbourRelation,
    Reads,
    RowBound,
    Rows,
    Total,
    Vector,
)


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
            mean = (weights / (self.denominator or float(weights.sum()))).to(
                opened.values.dtype
            ) @ opened.values
            if not bool(torch.isfinite(mean).all()):
                cleaned("Mean", opened, max_byzantine=0)  # names whose rows are not finite
            return mean
        if not self.weighted and abs(opened.weight - opened.count) > 1e-3 * opened.count:
            raise BadUpdate(
                f"an unweighted mean of {opened.count} updates whose weights sum to"
                f" {opened.weight}: send weights of 1."
            )
        mean = opened.value / self.denominator if self.denominator else opened.mean()
        if not bool(torch.isfinite(mean).all()):
            raise BadUpdate("Mean: the total holds NaN or infinite values.")
        return mean

    def sensitivity(self, bound: RowBound, n: int, relation: NeighbourRelation) -> float:
        """Of uniform weights: step / n under replace_one, l2 / n under zero_out, and l2 /
        denominator where that is fixed.

        Weights make it unbounded, because they enter the sum; so does add_remove without a fixed
        denominator.
        """
        if self.weighted:
            return float("inf")
        if relation == "add_remove":
            return bound.l2 / self.denominator if self.denominator else float("inf")
        return (bound.step if relation == "replace_one" else bound.l2) / (self.denominator or n)
