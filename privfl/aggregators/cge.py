"""Comparative gradient elimination: the rows of least norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from privfl.aggregators.base import InHull, RowRule, mask, mean_of
from privfl.aggregators.verdict import Verdict
from privfl.core import Examples, Rows, require
from privfl.core.geometry import squared_norms


@dataclass(frozen=True, slots=True)
class CGE(InHull, RowRule):
    """Comparative gradient elimination (Gupta, Liu, Vaidya 2021): average the n - f rows of least
    norm.

    Tolerates f < n/2. Depends on where zero is, so it does not move along with a translation. Row
    weights are not used. The paper sums the kept rows; the average differs by the constant n - f,
    which belongs to the step size.

    >>> CGE(f=1)(Rows.of([[1.0, 0.0], [0.0, 1.0], [50.0, 0.0]]))
    tensor([0.5000, 0.5000])
    """

    told_f: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {"": {"f": 3}}
    symmetries: ClassVar[str] = "PSR"

    f: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def max_byzantine(self, n: int) -> int:
        """f, where n > 2f."""
        require.honest_majority(rule="CGE", n=n, f=self.f, at_least=2 * self.f + 1)
        return self.f

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        norms = squared_norms(rows.values).sqrt()
        chosen = norms.argsort(stable=True)[: rows.n - max(self.f - lost, 0)].cpu()
        return Verdict(
            mean_of(rows.values, chosen),
            kept=mask(rows.n, chosen),
            suspicion=norms.cpu(),
            scores={"norm": norms},
        )
