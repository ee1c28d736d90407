"""Client-side cross-validation: the other clients vote on every row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from jaxtyping import Bool
from torch import Tensor

from privfl.aggregators.base import (
    Memoryless,
    combine,
    majority,
)
from privfl.aggregators.verdict import Verdict
from privfl.core import (
    ConfigError,
    Context,
    Needs,
    Oracle,
    Rows,
    require,
)

CrossVotes: TypeAlias = Callable[[Rows, Context], Bool[Tensor, "n n"]]
"""[i, j]: whether the client of row i accepts the update of row j on its own data."""


@dataclass(frozen=True, slots=True)
class CrossValidation(Memoryless):
    """Client-side cross-validation (Zhao et al. 2020): a row counts by the share of the other
    clients that accept it on their data.

    A client's vote on its own update is ignored; rows under ``threshold`` are dropped; where none
    is left the model stays. Tolerates f < n/2 evaluators that lie. Row weights are not used. No
    sensitivity is proved: the votes leave without noise.

    >>> context = Context(None, torch.zeros(1), torch.Generator())
    >>> votes = lambda rows, context: torch.tensor(
    ...     [[True, True, False], [True, True, False], [False, False, True]]
    ... )
    >>> CrossValidation(votes).step(Rows.of([[1.0], [3.0], [99.0]]), None, context)[0]
    tensor([2.])
    """

    accuses: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    symmetries: ClassVar[str] = "PTSR"
    needs_ids: ClassVar[bool] = True
    needs: ClassVar[Needs] = {"votes": Oracle.VOTES}

    votes: CrossVotes
    threshold: float = 0.5

    def __post_init__(self) -> None:
        require.within(0, 1, threshold=self.threshold)

    def max_byzantine(self, n: int) -> int:
        """Fewer than half."""
        return majority(n)

    def _decide(
        self, rows: Rows, lost: int, state: None, context: Context
    ) -> tuple[Verdict[Tensor], None]:
        n = rows.n
        votes = self.votes(rows, context).cpu()
        if votes.shape != (n, n):
            raise ConfigError(
                f"CrossValidation: votes must return an {n} x {n} matrix, and returned shape"
                f" {tuple(votes.shape)}."
            )
        others = votes.to(torch.float64).fill_diagonal_(0)
        share = others.sum(dim=0) / max(n - 1, 1) if n > 1 else torch.ones(1, dtype=torch.float64)
        kept = (share >= self.threshold) & (share > 0)
        weights = share * kept
        out = (
            combine(rows.values, weights / weights.sum())
            if bool(kept.any())
            else torch.zeros_like(rows.values[0])
        )
        return Verdict(out, kept=kept, suspicion=1 - share, scores={"accepted": share}), None
