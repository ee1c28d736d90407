"""FAIR: rows weighed by reported learning quality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from jaxtyping import Float
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

LossReduction: TypeAlias = Callable[[Rows, Context], Float[Tensor, " n"]]
"""What each row's client says training lowered its loss by [n], before minus after. Self-reported:
nobody checks it.
"""


@dataclass(frozen=True, slots=True)
class FAIR(Memoryless):
    """FAIR (Deng et al. 2021): weigh rows by quality, their clients' reported loss reduction times
    their number of samples.

    Weight n_i q_i with q_i = loss before - loss after; rows with q_i <= ``threshold`` are dropped;
    where none is left the model stays. Row weights ARE used (n_i). The losses are self-reported, so
    a liar picks its own weight: this rewards quality among honest clients and stops careless ones,
    no Byzantine ones. No sensitivity is proved: the answers leave without noise.

    >>> context = Context(None, torch.zeros(1), torch.Generator())
    >>> FAIR(lambda rows, context: torch.tensor([1.0, 3.0, -1.0])).step(
    ...     Rows.of([[0.0], [4.0], [99.0]]), None, context
    ... )[0]
    tensor([3.])
    """

    accuses: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    symmetries: ClassVar[str] = "PTSR"
    needs_ids: ClassVar[bool] = True
    needs: ClassVar[Needs] = {"losses": Oracle.LOSSES}

    losses: LossReduction
    threshold: float = 0.0

    def __post_init__(self) -> None:
        require.at_least(0, threshold=self.threshold)

    @property
    def breaks(self) -> str:
        """Liars report any quality, and weigh what they like."""
        return "clients report their quality themselves"

    def max_byzantine(self, n: int) -> int:
        """Fewer than half broken rows; no lying ones."""
        return majority(n)

    def _decide(
        self, rows: Rows, lost: int, state: None, context: Context
    ) -> tuple[Verdict[Tensor], None]:
        quality = self.losses(rows, context).to(torch.float64).cpu()
        if quality.shape != (rows.n,):
            raise ConfigError(
                f"FAIR: losses must return {rows.n} numbers, one a row, and returned shape"
                f" {tuple(quality.shape)}."
            )
        kept = torch.isfinite(quality) & (quality > self.threshold)
        share = torch.where(kept, quality * rows.weights.to(quality), torch.zeros(()).to(quality))
        out = (
            combine(rows.values, share / share.sum())
            if bool(kept.any())
            else torch.zeros_like(rows.values[0])
        )
        suspicion = (-quality).nan_to_num(nan=torch.inf)
        return Verdict(out, kept=kept, suspicion=suspicion, scores={"quality": quality}), None
