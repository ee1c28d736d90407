"""Zeno: rows that lower a validation loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from privfl.aggregators.base import InHull, Memoryless, mask, mean_of
from privfl.aggregators.verdict import Verdict
from privfl.core import (
    Context,
    Examples,
    Needs,
    Oracle,
    Rows,
    Vector,
    require,
)
from privfl.core.geometry import squared_norms

ValidationLoss: TypeAlias = Callable[[Vector, Context], float]
"""The loss on the server's own samples of the model with these parameters [d]."""


@dataclass(frozen=True, slots=True)
class Zeno(InHull, Memoryless):
    """Zeno (Xie, Koyejo, Gupta 2019): average the n - f rows that lower a validation loss most,
    less a charge for length.

    Score of row x at parameters w: loss(w) - loss(w + gamma x) - rho ||x||^2 (the whole squared
    norm, not its mean over coordinates). Rows are changes, so w + x is what the paper calls w -
    gamma u. Tolerates any f < n (Theorem 1), as far as the validation samples are clean. Row
    weights are not used.

    >>> context = Context(None, torch.zeros(1), torch.Generator())
    >>> loss = lambda w, context: float((w - 1).square().sum())
    >>> Zeno(loss, f=1).step(Rows.of([[1.0], [0.5], [-9.0]]), None, context)[0]
    tensor([0.7500])
    """

    told_f: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {"": {"f": 3, "rho": 0.01}}
    symmetries: ClassVar[str] = "P"
    needs: ClassVar[Needs] = {"loss": Oracle.LOSS}

    loss: ValidationLoss
    f: int = 1
    rho: float = 1e-3
    gamma: float = 1.0

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f, rho=self.rho)
        require.positive(gamma=self.gamma)

    def max_byzantine(self, n: int) -> int:
        """f, where n > f."""
        require.honest_majority(rule="Zeno", n=n, f=self.f, at_least=self.f + 1)
        return self.f

    def _decide(
        self, rows: Rows, lost: int, state: None, context: Context
    ) -> tuple[Verdict[Tensor], None]:
        now = self.loss(context.parameters, context)
        then = [self.loss(context.parameters + self.gamma * row, context) for row in rows.values]
        lowered = now - torch.tensor(then, dtype=torch.float64)
        scores = (lowered - self.rho * squared_norms(rows.values).cpu()).nan_to_num(nan=-math.inf)
        chosen = scores.argsort(descending=True, stable=True)[: rows.n - max(self.f - lost, 0)]
        return (
            Verdict(
                mean_of(rows.values, chosen),
                kept=mask(rows.n, chosen),
                suspicion=-scores,
                scores={"score": scores},
            ),
            None,
        )
