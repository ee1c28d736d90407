"""The majority vote of signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from privfl.aggregators.base import RowRule, majority
from privfl.aggregators.verdict import Verdict
from privfl.core import Rows, require

_BLOCK = 1 << 14


def sign_votes(values: Tensor) -> Tensor:
    """The sum of signs [d] of the rows, a coordinate at a time; a zero entry does not vote."""
    out = torch.empty(values.shape[1], dtype=torch.float32, device=values.device)
    for start in range(0, values.shape[1], _BLOCK):
        out[start : start + _BLOCK] = values[:, start : start + _BLOCK].sign().sum(dim=0)
    return out


@dataclass(frozen=True, slots=True)
class SignMajority(RowRule):
    """The sign of the sum of signs, times ``step`` (Bernstein, Wang, Azizzadenesheli, Anandkumar
    2018): majority vote; a tie is 0.

    ``step`` is the paper's learning rate: how far every parameter moves in a round. Tolerates
    f < n/2 where honest clients agree on the sign (Bernstein et al. 2019, Theorem 2). Length does
    not count, and row weights are not used. No finite sensitivity without d: one vote can turn
    every coordinate, 2 step sqrt(d).

    >>> SignMajority(step=1.0)(Rows.of([[1.0, 0.0], [2.0, -1.0], [-9.0, 1.0]]))
    tensor([1., 0.])
    """

    symmetries: ClassVar[str] = "P"

    step: float = 0.01

    def __post_init__(self) -> None:
        require.positive(step=self.step)

    def max_byzantine(self, n: int) -> int:
        """Fewer than half."""
        return majority(n)

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        return Verdict(sign_votes(rows.values).sign().to(rows.values) * self.step, touched=rows.d)
