"""Centred clipping (Karimireddy, He, Jaggi 2021) and the client momentum that it is meant for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from privfl.aggregators.base import MemoryRule, combine, majority
from privfl.aggregators.clipping import shortening
from privfl.aggregators.columns import midpoint
from privfl.aggregators.verdict import Verdict
from privfl.core import (
    Context,
    DefenceSeat,
    Examples,
    Memory,
    Moves,
    Needs,
    Neighbours,
    Rows,
    Update,
    Vector,
    require,
)
from privfl.core.geometry import squared_norms

_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class CenteredClipping(MemoryRule[None]):
    """Start at the last aggregate v and move it, ``iterations`` times, by the mean of (x_i - v)
    min(1, tau / ||x_i - v||).

    v is what was released last (`Context.last`), noise included where there is some: an aggregate
    kept from before its noise would leave without any in the next round.

    One liar moves the result by at most 2 tau / n a step wherever it stands, so any minority does
    bounded harm; the theorem is for small fractions, about a tenth, and for clients that send
    momenta (`ClientMomentum`). Its tau is a few times the honest rows' usual distance from v, which
    nobody knows; in the authors' experiments tau is set by hand, and one over all distances makes
    this the mean. ``tau=None`` takes half the median distance of the rows from v, anew in every
    step: the median lies among the honest distances while honest rows are a majority, and moves
    along with a scale, so that the rule protects whatever the updates' unit; the half, which no
    paper has, lets a liar pull no harder than an honest row of usual distance where many lie and
    honest rows are unlike. But then no sensitivity is proved, for one client moves tau. Before the
    first round v is zero. Translating rows and v together translates the result. Row weights are
    not used.

    >>> from privfl.core import RoundPlan
    >>> context = Context(RoundPlan(0, (1, 2, 3, 4), 1, 1.0), torch.zeros(1), torch.Generator())
    >>> rows = Rows.of([[0.5], [0.5], [0.5], [-99.0]])
    >>> CenteredClipping(tau=1.0).step(rows, None, context)[0]
    tensor([0.1250])
    >>> CenteredClipping(iterations=5).step(rows, None, context)[0] > 0.25
    tensor([True])
    """

    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {
        "": {"tau": 3.0},
        "adaptive": {},
        "short": {"tau": 0.4, "iterations": 2},
    }
    symmetries: ClassVar[str] = "PR"
    memory: ClassVar[Memory] = "none"

    tau: float | None = None
    iterations: int = 1

    def __post_init__(self) -> None:
        if self.tau is not None:
            require.positive(tau=self.tau)
        require.at_least(1, iterations=self.iterations)

    def init(self) -> None:
        """Nothing beside what was released."""
        return

    def max_byzantine(self, n: int) -> int:
        """Fewer than half: each does bounded harm."""
        return majority(n)

    def _decide(
        self, rows: Rows, lost: int, state: None, context: Context
    ) -> tuple[Verdict[Tensor], None]:
        centre = context.last
        scale, away = torch.ones(rows.n, dtype=torch.float64), torch.zeros(rows.n).double()
        for _ in range(self.iterations):
            away = squared_norms(rows.values, centre).sqrt().cpu()
            tau = _SHARE * midpoint(away) if self.tau is None else self.tau
            scale, _ = shortening(away, tau)
            moved = combine(rows.values, scale / rows.n)
            centre = (
                moved if centre is None else moved + centre.to(moved) * (1 - float(scale.mean()))
            )
        out = centre if centre is not None else torch.zeros_like(rows.values[0])
        return Verdict(out, scale=scale, suspicion=away), None

    def sensitivity(self, moves: Moves, neighbours: Neighbours) -> float:
        """At most iterations * min(total, 2 tau for each row that moves) / n, around the centre
        that earlier releases made public.

        With P the projection on the ball of radius tau, a step is v + mean P(x_i - v). P is
        1-Lipschitz in x_i and its values lie within 2 tau: the rows' part of the step moves so far
        at most. For fixed rows the step is the mean of x_i - (I - P)(x_i - v), and I - P is
        non-expansive: what v moved in earlier steps does not grow. The steps add up. Where tau is
        None, and under add_remove, nothing is proved.
        """
        if self.tau is None or moves.rows is None or neighbours.relation == "add_remove":
            return float("inf")
        far = min(moves.total, 2 * self.tau * moves.changed)
        return self.iterations * far / moves.rows


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
