"""Bulyan (El Mhamdi, Guerraoui, Rouault 2018): Krum chooses candidates one by one, a mean around
the median joins them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.aggregators.base import RowRule, mask
from privfl.aggregators.columns import nearest_middle_mean, sorted_columns
from privfl.aggregators.verdict import Verdict
from privfl.core import Examples, Rows, require
from privfl.core.geometry import squared_distances


@dataclass(frozen=True, slots=True)
class Bulyan(RowRule):
    """Take the Krum winner out n - 2f times; in every coordinate average the n - 4f winners' values
    nearest their median.

    Tolerates ``f`` Byzantine updates where n >= 4f + 3 (Section 4), and leaves them O(1/sqrt(d)) a
    coordinate. Row weights are not used. Not equivariant to rotation. In the last rounds Krum has
    few neighbours to look at, and ties are structural (mutual nearest pairs for f <= 2): they go to
    the row that is nearest all rows, so that order does not matter. No sensitivity is proved.

    The distances are computed and sorted once; winners are struck out.

    >>> rows = [[0.0], [1.0], [2.0], [3.5], [5.0], [6.0], [99.0]]
    >>> 0 < float(Bulyan(f=1)(Rows.of(rows))) < 6
    True
    """

    told_f: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {"": {"f": 3}}
    symmetries: ClassVar[str] = "PTS"

    f: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def max_byzantine(self, n: int) -> int:
        """f, where n >= 4f + 3."""
        require.honest_majority(rule="Bulyan", n=n, f=self.f, at_least=4 * self.f + 3)
        return self.f

    def select(self, values: Float[Tensor, "n d"], f: int) -> Int[Tensor, " theta"]:
        """Positions of the n - 2f successive Krum winners."""
        squared = squared_distances(values).cpu()
        n = len(squared)
        nearest, order = squared.clone().fill_diagonal_(torch.inf).sort(dim=1)
        nearest[:, -1] = 0.0  # the row itself, last in its own line
        crowd = squared.sum(dim=1)
        alive = torch.ones(n, dtype=torch.bool)
        winners: list[int] = []
        for _ in range(n - 2 * f):
            there = alive[order]
            there[:, -1] = False
            neighbours = max(n - len(winners) - f - 2, 0)
            there &= there.cumsum(dim=1) <= neighbours
            scores = (nearest * there).sum(dim=1).masked_fill_(~alive, torch.inf)
            tied = (scores == scores.min()).nonzero().flatten()
            winner = int(tied[crowd[tied].argmin()])
            winners.append(winner)
            alive[winner] = False
        return torch.tensor(winners)

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        f = max(self.f - lost, 0)
        chosen = self.select(rows.values, f)
        out = torch.empty(rows.d, dtype=rows.values.dtype, device=rows.values.device)
        for where, columns in sorted_columns(rows.values, chosen.sort().values):
            out[where] = nearest_middle_mean(columns, len(chosen) - 2 * f)
        late = torch.full((rows.n,), float(len(chosen)), dtype=torch.float64)
        late[chosen] = torch.arange(len(chosen), dtype=torch.float64)
        return Verdict(out, kept=mask(rows.n, chosen), touched=rows.d if f else 0, suspicion=late)
