"""Residual-based re-weighting (Fu, Xie, Li, Chen 2019): rows far from a robust line through the
sorted values count less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.base import RowRule, combine, majority
from privfl.aggregators.columns import middle
from privfl.aggregators.verdict import Verdict
from privfl.core import Rows, require

_ROOM = 1 << 20


def median_of(values: Float[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """Median along the last axis."""
    ordered = values.contiguous()
    ordered.numpy().sort(axis=-1)
    return middle(ordered.reshape(-1, ordered.shape[-1])).reshape(ordered.shape[:-1])


def repeated_median_line(
    ordered: Float[Tensor, "b n"],
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Siegel's (1982) slope and the intercept of a line through sorted values against their ranks 0
    .. n - 1.
    """
    n = ordered.shape[1]
    ranks = torch.arange(n, dtype=ordered.dtype)
    slopes = (ordered[:, :, None] - ordered[:, None, :]) / (ranks[:, None] - ranks).fill_diagonal_(
        1
    )
    slopes.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    slopes.numpy().sort(axis=2)
    flat = slopes[:, :, : n - 1].reshape(-1, n - 1)
    slope = median_of(middle(flat).reshape(-1, n))
    return slope, middle(ordered) - slope * (n - 1) / 2


@dataclass(frozen=True, slots=True)
class ResidualReweighting(RowRule):
    """In every coordinate fit a repeated-median line to the values over their ranks; weigh clients
    by how near it they stay.

    e_i = r_i / tau with tau = 1.4826 (1 + 5 / (n - 1)) times the median absolute residual (the
    smallest left out); the weight is (sqrt(1 - h_i) / e_i) clip(e_i / sqrt(1 - h_i), +-lambda
    sqrt(2 / n)), h_i the line's leverage; values of weight under ``delta`` are replaced by the
    line's. A client's weight is (sum over coordinates of weight times that coordinate's std of
    weights, over the largest) squared. Where no coordinate tells clients apart all count alike. Row
    weights are not used. Meant for f < (n - 1) / 2. O(d n^2 log n). Not equivariant to rotation. No
    sensitivity is proved.

    >>> ResidualReweighting()(Rows.of([[0.0], [1.0], [2.0], [3.0], [99.0]])) < 5
    tensor([True])
    """

    suspects: ClassVar[bool] = True
    symmetries: ClassVar[str] = "PTS"

    lam: float = 2.0
    delta: float = 0.1

    def __post_init__(self) -> None:
        require.positive(lam=self.lam)
        require.within(0, 1, delta=self.delta)

    def max_byzantine(self, n: int) -> int:
        """Fewer than half of the others of any row: a slope's median is over n - 1 pairs, and the
        midpoint of an even number of them goes wherever half of them go.
        """
        return majority(n - 1)

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        n, d = rows.n, rows.d
        if n < 3:
            return Verdict(rows.values.mean(dim=0), suspicion=torch.zeros(n).double())
        earned = torch.zeros(n, dtype=torch.float64)
        restricted = torch.empty(n, d, dtype=rows.values.dtype)
        replaced = 0
        block = max(_ROOM // n**2, 1)
        for start in range(0, d, block):
            part = rows.values[:, start : start + block].cpu().to(torch.float64).T
            weights, line = self._weigh(part)
            earned += (weights * weights.std(dim=1, keepdim=True)).sum(dim=0)
            off = weights < self.delta
            replaced += int(off.sum())
            restricted[:, start : start + block] = torch.where(off, line, part).T.to(restricted)
        share = (earned / earned.max()) ** 2 if float(earned.max()) > 0 else torch.ones_like(earned)
        out = combine(restricted, share / share.sum()).to(rows.values.device)
        return Verdict(
            out, scale=share, touched=replaced, suspicion=1 - share, scores={"weight": share}
        )

    def _weigh(
        self, part: Float[Tensor, "b n"]
    ) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
        n = part.shape[1]
        order = part.argsort(dim=1, stable=True)
        ranks = order.argsort(dim=1).to(torch.float64)
        slope, intercept = repeated_median_line(part.gather(1, order))
        line = intercept[:, None] + slope[:, None] * ranks
        residual = part - line
        ordered = residual.abs().sort(dim=1).values
        tau = 1.4826 * (1 + 5 / (n - 1)) * middle(ordered[:, 1:]) + 1e-7
        e = residual.abs() / tau[:, None]
        spread = (ranks - (n - 1) / 2) ** 2
        stiff = (1 - 1 / n - spread / spread.sum(dim=1, keepdim=True)).clamp(min=1e-12).sqrt()
        ratio = e / stiff
        bound = self.lam * (2 / n) ** 0.5
        return (
            torch.where(ratio > bound, bound / ratio.clamp(min=1e-300), torch.ones(()).to(part)),
            line,
        )
