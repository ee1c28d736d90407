"""Bucketing before a rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privfl.aggregators.base import Before, finite_rows
from privfl.aggregators.median_of_means import group_means
from privfl.aggregators.verdict import Verdict
from privfl.core import UNPROVED, Context, Memory, Moves, Neighbours, Rows, require


@dataclass(frozen=True, slots=True)
class Bucketing(Before[None]):
    """Means of ``size`` random rows in the rows' place (Karimireddy, He, Jaggi 2022, Algorithm 1).

    Lessens the variance that a rule sees by ``size`` and multiplies the share of bad rows by as
    much: the rule after it needs ceil(n / size) > 2f and its f set for buckets. Buckets are drawn
    anew every round; the last may be smaller. The rows that come out are anonymous and of weight 1,
    so rules with a memory per client refuse them. A row that is not finite spoils its bucket.

    >>> context = Context(None, torch.zeros(1), torch.Generator().manual_seed(0))
    >>> Bucketing(size=2).before(Rows.of([[1.0], [1.0], [1.0]]), None, context)[0].n
    2
    """

    keeps_ids: ClassVar[bool] = False
    memory: ClassVar[Memory] = "none"

    size: int = 2

    def __post_init__(self) -> None:
        require.at_least(1, size=self.size)

    def init(self) -> None:
        """Nothing is remembered."""
        return

    def passes(self, n: int) -> int:
        """As many as buckets."""
        return -(-n // self.size)

    def stability(self, moves: Moves, neighbours: Neighbours) -> Moves:
        """What entered, over the size of the smallest bucket; there are as many rows as buckets.
        Under add_remove nothing is proved: who comes or goes redraws every bucket.

        The buckets are drawn without looking at rows, and a bucket's mean moves by the sum of its
        rows' moves over its size.
        """
        n = moves.rows
        if n is None or neighbours.relation == "add_remove":
            return UNPROVED
        buckets = self.passes(n)
        least = n - self.size * (buckets - 1)
        return Moves(moves.total / least, moves.longest, min(moves.changed, buckets), buckets)

    def judge_before(self, rows: Rows, state: None, context: Context) -> tuple[Verdict[Rows], None]:
        """The buckets' means."""
        order = torch.randperm(rows.n, generator=context.rng)
        buckets = [order[start : start + self.size] for start in range(0, rows.n, self.size)]
        finite = finite_rows(rows.values)
        if bool(finite.all()):
            means = group_means(rows.values, buckets)
        else:  # in a product, 0 times NaN would spoil every bucket
            means = torch.stack([rows.values[bucket].mean(dim=0) for bucket in buckets])
        return (
            Verdict(
                Rows(means, torch.ones(len(buckets))),
                touched=rows.d if self.size > 1 else 0,
                members=tuple(tuple(bucket.tolist()) for bucket in buckets),
            ),
            None,
        )
