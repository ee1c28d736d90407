"""The geometric median, exact to a tolerance, and RFA's smoothed Weiszfeld steps; both iterate in the span of the rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.seats import InHull, RowRule, combine, majority
from privfl.aggregators.verdict import Verdict
from privfl.core import Rows, require
from privfl.core.geometry import centred_gram

_SAME = 1e-14


def _from(inner: Tensor, at: Tensor) -> Tensor:
    """Distances [n] of every row from the point with coefficients ``at`` (which sum to 1)."""
    products = inner @ at
    return (inner.diagonal() - 2 * products + at @ products).clamp(min=0).sqrt()


def _best_row(inner: Tensor, weights: Tensor, apart: Tensor) -> tuple[int, Tensor, float]:
    """The row with the least objective; the pull on it of the rows elsewhere, as coefficients; how far the pull beats its own weight."""
    row = int((apart @ weights).argmin())
    away = apart[row] > 0
    pull = torch.where(away, weights / apart[row].where(away, torch.ones(())), torch.zeros(()).to(weights))
    direction = pull.clone()
    direction[row] -= pull.sum()
    strength = float((direction @ inner @ direction).clamp(min=0).sqrt())
    return row, direction, strength - float(weights[~away].sum())


def geometric_median(inner: Float[Tensor, "n n"], weights: Float[Tensor, " n"], tolerance: float, most: int) -> Float[Tensor, " n"]:
    """Coefficients [n], summing to 1, of the point with the least weighted sum of distances, from the rows' centred Gram matrix.

    It starts beside the best row, as Vardi and Zhang (2000) do: that row is the answer if the others do not pull on it harder than its own
    weight; otherwise one step along the pull leaves it for good, because Weiszfeld's steps only descend. Stops when
    ``tolerance`` times the mean distance of the rows would be the sum of all steps to come, at the rate at which they shrink.
    """
    lengths = inner.diagonal()
    squared = lengths[:, None] + lengths - 2 * inner
    apart = squared.where(squared > _SAME * (lengths[:, None] + lengths), torch.zeros(()).to(inner)).clamp(min=0).sqrt()
    row, direction, excess = _best_row(inner, weights, apart)
    at = torch.zeros_like(weights)
    at[row] = 1.0
    if excess <= 0:
        return at
    strength = float((direction @ inner @ direction).sqrt())
    total = float((weights / apart[row].where(apart[row] > 0, torch.full((), torch.inf).to(inner))).sum())
    at = at + direction * (excess / (strength * total))
    floor = 1e-150
    before = 0.0
    for _ in range(most):
        away = _from(inner, at).clamp(min=floor)
        pull = weights / away
        step = pull / pull.sum() - at
        moved = float((step @ inner @ step).clamp(min=0).sqrt())
        at = at + step
        rate = min(moved / before, 0.999) if before > 0 else 0.999  # steps shrink by this factor: the rest of the way is a geometric sum
        if moved * rate / (1 - rate) <= tolerance * float(weights @ away) / float(weights.sum()):
            break
        before = moved
    return at / at.sum()


@dataclass(frozen=True, slots=True)
class GeometricMedian(InHull, RowRule):
    """The point z with the least sum_i w_i ||z - x_i||, found to ``tolerance`` times the mean distance of the rows from it.

    Stands liars of less than half of the weight (Lopuhaa, Rousseeuw 1991). Row weights ARE used, as in RFA's objective: they are the
    clients' own claims, so bound them (the round's ``max_weight``) or set ``weighted=False``.
    One Gram matrix, O(n^2) an iteration, one product at the end.

    >>> GeometricMedian()(Rows.of([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0], [1.0, 1.0]]))
    tensor([1., 1.])
    """

    tolerance: float = 1e-9
    weighted: bool = True
    max_iterations: int = 10_000

    def __post_init__(self) -> None:
        require.positive(tolerance=self.tolerance)
        require.at_least(1, max_iterations=self.max_iterations)

    def stands(self, n: int) -> int:
        """Fewer than half."""
        return majority(n)

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        weights = (rows.weights if self.weighted else torch.ones(rows.n)).to(torch.float64).cpu()
        at = geometric_median(centred_gram(rows.values).cpu(), weights, self.tolerance, self.max_iterations)
        return Verdict(combine(rows.values, at), scale=trust(at, weights), scores={"coefficient": at})


@dataclass(frozen=True, slots=True)
class RFA(InHull, RowRule):
    """Robust federated averaging (Pillutla, Kakade, Harchaoui 2019): R smoothed Weiszfeld steps from the weighted mean.

    A step gives row i the coefficient beta_i = w_i / max(nu, ||z - x_i||), normalised. Row weights are used. Resists less than half of
    the weight only as far as it has converged: against 3 of 11 rows at distance 1e5, three steps (the paper's default) leave
    an error of thousands; ask for more steps, or for `GeometricMedian`.

    >>> RFA(iterations=50)(Rows.of([[0.0], [1.0], [50.0]])).round(decimals=2)
    tensor([1.])
    """

    iterations: int = 3
    nu: float = 1e-6

    def __post_init__(self) -> None:
        require.at_least(1, iterations=self.iterations)
        require.positive(nu=self.nu)

    def stands(self, n: int) -> int:
        """Fewer than half."""
        return majority(n)

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        inner = centred_gram(rows.values).cpu()
        weights = rows.weights.to(torch.float64).cpu()
        at = weights / weights.sum()
        for _ in range(self.iterations):
            beta = weights / _from(inner, at).clamp(min=self.nu)
            at = beta / beta.sum()
        return Verdict(combine(rows.values, at), scale=trust(at, weights), scores={"coefficient": at})


def trust(coefficients: Float[Tensor, " n"], weights: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """How much more or less than in the weighted mean each row counts: 1 for all where nothing happened."""
    return (coefficients * weights.sum() / weights.clamp(min=1e-300)).round(decimals=9)
