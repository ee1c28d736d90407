"""Cao and Lai's filter: rows near the server's own clean gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from privfl.aggregators.base import Memoryless, combine
from privfl.aggregators.fltrust import RootUpdate
from privfl.aggregators.verdict import Verdict
from privfl.core import (
    BadUpdate,
    Context,
    Needs,
    Oracle,
    Rows,
    norm,
    require,
)
from privfl.core.geometry import squared_norms


@dataclass(frozen=True, slots=True)
class CleanGradientFilter(Memoryless):
    """Cao and Lai (2019): keep rows within xi ||g0|| of the server's clean update g0, and average
    them together with it.

    Tolerates any number of Byzantine clients: with none accepted the result is g0 itself. Rows, and
    g0, weigh 1 each.

    >>> import torch
    >>> context = Context(None, torch.zeros(1), torch.Generator())
    >>> CleanGradientFilter(lambda context: torch.ones(1), xi=0.5).step(
    ...     Rows.of([[1.5], [9.0]]), None, context
    ... )[0]
    tensor([1.2500])
    """

    accuses: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    symmetries: ClassVar[str] = "P"
    needs: ClassVar[Needs] = {"root": Oracle.ROOT}

    root: RootUpdate
    xi: float = 1.0

    def __post_init__(self) -> None:
        require.positive(xi=self.xi)

    def max_byzantine(self, n: int) -> int:
        """All but one."""
        return n - 1

    def _decide(
        self, rows: Rows, lost: int, state: None, context: Context
    ) -> tuple[Verdict[Tensor], None]:
        root = self.root(context)
        length = norm(root)
        if not length < math.inf:
            raise BadUpdate("CleanGradientFilter: the root update holds NaN or infinite values.")
        away = squared_norms(rows.values, root).sqrt().cpu()
        kept = away <= self.xi * length
        count = int(kept.sum())
        out = combine(rows.values, kept / (count + 1)) + root.to(rows.values) / (count + 1)
        return Verdict(out, kept=kept, suspicion=away, scores={"distance": away}), None
