"""BASGD's buckets before a rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privfl.aggregators.base import Before, finite_rows
from privfl.aggregators.median_of_means import group_means
from privfl.aggregators.verdict import Verdict
from privfl.core import BadUpdate, Context, Memory, Rows, require


@dataclass(frozen=True, slots=True)
class FixedBuckets(Before[None]):
    """Means of fixed buckets in the rows' place (BASGD: Yang, Li 2021, algorithm 2): client s is in
    bucket s mod ``buckets`` in every round, so f bad clients spoil f buckets at most, and a client
    that delivers often fills no bucket but its own.

    The rule after it needs buckets > 2f and its f set for buckets. Buckets that nobody of the round
    is in leave no row. The rows that come out are anonymous and of weight 1. A row that is not
    finite spoils its bucket. Needs client ids. How far one client moves the means is not proved:
    how many buckets have somebody in them hangs on who came.

    >>> context = Context(None, torch.zeros(1), torch.Generator())
    >>> rows = Rows(torch.tensor([[1.0], [3.0], [5.0]]), torch.ones(3), (0, 2, 1))
    >>> FixedBuckets(buckets=2).before(rows, None, context)[0].values.tolist()
    [[2.0], [5.0]]
    """

    keeps_ids: ClassVar[bool] = False
    needs_ids: ClassVar[bool] = True
    memory: ClassVar[Memory] = "none"

    buckets: int = 5

    def __post_init__(self) -> None:
        require.at_least(1, buckets=self.buckets)

    def init(self) -> None:
        """Nothing is remembered."""
        return

    def passes(self, n: int) -> int:
        """As many as buckets, if so many come."""
        return min(n, self.buckets)

    def judge_before(self, rows: Rows, state: None, context: Context) -> tuple[Verdict[Rows], None]:
        """The buckets' means, in the order of their numbers.

        Raises:
            BadUpdate: the rows are anonymous.
        """
        if rows.ids is None:
            raise BadUpdate(
                "FixedBuckets needs to know whose row is whose, and these rows are anonymous: use a"
                " channel that names them."
            )
        home = torch.tensor([client % self.buckets for client in rows.ids])
        filled = [(home == bucket).nonzero().flatten() for bucket in range(self.buckets)]
        filled = [bucket for bucket in filled if len(bucket)]
        if bool(finite_rows(rows.values).all()):
            means = group_means(rows.values, filled)
        else:  # in a product, 0 times NaN would spoil every bucket
            means = torch.stack([rows.values[bucket].mean(dim=0) for bucket in filled])
        return (
            Verdict(
                Rows(means, torch.ones(len(filled))),
                touched=rows.d,
                members=tuple(tuple(bucket.tolist()) for bucket in filled),
            ),
            None,
        )
