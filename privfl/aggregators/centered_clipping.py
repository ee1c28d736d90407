"""Centred clipping (Karimireddy, He, Jaggi 2021) and the client momentum that it is meant for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from privfl.aggregators.base import MemoryRule, combine, majority
from privfl.aggregators.clipping import shortening
from privfl.aggregators.verdict import Verdict
from privfl.core import (
    Context,
    DefenceSeat,
    Needs,
    NeighbourRelation,
    RowBound,
    Rows,
    Update,
    Vector,
    require,
)
from privfl.core.geometry import squared_norms


@dataclass(frozen=True, slots=True)
class Centre:
    """The last aggregate [d], around which the next one is clipped; None is zero."""

    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class CenteredClipping(MemoryRule[Centre]):
    """Start at the last aggregate v and move it, ``iterations`` times, by the mean of (x_i - v)
    min(1, tau / ||x_i - v||).

    One liar moves the result by at most 2 tau / n a step wherever it stands, so any minority does
    bounded harm; the theorem is for small fractions, about a tenth, and for clients that send
    momenta (`ClientMomentum`). Its tau is a few times the honest rows' usual distance from v, which
    nobody knows; in the authors' experiments tau is set by hand, and one over all distances makes
    this the mean. ``tau=None`` takes the median distance of the rows from v, anew in every step: it
    lies among the honest distances while honest rows are a majority, and moves along with a scale,
    so that the rule protects whatever the updates' unit; but then no sensitivity is proved, for one
    client moves tau. Before the first round v is zero. Translating rows and v together translates
    the result. Row weights are not used.

    >>> context = Context(None, torch.zeros(1), torch.Generator())
    >>> rows = Rows.of([[0.5], [0.5], [0.5], [-99.0]])
    >>> CenteredClipping(tau=1.0).step(rows, Centre(), context)[0]
    tensor([0.1250])
    >>> CenteredClipping().step(rows, Centre(), context)[0]
    tensor([0.2500])
    """

    symmetries: ClassVar[str] = "PR"

    tau: float | None = None
    iterations: int = 1

    def __post_init__(self) -> None:
        if self.tau is not None:
            require.positive(tau=self.tau)
        require.at_least(1, iterations=self.iterations)

    def init(self) -> Centre:
        """Zero."""
        return Centre()

    def max_byzantine(self, n: int) -> int:
        """Fewer than half: each does bounded harm."""
        return majority(n)

    def _decide(
        self, rows: Rows, lost: int, state: Centre, context: Context
    ) -> tuple[Verdict[Tensor], Centre]:
        centre = state.vector
        scale = torch.ones(rows.n, dtype=torch.float64)
        for _ in range(self.iterations):
            away = squared_norms(rows.values, centre).sqrt().cpu()
            scale, _ = shortening(away, self.tau)
            moved = combine(rows.values, scale / rows.n)
            centre = (
                moved if centre is None else moved + centre.to(moved) * (1 - float(scale.mean()))
            )
        out = centre if centre is not None else torch.zeros_like(rows.values[0])
        return Verdict(out, scale=scale), Centre(out)

    def sensitivity(self, bound: RowBound, n: int, relation: NeighbourRelation) -> float:
        """At most iterations * min(2 tau, how far the row moves) / n, given the centre, which
        earlier releases made public.

        A clipped difference is a projection on a ball, which moves no farther than the row; a step
        is non-expansive in v. Infinite where tau is None, and under add_remove.
        """
        if self.tau is None or relation == "add_remove":
            return float("inf")
        step = bound.step if relation == "replace_one" else bound.l2
        return self.iterations * min(2 * self.tau, step) / n


@dataclass(frozen=True, slots=True)
class Momentum:
    """A client's momentum [d], None before its first round."""

    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class ClientMomentum:
    """At the client: send the momentum m = (1 - beta) x + beta m instead of the update x
    (Karimireddy et al. 2021, Section 5).

    >>> update = Update(0, torch.ones(1))
    >>> context = Context(None, torch.zeros(1), torch.Generator())
    >>> ClientMomentum(beta=0.9).at_client(update, Momentum(), context)[0].delta
    tensor([0.1000])
    """

    seats: ClassVar[frozenset[DefenceSeat]] = frozenset({"client"})
    needs: ClassVar[Needs] = {}
    judges: ClassVar[bool] = False

    beta: float = 0.9

    def __post_init__(self) -> None:
        require.within(0, 1, beta=self.beta)

    def init_client(self) -> Momentum:
        """None."""
        return Momentum()

    def at_client(
        self, update: Update, state: Momentum, context: Context
    ) -> tuple[Update, Momentum]:
        """The momentum in the update's place."""
        delta = update.delta * (1 - self.beta)
        if state.vector is not None:
            delta = delta + self.beta * state.vector
        return replace(update, delta=delta), Momentum(delta)
