"""The cosine filter: rows that point where a reference points."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from torch import Tensor

from privfl.aggregators.angles import cosines_to
from privfl.aggregators.base import InHull, combine
from privfl.aggregators.clipping import shortening
from privfl.aggregators.cut import CutInHull
from privfl.aggregators.median import Median
from privfl.aggregators.verdict import Verdict
from privfl.core import Context, Examples, Moves, Neighbours, Rows, Vector, require
from privfl.core.geometry import squared_norms

Reference: TypeAlias = Callable[[Rows, Context], Vector]
"""The direction [d] that rows are compared with: an update trained on clean data, the last
aggregate, a median.
"""


def median_of_rows(rows: Rows, context: Context) -> Vector:
    """The coordinate-wise median of this round's rows."""
    return Median()(rows)


@dataclass(frozen=True, slots=True)
class CosineFilter(CutInHull):
    """Average the rows whose cosine with a reference direction is over ``threshold``; no paper is
    canonical for it.

    The reference is a callable of the rows and the context (for the last aggregate, keep it
    outside; the default is the rows' own coordinate-wise median, which tolerates f < n/2). Zero
    rows have cosine 0. Where no row passes, the model stays. A cosine is blind to length, so rows
    are cut to ``bound`` before they are averaged: to the median norm of all rows where it is None,
    as in FLAME and SignGuard, so that the result is no longer than some honest row while honest
    rows are a majority; inf cuts nothing, and then one far row that points the right way takes the
    result along without limit. In a channel that runs this rule, lengths are the channel's own
    matter. Row weights are not used.

    >>> import torch
    >>> context = Context(None, torch.zeros(2), torch.Generator())
    >>> CosineFilter().step(Rows.of([[1.0, 0.0], [99.0, 0.0], [-1.0, 0.0]]), None, context)[0]
    tensor([1., 0.])
    """

    accuses: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {"": {}, "uncut": {"bound": math.inf}}
    symmetries: ClassVar[str] = "PS"

    threshold: float = 0.0
    reference: Reference = median_of_rows
    bound: float | None = None

    def __post_init__(self) -> None:
        require.within(-1, 1, threshold=self.threshold)
        self.require_bound()

    def sensitivity(self, moves: Moves, neighbours: Neighbours) -> float:
        """As any rule in the hull with the default reference; a reference of the caller's own may
        remember rows, and nothing is proved.
        """
        if self.reference is not median_of_rows:
            return float("inf")
        return InHull.sensitivity(self, moves, neighbours)

    def _decide(
        self, rows: Rows, lost: int, state: None, context: Context
    ) -> tuple[Verdict[Tensor], None]:
        similar = cosines_to(rows.values, self.reference(rows, context))
        kept = similar > self.threshold
        norms = squared_norms(rows.values).sqrt().cpu()
        scale, _ = shortening(norms, self.bound)
        out = combine(rows.values, scale * kept / max(int(kept.sum()), 1))
        scores = {"cosine": similar, "norm": norms}
        return (
            Verdict(out, kept=kept, scale=scale, suspicion=1 - similar, scores=scores),
            None,
        )
