"""Lies about noise whose rounds hang together, each told by a copy of one part of an honest run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.dp_lies import SGD, Lie, run
from privfl import Federation
from privfl.core import ClientId, LocalPlan, Participation
from privfl.dp import Correlated, DPGradient
from privfl.dp.strategies import Banded, Bisr, NoiseStream, Strategy, StrategyMatrix, Tree
from privfl.engine import CyclicPoisson


@dataclass(frozen=True, slots=True)
class _Stream:
    """Rows of C^-1 Z, or of Z itself, times a factor."""

    inner: NoiseStream
    factor: float
    identity: bool

    def next(self, z: Tensor) -> Tensor:
        return (z if self.identity else self.inner.next(z)) * self.factor


@dataclass(frozen=True, slots=True)
class _LyingMatrix:
    """C as it is charged, whose noise has another factor or is that of the identity, or whose
    sensitivity is that of who comes once.
    """

    inner: StrategyMatrix
    factor: float
    identity: bool
    once: bool

    @property
    def rounds(self) -> int:
        return self.inner.rounds

    @property
    def bands(self) -> int:
        return self.inner.bands

    def dense(self) -> Any:
        return self.inner.dense()

    def column_norms(self) -> Any:
        return self.inner.column_norms()

    def sens(self, most: int, apart: int, rounds: int | None = None) -> float:
        return self.inner.sens(1 if self.once else most, apart, rounds)

    def errors(self) -> Any:
        return self.inner.errors()

    def stream(self) -> NoiseStream:
        return _Stream(self.inner.stream(), self.factor, self.identity)


@dataclass(frozen=True, slots=True)
class LyingStrategy:
    """An honest strategy, whose matrix lies."""

    inner: Strategy
    factor: float = 1.0
    identity: bool = False
    once: bool = False

    def matrix(self, participation: Participation) -> StrategyMatrix:
        honest = self.inner.matrix(participation)
        return _LyingMatrix(honest, self.factor, self.identity, self.once)


class AllInTurn(CyclicPoisson):
    """Draws all whose turn it is, whatever rate it says."""

    def draw(self, clients: Sequence[ClientId], rng: torch.Generator) -> tuple[ClientId, ...]:
        return tuple(client for client in clients if client % self.turns == self.turn)


class EveryStep(DPGradient):
    """Takes all samples in every step, and says that they come in an order."""

    def batches(self, n: int, plan: LocalPlan, rng: torch.Generator) -> Iterator[Tensor]:
        for _ in DPGradient.batches(self, n, plan, rng):
            yield torch.arange(n)


def _named(strategy: str, **own: Any) -> Mapping[str, Any]:
    made = {"name": strategy, **own}
    return {"mechanism": {"name": "correlated", "noise_multiplier": 1.0, "strategy": made}}


TURNS: Mapping[str, Any] = {"sampler": {"name": "separated", "apart": 3}, "rounds": 9}
DRAWN: Mapping[str, Any] = {
    "sampler": {"name": "cyclic_poisson", "turns": 3, "rate": 0.5},
    "rounds": 9,
    **_named("banded", bands=3),
}


@contextmanager
def _gradient(kind: type[DPGradient], strategy: Strategy) -> Iterator[Federation]:
    with run(**SGD) as made:
        work = made.scenario.workload
        gradient = kind(l2=0.5, noise_multiplier=1.0, batch_size=32, strategy=strategy)
        method = replace(work.method, gradient=gradient)
        yield made.with_scenario(replace(made.scenario, workload=replace(work, method=method)))


def _lying(strategy: Strategy, **own: Any) -> Mapping[str, Any]:
    return {"mechanism": Correlated(1.0, LyingStrategy(strategy, **own))}


CORRELATED_HONEST: Mapping[str, Lie] = {
    "BISR": lambda: run(**_named("bisr")),
    "BLT": lambda: run(**_named("blt")),
    "tree": lambda: run(**_named("tree")),
    "banded, in turns": lambda: run(**_named("banded", bands=3), **TURNS),
    "banded, drawn in turns": lambda: run(**DRAWN),
    "DP-SGD, BISR": lambda: _gradient(DPGradient, Bisr()),
}
"""Honest runs whose noise hangs together."""
CORRELATED_LIES: Mapping[str, Lie] = {
    "half of the noise": lambda: run(_lying(Bisr(), factor=0.5)),
    "half of the noise, tree": lambda: run(_lying(Tree(), factor=0.5)),
    "half of the noise, in turns": lambda: run(_lying(Banded(3), factor=0.5), **TURNS),
    "the identity in place of C": lambda: run(_lying(Bisr(), identity=True)),
    "the identity in place of C, in turns": lambda: run(_lying(Banded(3), identity=True), **TURNS),
    "charged for one participation": lambda: run(_lying(Bisr(), once=True)),
    "all in turn charged as drawn": lambda: run({"sampler": AllInTurn(3, 0.5)}, **DRAWN),
    "half of the noise, DP-SGD": lambda: _gradient(DPGradient, LyingStrategy(Bisr(), 0.5)),
    "DP-SGD, all samples in every step": lambda: _gradient(EveryStep, Bisr()),
}
"""Lies about it."""
