"""The geometric median, exact to a tolerance, found in the span of the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.base import InHull, RowRule, combine, majority
from privfl.aggregators.verdict import Verdict
from privfl.core import Rows, require
from privfl.core.geometry import centred_gram

Matrix: TypeAlias = npt.NDArray[np.float64]


_SAME = 1e-14


_TINY = 1e-150


def distances_from(inner: Matrix, at: Matrix) -> Matrix:
    """Distances [n] of every row from the point with coefficients ``at`` (which sum to 1)."""
    products = inner @ at
    return np.sqrt(np.maximum(inner.diagonal() - 2 * products + at @ products, 0.0))


def _length(inner: Matrix, coefficients: Matrix) -> float:
    return math.sqrt(max(float(coefficients @ inner @ coefficients), 0.0))


def _median(values: Matrix, weights: Matrix) -> float:
    """The least value with at least half of the weight at or under it."""
    order = values.argsort()
    half = int(np.searchsorted(weights[order].cumsum(), weights.sum() / 2))
    return float(values[order[min(half, len(values) - 1)]])


def geometric_median(
    gram: Float[Tensor, "n n"], weight: Float[Tensor, " n"], tolerance: float, most: int
) -> Float[Tensor, " n"]:
    """Coefficients [n], summing to 1, of the point with the least weighted sum of distances, from
    the rows' centred Gram matrix.

    It starts beside the best row, as Vardi and Zhang (2000) do: that row is the answer if the
    others do not pull on it harder than its own weight; otherwise one step along the pull leaves it
    for good, because Weiszfeld's steps only descend. Stops when ``tolerance`` times the weighted
    median distance of the rows, which far rows of less than half of the weight do not lengthen,
    would be the sum of all steps to come, at the rate at which they shrink.
    """
    inner, weights = gram.numpy(), weight.numpy()
    lengths = inner.diagonal()
    squared = lengths[:, None] + lengths - 2 * inner
    apart = np.sqrt(
        np.where(squared > _SAME * (lengths[:, None] + lengths), np.maximum(squared, 0.0), 0.0)
    )
    row = int((apart @ weights).argmin())
    away = np.where(
        apart[row] > 0, apart[row], np.inf
    )  # rows at the same place do not pull: they hold
    direction = weights / away
    direction[row] -= direction.sum()
    strength = _length(inner, direction)
    excess = strength - float(weights[apart[row] == 0].sum())
    at = np.zeros_like(weights)
    at[row] = 1.0
    if excess <= 0:
        return torch.from_numpy(at)
    at = at + direction * (excess / (strength * float((weights / away).sum())))
    before = 0.0
    for _ in range(most):
        distances = np.maximum(distances_from(inner, at), _TINY)
        pull = weights / distances
        step = pull / pull.sum() - at
        moved = _length(inner, step)
        at = at + step
        rate = (
            min(moved / before, 0.999) if before > 0 else 0.999
        )  # steps shrink by this factor: the rest of the way is a geometric sum
        if moved * rate / (1 - rate) <= tolerance * _median(distances, weights):
            break
        before = moved
    return torch.from_numpy(at / at.sum())


@dataclass(frozen=True, slots=True)
class GeometricMedian(InHull, RowRule):
    """The point z with the least sum_i w_i ||z - x_i||, found to ``tolerance`` times the weighted
    median distance of the rows from it.

    Tolerates Byzantine clients of less than half of the weight (Lopuhaa, Rousseeuw 1991). Row
    weights ARE used, as in RFA's objective: they are the clients' own claims, so bound them (the
    round's ``max_weight``) or set ``weighted=False``. One Gram matrix, O(n^2) an iteration, one
    product at the end.

    >>> GeometricMedian()(Rows.of([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0], [1.0, 1.0]]))
    tensor([1., 1.])
    """

    suspects: ClassVar[bool] = True
    tolerance: float = 1e-9
    weighted: bool = True
    max_iterations: int = 10_000

    def __post_init__(self) -> None:
        require.positive(tolerance=self.tolerance)
        require.at_least(1, max_iterations=self.max_iterations)

    def max_byzantine(self, n: int) -> int:
        """Fewer than half."""
        return majority(n)

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        weights = (rows.weights if self.weighted else torch.ones(rows.n)).to(torch.float64).cpu()
        inner = centred_gram(rows.values).cpu()
        at = geometric_median(inner, weights, self.tolerance, self.max_iterations)
        return Verdict(
            combine(rows.values, at),
            scale=trust(at, weights),
            suspicion=torch.from_numpy(distances_from(inner.numpy(), at.numpy())),
            scores={"coefficient": at},
        )


def trust(coefficients: Float[Tensor, " n"], weights: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """How much more or less than in the weighted mean each row counts: 1 for all where nothing
    happened.
    """
    return (coefficients * weights.sum() / weights.clamp(min=1e-300)).round(decimals=9)
