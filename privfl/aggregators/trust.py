"""Rules with a source of trust beside the rows: a clean gradient (FLTrust, Cao-Lai), a validation loss (Zeno), reported losses (FAIR)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.cosine import cosines_to
from privfl.aggregators.seats import InHull, MemoryRule, combine, majority, mask, mean_of
from privfl.aggregators.verdict import Verdict
from privfl.core import BadUpdate, ConfigError, Context, NeighbourRelation, RowBound, Rows, Vector, norm, require
from privfl.core.geometry import squared_norms

RootUpdate: TypeAlias = Callable[[Context], Vector]
"""The update [d] that the server trains itself on a small clean data set, from the context's parameters."""
ValidationLoss: TypeAlias = Callable[[Vector, Context], float]
"""The loss on the server's own samples of the model with these parameters [d]."""
LossReduction: TypeAlias = Callable[[Rows, Context], Float[Tensor, " n"]]
"""What each row's client says training lowered its loss by [n], before minus after. Self-reported: nobody checks it."""


@dataclass(frozen=True, slots=True)
class FLTrust(MemoryRule[None]):
    """FLTrust (Cao, Fang, Liu, Gong 2021, Algorithm 2): rows count as far as they point where the server's own clean update g0 points.

    Trust score TS_i = max(0, cos(x_i, g0)); the result is sum TS_i (||g0|| / ||x_i||) x_i / sum TS_i. Where nobody is trusted the model
    stays. ``fixed=True`` divides by n instead of by the sum of scores, and ``root_l2`` clips g0: both are public, so that form has
    a sensitivity. Stands any number of liars (Theorem 1, if g0 is clean). A row's length has no effect. Row weights are not used.

    >>> context = Context(None, torch.zeros(2), torch.Generator())
    >>> FLTrust(lambda context: torch.tensor([1.0, 0.0])).step(Rows.of([[9.0, 0.0], [-5.0, 0.0]]), None, context)[0]
    tensor([1., 0.])
    """

    symmetries: ClassVar[str] = "P"

    root: RootUpdate
    fixed: bool = False
    root_l2: float = math.inf

    def __post_init__(self) -> None:
        require.positive(root_l2=self.root_l2)

    def init(self) -> None:
        """Nothing is remembered."""
        return

    def stands(self, n: int) -> int:
        """All but one."""
        return n - 1

    def _decide(self, rows: Rows, lost: int, state: None, context: Context) -> tuple[Verdict[Tensor], None]:
        root = self.root(context)
        length = norm(root)
        if not length < math.inf:
            raise BadUpdate("FLTrust: the root update holds NaN or infinite values.")
        trusted = cosines_to(rows.values, root).clamp(min=0)
        lengths = squared_norms(rows.values).sqrt().cpu()
        stretch = torch.where(lengths > 0, min(length, self.root_l2) / lengths.clamp(min=1e-300), torch.zeros(()).to(lengths))
        total = float(rows.n + lost) if self.fixed else float(trusted.sum())
        out = combine(rows.values, trusted * stretch / total) if total > 0 else torch.zeros_like(rows.values[0])
        return Verdict(out, kept=trusted > 0, scale=stretch, scores={"trust": trusted}), None

    def sensitivity(self, bound: RowBound, n: int, relation: NeighbourRelation) -> float:
        """At most root_l2 / n with ``fixed``: cos(x, g0) g0-long x lies on the sphere whose diameter runs from 0 to g0. Else 2 root_l2."""
        if self.fixed:
            return self.root_l2 / n if relation != "add_remove" else math.inf
        return 2 * self.root_l2


@dataclass(frozen=True, slots=True)
class CleanGradientFilter(MemoryRule[None]):
    """Cao and Lai (2019): keep rows within xi ||g0|| of the server's clean update g0, and average them together with it.

    Stands any number of liars: with none accepted the result is g0 itself. Rows, and g0, weigh 1 each.

    >>> context = Context(None, torch.zeros(1), torch.Generator())
    >>> CleanGradientFilter(lambda context: torch.ones(1), xi=0.5).step(Rows.of([[1.5], [9.0]]), None, context)[0]
    tensor([1.2500])
    """

    symmetries: ClassVar[str] = "P"

    root: RootUpdate
    xi: float = 1.0

    def __post_init__(self) -> None:
        require.positive(xi=self.xi)

    def init(self) -> None:
        """Nothing is remembered."""
        return

    def stands(self, n: int) -> int:
        """All but one."""
        return n - 1

    def _decide(self, rows: Rows, lost: int, state: None, context: Context) -> tuple[Verdict[Tensor], None]:
        root = self.root(context)
        length = norm(root)
        if not length < math.inf:
            raise BadUpdate("CleanGradientFilter: the root update holds NaN or infinite values.")
        away = squared_norms(rows.values, root).sqrt().cpu()
        kept = away <= self.xi * length
        count = int(kept.sum())
        out = combine(rows.values, kept / (count + 1)) + root.to(rows.values) / (count + 1)
        return Verdict(out, kept=kept, scores={"distance": away}), None


