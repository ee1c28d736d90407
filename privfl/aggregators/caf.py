"""The covariance-bound agnostic filter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from privfl.aggregators.base import InHull, RowRule, combine
from privfl.aggregators.spectral import about
from privfl.aggregators.verdict import Verdict
from privfl.core import Examples, Rows, require
from privfl.core.geometry import centred_gram

_FLAT = 1e-14


@dataclass(frozen=True, slots=True)
class CAF(InHull, RowRule):
    """Covariance-bound agnostic filter (Allouah, Guerraoui, Stephan 2025): weigh down what sticks
    out along the covariance's main axis.

    Weights c start at 1. While their sum exceeds n - 2f: the c-weighted mean and the top eigenpair
    (lambda, v) of the c-weighted covariance; c_i falls by the factor 1 - <x_i - mean, v>^2 / max.
    The mean that had the least lambda is the result. Tolerates f < n/2. Row weights are not used.
    Rows whose weight is 0 do not enter the maximum, so at least one more falls every time.

    >>> 0.9 < float(CAF(f=1)(Rows.of([[0.0], [1.0], [2.0], [99.0]]))) < 1.1
    True
    """

    told_f: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {"": {"f": 3}}

    f: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def max_byzantine(self, n: int) -> int:
        """f, where n > 2f."""
        require.honest_majority(rule="CAF", n=n, f=self.f, at_least=2 * self.f + 1)
        return self.f

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        n, f = rows.n, max(self.f - lost, 0)
        inner = centred_gram(rows.values).cpu()
        c = torch.ones(n, dtype=torch.float64)
        best, least = c / n, math.inf
        while float(c.sum()) > n - 2 * f:
            share = c / c.sum()
            around = about(inner, share)
            root = share.sqrt()
            values, vectors = torch.linalg.eigh(root[:, None] * around * root)
            if float(values[-1]) < least:
                least, best = float(values[-1]), share
            if float(values[-1]) <= _FLAT * float(share @ inner.diagonal()):
                break  # what still counts lies in one place, up to rounding
            along = (around @ (root * vectors[:, -1])) ** 2  # <x_i - mean, v>^2 up to one factor
            along[c <= 0] = 0.0
            fallen = c * (1 - along / along.max())
            c = torch.where(along >= along.max(), torch.zeros(()).to(c), fallen)
        return Verdict(
            combine(rows.values, best),
            kept=best > 0,
            scale=(best * n).clamp(max=1).round(decimals=9),
            suspicion=1 - best * n,
            scores={"weight": best},
        )
