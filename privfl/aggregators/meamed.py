"""The mean around the median."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privfl.aggregators.base import RowRule
from privfl.aggregators.columns import nearest_middle_mean, sorted_columns
from privfl.aggregators.verdict import Verdict
from privfl.core import Examples, Rows, Vector, require


@dataclass(frozen=True, slots=True)
class MeaMed(RowRule):
    """Mean around the median (Xie, Koyejo, Gupta 2018): in every coordinate, average the n - f
    values nearest the median.

    Tolerates f < n/2. Row weights are not used. Not equivariant to rotation. Of values equally
    near, the lower are kept. No sensitivity is proved: which values are nearest can change all at
    once.

    >>> MeaMed(f=1)(Rows.of([[0.0], [1.0], [2.5], [9.0]])) * 3
    tensor([3.5000])
    """

    examples: ClassVar[Examples] = {"": {"f": 3}}
    symmetries: ClassVar[str] = "PTS"

    f: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def max_byzantine(self, n: int) -> int:
        """f, where n > 2f."""
        require.honest_majority(rule="MeaMed", n=n, f=self.f, at_least=2 * self.f + 1)
        return self.f

    def _decide(self, rows: Rows, lost: int) -> Verdict[Vector]:
        f = max(self.f - lost, 0)
        out: Vector = torch.empty(rows.d, dtype=rows.values.dtype, device=rows.values.device)
        for where, columns in sorted_columns(rows.values):
            out[where] = nearest_middle_mean(columns, rows.n - f)
        return Verdict(out, touched=rows.d if f else 0)
