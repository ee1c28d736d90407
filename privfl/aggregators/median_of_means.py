"""Median of means (Chen, Su, Xu 2017): the geometric median of the means of random groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from privfl.aggregators.base import InHull, Memoryless, majority, products
from privfl.aggregators.geometric_median import GeometricMedian
from privfl.aggregators.verdict import Verdict
from privfl.core import Context, Examples, Rows, TooManyByzantine, require


def random_groups(n: int, groups: int, rng: torch.Generator) -> list[Tensor]:
    """Positions 0 .. n - 1 in random groups whose sizes differ by at most 1."""
    return list(torch.randperm(n, generator=rng).tensor_split(groups))


def group_means(values: Tensor, groups: list[Tensor]) -> Tensor:
    """The mean of each group's rows [groups, d], of rows [n, d], in one product."""
    weights = torch.zeros(len(groups), len(values), dtype=torch.float64, device=values.device)
    for i, group in enumerate(groups):
        weights[i, group] = 1 / len(group)
    return products(weights, values)


@dataclass(frozen=True, slots=True)
class MedianOfMeans(InHull, Memoryless):
    """Split the rows into ``groups`` random groups, average each, take the means' geometric median
    (Chen et al. 2017, Algorithm 2).

    Tolerates f where groups > 2f: each liar spoils one group. One group is the mean, n groups the
    geometric median. Groups are drawn anew every round. Row weights are not used.

    >>> context = Context(None, torch.zeros(1), torch.Generator().manual_seed(0))
    >>> MedianOfMeans(groups=3).step(
    ...     Rows.of([[1.0], [1.0], [1.0], [1.0], [1.0], [99.0]]), None, context
    ... )[0]
    tensor([1.])
    """

    examples: ClassVar[Examples] = {"": {"groups": 7}}
    symmetries: ClassVar[str] = "TSR"

    groups: int = 3

    def __post_init__(self) -> None:
        require.at_least(1, groups=self.groups)

    def max_byzantine(self, n: int) -> int:
        """Fewer than half of the groups.

        Raises:
            TooManyByzantine: there are more groups than rows.
        """
        if n < self.groups:
            raise TooManyByzantine(
                f"MedianOfMeans splits into {self.groups} groups, and got {n} rows: lower groups or"
                " ask more clients."
            )
        return majority(self.groups)

    def _decide(
        self, rows: Rows, lost: int, state: None, context: Context
    ) -> tuple[Verdict[Tensor], None]:
        groups = random_groups(rows.n, min(self.groups, rows.n), context.rng)
        means = group_means(rows.values, groups)
        verdict = GeometricMedian(weighted=False).judge(Rows(means, torch.ones(len(groups))))
        trusted = torch.ones(rows.n, dtype=torch.float64)
        if verdict.scale is not None:
            for i, group in enumerate(groups):
                trusted[group] = verdict.scale[i]
        return Verdict(verdict.out, scale=trusted), None
