"""Auror: clients that fall in the minority cluster of most coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.base import InHull, RowRule, majority, mean_of
from privfl.aggregators.clipping import clipped, shortening
from privfl.aggregators.columns import sorted_columns
from privfl.aggregators.verdict import Verdict
from privfl.core import Examples, Rows, require
from privfl.core.geometry import squared_norms


@dataclass(frozen=True, slots=True)
class Auror(InHull, RowRule):
    """Auror (Shen, Tople, Saxena 2016): drop the clients that fall in the minority cluster of most
    indicative coordinates.

    Every coordinate is split in two by exact 1-D 2-means; it is indicative where the centres are at
    least ``alpha`` apart (alpha has the rows' unit: scale it with them). A client in the smaller
    cluster of more than ``share`` of the indicative coordinates is dropped; the mean of the others.
    Equal halves have no minority. Row weights are not used. Meant for f < n/2 clients that are odd
    in most coordinates, as flipped labels make them; one that is odd in a few is kept.

    So that it can do no more harm there than an honest client, all this is done on rows cut to
    ``bound``, to the median norm of all rows where it is None. inf is the paper's algorithm.

    >>> Auror(alpha=1.0)(Rows.of([[0.0, 0.0], [0.1, 0.1], [0.2, 0.2], [9.0, 9.0]]))
    tensor([0.1000, 0.1000])
    """

    accuses: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {"": {"alpha": 0.5}}
    symmetries: ClassVar[str] = "P"

    alpha: float = 0.1
    share: float = 0.5
    bound: float | None = None

    def __post_init__(self) -> None:
        require.positive(alpha=self.alpha)
        require.within(0, 1, share=self.share)
        if self.bound is not None:
            require.positive(bound=self.bound)

    def max_byzantine(self, n: int) -> int:
        """Fewer than half."""
        return majority(n)

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        n = rows.n
        norms = squared_norms(rows.values).sqrt().cpu()
        cut = clipped(rows, shortening(norms, self.bound)[1])
        rows = cut.out
        indicative, minor = 0, torch.zeros(n, dtype=torch.int64)
        for where, columns in sorted_columns(rows.values):
            if n < 3:
                break
            low, gap, below = split_in_two(columns)
            told = gap >= self.alpha
            indicative += int(told.sum())
            values = rows.values[:, where]
            high_side = values > low
            minor += (
                ((high_side & (below * 2 > n)) | (~high_side & (below * 2 < n)))[:, told]
                .sum(dim=1)
                .cpu()
            )
        kept = minor <= self.share * indicative
        return Verdict(
            mean_of(rows.values, kept),
            kept=kept,
            scale=cut.scale,
            suspicion=minor / max(indicative, 1),
            scores={"minority": minor, "indicative": torch.tensor(indicative), "norm": norms},
        )


def split_in_two(columns: Float[Tensor, "b n"]) -> tuple[Tensor, Tensor, Tensor]:
    """The 2-means split of each sorted column: the largest value of the lower cluster, the gap
    between centres, the lower one's size.
    """
    n = columns.shape[1]
    centred = columns.to(torch.float64)
    centred = centred - centred.mean(dim=1, keepdim=True)
    sizes = torch.arange(1, n, dtype=torch.float64, device=columns.device)
    lower = centred.cumsum(dim=1)[:, :-1]
    between = lower**2 * (
        1 / sizes + 1 / (n - sizes)
    )  # centred columns: the upper sum is minus the lower one
    cut = between.argmax(dim=1, keepdim=True)
    k = cut + 1
    total = lower.gather(1, cut)
    gap = -total / (n - k) - total / k
    return columns.gather(1, cut)[:, 0], gap[:, 0], k[:, 0]
