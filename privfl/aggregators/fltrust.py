"""FLTrust: trust bootstrapped from a small clean data set of the server."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from privfl.aggregators.angles import cosines_to
from privfl.aggregators.base import Memoryless, combine
from privfl.aggregators.verdict import Verdict
from privfl.core import (
    BadUpdate,
    Context,
    Examples,
    Moves,
    Needs,
    Neighbours,
    Oracle,
    Rows,
    Vector,
    norm,
    require,
)
from privfl.core.geometry import squared_norms

RootUpdate: TypeAlias = Callable[[Context], Vector]
"""The update [d] that the server trains itself on a small clean data set, from the context's
parameters.
"""


@dataclass(frozen=True, slots=True)
class FLTrust(Memoryless):
    """FLTrust (Cao, Fang, Liu, Gong 2021, Algorithm 2): rows count as far as they point where the
    server's own clean update g0 points.

    Trust score TS_i = max(0, cos(x_i, g0)); the result is sum TS_i (||g0|| / ||x_i||) x_i / sum
    TS_i. Where nobody is trusted the model stays. ``fixed=True`` divides by n instead of by the sum
    of scores, and ``root_l2`` clips g0: both are public, so that form has a sensitivity. Tolerates
    any number of Byzantine clients (Theorem 1, if g0 is clean). A row's length has no effect. Row
    weights are not used.

    >>> context = Context(None, torch.zeros(2), torch.Generator())
    >>> FLTrust(lambda context: torch.tensor([1.0, 0.0])).step(
    ...     Rows.of([[9.0, 0.0], [-5.0, 0.0]]), None, context
    ... )[0]
    tensor([1., 0.])
    """

    accuses: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {
        "": {},
        "fixed": {"fixed": True, "root_l2": 1.0},
        "clipped": {"root_l2": 1.0},
    }
    symmetries: ClassVar[str] = "P"
    needs: ClassVar[Needs] = {"root": Oracle.ROOT}

    root: RootUpdate
    fixed: bool = False
    root_l2: float = math.inf

    def __post_init__(self) -> None:
        require.positive(root_l2=self.root_l2)

    def max_byzantine(self, n: int) -> int:
        """All but one."""
        return n - 1

    def _decide(
        self, rows: Rows, lost: int, state: None, context: Context
    ) -> tuple[Verdict[Tensor], None]:
        root = self.root(context)
        length = norm(root)
        if not length < math.inf:
            raise BadUpdate("FLTrust: the root update holds NaN or infinite values.")
        cosines = cosines_to(rows.values, root)
        trusted = cosines.clamp(min=0)
        lengths = squared_norms(rows.values).sqrt().cpu()
        stretch = torch.where(
            lengths > 0,
            min(length, self.root_l2) / lengths.clamp(min=1e-300),
            torch.zeros(()).to(lengths),
        )
        total = float(rows.n + lost) if self.fixed else float(trusted.sum())
        out = (
            combine(rows.values, trusted * stretch / total)
            if total > 0
            else torch.zeros_like(rows.values[0])
        )
        return (
            Verdict(
                out,
                kept=trusted > 0,
                scale=stretch,
                suspicion=1 - cosines,
                scores={"trust": trusted},
            ),
            None,
        )

    def sensitivity(self, moves: Moves, neighbours: Neighbours) -> float:
        """With ``fixed`` root_l2 / n for each row that moves; else 2 root_l2. The root data are
        public.

        TS(x) (||g0|| / ||x||) x lies on the sphere whose diameter runs from 0 to g0 (at 0 where x
        is zero or points away), so a row's share moves by at most ||g0|| / n, however far the row
        does. Divided by the sum of scores it is a mean of vectors of length ||g0||: as any rule in
        the hull.
        """
        if not self.fixed:
            return 2 * self.root_l2
        if moves.rows is None or neighbours.relation == "add_remove":
            return math.inf
        return self.root_l2 * moves.changed / moves.rows
