"""Zeno++: updates that come one by one, held against a clean update that the server keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from privfl.aggregators.angles import cosines_to
from privfl.aggregators.base import MemoryRule, combine
from privfl.aggregators.fltrust import RootUpdate
from privfl.aggregators.verdict import Verdict
from privfl.core import BadUpdate, Context, Examples, Needs, Oracle, Rows, Vector, norm, require
from privfl.core.geometry import squared_norms


@dataclass(frozen=True, slots=True)
class ValidationUpdate:
    """The server's own clean update [d], and for how many rounds it has served."""

    update: Vector | None = None
    served: int = 0


@dataclass(frozen=True, slots=True)
class ZenoPlusPlus(MemoryRule[ValidationUpdate]):
    """Zeno++ (Xie, Koyejo, Gupta 2020, algorithm 1): a row is cut or stretched to the length of the
    server's own clean update r, and accepted where that promises to lower the loss.

    A row is accepted where <r, x> - rho ||x||^2 >= -epsilon, with x = row ||r|| / ||row||. The
    result is the mean of what is accepted; where nothing is, the model stays. r is trained anew
    every ``every`` rounds, at the model of then (the paper's lazy update; it is stable while the
    model moves little between). Rows are changes: with the paper's gradients v and g and rate
    gamma, r = -gamma v and x = -gamma g, so rho here is the paper's over gamma, and epsilon the
    paper's times gamma squared.

    Tolerates any number of Byzantine clients as long as r is clean, and takes no majority for
    right, so it is for buffers of one too. A row's length has no effect, its staleness scale
    included. Row weights are not used. An attacker that knows r and stays within the angle that rho
    leaves is accepted.

    >>> context = Context(None, torch.zeros(2), torch.Generator())
    >>> ZenoPlusPlus(lambda context: torch.tensor([1.0, 0.0])).step(
    ...     Rows.of([[9.0, 0.0], [-5.0, 0.0]]), ValidationUpdate(), context
    ... )[0]
    tensor([1., 0.])
    """

    accuses: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {"": {}}
    symmetries: ClassVar[str] = "P"
    needs: ClassVar[Needs] = {"root": Oracle.ROOT}

    root: RootUpdate
    rho: float = 0.02
    epsilon: float = 0.0
    every: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, rho=self.rho, epsilon=self.epsilon)
        require.at_least(1, every=self.every)

    def init(self) -> ValidationUpdate:
        """Nothing was trained yet."""
        return ValidationUpdate()

    def max_byzantine(self, n: int) -> int:
        """All but one."""
        return n - 1

    def _decide(
        self, rows: Rows, lost: int, state: ValidationUpdate, context: Context
    ) -> tuple[Verdict[Tensor], ValidationUpdate]:
        root, served = state.update, state.served
        if root is None or served >= self.every:
            root, served = self.root(context), 0
        length = norm(root)
        if not length < math.inf:
            raise BadUpdate("ZenoPlusPlus: the root update holds NaN or infinite values.")
        cosines = cosines_to(rows.values, root)
        lengths = squared_norms(rows.values).sqrt().cpu()
        scores = length * length * (cosines - self.rho)
        accepted = (scores >= -self.epsilon) & (lengths > 0)
        stretch = torch.where(accepted, length / lengths.clamp(min=1e-300), 0.0)
        count = int(accepted.sum())
        verdict = Verdict(
            combine(rows.values, stretch / max(count, 1)),
            kept=accepted,
            scale=stretch,
            suspicion=-scores,
            scores={"descent": scores},
        )
        return verdict, ValidationUpdate(root, served + 1)