@dataclass(frozen=True, slots=True)
class Zeno(InHull, MemoryRule[None]):
    """Zeno (Xie, Koyejo, Gupta 2019): average the n - f rows that lower a validation loss most, less a charge for length.

    Score of row x at parameters w: loss(w) - loss(w + gamma x) - rho ||x||^2 (the whole squared norm, not its mean over coordinates).
    Rows are changes, so w + x is what the paper calls w - gamma u. Stands any f < n (Theorem 1), as far as the validation
    samples are clean. Row weights are not used.

    >>> context = Context(None, torch.zeros(1), torch.Generator())
    >>> loss = lambda w, context: float((w - 1).square().sum())
    >>> Zeno(loss, f=1).step(Rows.of([[1.0], [0.5], [-9.0]]), None, context)[0]
    tensor([0.7500])
    """

    symmetries: ClassVar[str] = "P"

    loss: ValidationLoss
    f: int = 1
    rho: float = 1e-3
    gamma: float = 1.0

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f, rho=self.rho)
        require.positive(gamma=self.gamma)

    def init(self) -> None:
        """Nothing is remembered."""
        return

    def stands(self, n: int) -> int:
        """f, where n > f."""
        require.honest_majority(rule="Zeno", n=n, f=self.f, at_least=self.f + 1)
        return self.f

    def _decide(self, rows: Rows, lost: int, state: None, context: Context) -> tuple[Verdict[Tensor], None]:
        now = self.loss(context.parameters, context)
        then = [self.loss(context.parameters + self.gamma * row, context) for row in rows.values]
        lowered = now - torch.tensor(then, dtype=torch.float64)
        scores = (lowered - self.rho * squared_norms(rows.values).cpu()).nan_to_num(nan=-math.inf)
        chosen = scores.argsort(descending=True, stable=True)[: rows.n - max(self.f - lost, 0)]
        return Verdict(mean_of(rows.values, chosen), kept=mask(rows.n, chosen), scores={"score": scores}), None


@dataclass(frozen=True, slots=True)
class FAIR(InHull, MemoryRule[None]):
    """FAIR (Deng et al. 2021): weigh rows by quality, their clients' reported loss reduction times their number of samples.

    Weight n_i q_i with q_i = loss before - loss after; rows with q_i <= ``threshold`` are dropped; where none is left the model stays. Row
    weights ARE used (n_i). The losses are self-reported, so a liar picks its own weight: this rewards quality among honest
    clients and stops careless ones, no Byzantine ones.

    >>> context = Context(None, torch.zeros(1), torch.Generator())
    >>> FAIR(lambda rows, context: torch.tensor([1.0, 3.0, -1.0])).step(Rows.of([[0.0], [4.0], [99.0]]), None, context)[0]
    tensor([3.])
    """

    symmetries: ClassVar[str] = "PTSR"

    losses: LossReduction
    threshold: float = 0.0

    def __post_init__(self) -> None:
        require.at_least(0, threshold=self.threshold)

    def init(self) -> None:
        """Nothing is remembered."""
        return

    def stands(self, n: int) -> int:
        """Fewer than half broken rows; no lying ones."""
        return majority(n)

    def _decide(self, rows: Rows, lost: int, state: None, context: Context) -> tuple[Verdict[Tensor], None]:
        quality = self.losses(rows, context).to(torch.float64).cpu()
        if quality.shape != (rows.n,):
            raise ConfigError(f"FAIR: losses must return {rows.n} numbers, one a row, and returned shape {tuple(quality.shape)}.")
        kept = torch.isfinite(quality) & (quality > self.threshold)
        share = torch.where(kept, quality * rows.weights.to(quality), torch.zeros(()).to(quality))
        out = combine(rows.values, share / share.sum()) if bool(kept.any()) else torch.zeros_like(rows.values[0])
        return Verdict(out, kept=kept, scores={"quality": quality}), None
