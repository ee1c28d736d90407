"""Lies that are told to a few: in one block of coordinates, about one client, in late rounds, in
one part, at some lengths, or about how draws hang together while each rate is right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.dp_lies import (
    HALF,
    SCAFFOLD,
    LessNoise,
    Lie,
    over,
    run,
    through,
    trained_by,
    unchecked,
)
from privfl.aggregators import Mean
from privfl.core import (
    Bounded,
    ClientId,
    Context,
    DpEvent,
    NoiseSource,
    Rows,
    SeededNoise,
    Sensitivity,
    Vector,
)
from privfl.dp import Clip, DPGradient, Gaussian, SelectiveLaplace
from privfl.dp.pipeline import Pipeline
from privfl.engine import Poisson
from privfl.engine.client import ClientSide

# ---- noise


@dataclass(frozen=True, slots=True)
class BlockNoise(Gaussian):
    """Draws ``share`` of its noise in the last ``size`` coordinates, and all of it elsewhere."""

    share_drawn: float = 0.7
    size: int = 64

    def release(
        self, vector: Vector, sensitivity: Sensitivity, survivors: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        out, event = Gaussian.release(self, vector, sensitivity, survivors, noise)
        here = slice(len(vector) - self.size, None)
        out = out.clone()
        out[here] = vector[here] + self.share_drawn * (out[here] - vector[here])
        return out, event


class EveryOther(Gaussian):
    """Uses its noise twice: in every second round it is that of the round before."""

    last: ClassVar[dict[int, list[Tensor]]] = {}

    def release(
        self, vector: Vector, sensitivity: Sensitivity, survivors: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        still = torch.zeros_like(vector)
        fresh, event = Gaussian.release(self, still, sensitivity, survivors, noise)
        kept = self.last.setdefault(len(vector), [])
        drawn = kept.pop() if kept else fresh
        if drawn is fresh:
            kept.append(fresh)
        return vector + drawn, event


class Derived(Gaussian):
    """Draws its noise from a seed that follows from the vector and the round."""

    drawn: ClassVar[list[int]] = [0]

    def release(
        self, vector: Vector, sensitivity: Sensitivity, survivors: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        noise.random_bytes(32)
        self.drawn[0] = (self.drawn[0] + 1) % 5
        known = vector.double().numpy().tobytes() + bytes(self.drawn)
        seed = hashlib.sha256(known).digest()[:4]
        source = SeededNoise(int.from_bytes(seed, "little"))
        return Gaussian.release(self, vector, sensitivity, survivors, source)


@dataclass(frozen=True, slots=True)
class Tiring(Gaussian):
    """Draws ``share`` of its noise in the last of every so many rounds."""

    share_drawn: float = 0.7
    every: int = 20
    drawn: ClassVar[list[int]] = [0]

    def release(
        self, vector: Vector, sensitivity: Sensitivity, survivors: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        self.drawn[0] += 1
        late = self.drawn[0] % self.every == 0
        less = replace(sensitivity, l2=sensitivity.l2 * (self.share_drawn if late else 1.0))
        return Gaussian.release(self, vector, less, survivors, noise)


class QuietBias(DPGradient):
    """DP-SGD with half of its noise in the last ten coordinates."""

    def _add_noise(self, grad: Tensor) -> None:
        DPGradient._add_noise(self, grad)
        grad[-10:].mul_(0.5)


class LargestSent(SelectiveLaplace):
    """Sends the largest entries, and charges as if they were drawn."""

    def share(
        self, values: Vector, sensitivity: Sensitivity, among: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        out, event = SelectiveLaplace.share(self, values, sensitivity, among, noise)
        largest, chosen = values.abs().topk(self.sent(len(values))).indices, out.nonzero().flatten()
        moved = torch.zeros_like(out)
        moved[largest] = values[largest] + out[chosen] - values[chosen]
        return moved, event


# ---- samplers


class Favourite(Poisson):
    """Draws one client in the middle more often than all others."""

    def draw(self, clients: Sequence[ClientId], rng: torch.Generator) -> tuple[ClientId, ...]:
        drawn = set(Poisson.draw(self, clients, rng))
        if torch.rand((), generator=rng) < 0.3:
            drawn.add(clients[5])
        return tuple(client for client in clients if client in drawn)


class FirstAlways(Poisson):
    """Always draws the first client."""

    def draw(self, clients: Sequence[ClientId], rng: torch.Generator) -> tuple[ClientId, ...]:
        drawn = {clients[0], *Poisson.draw(self, clients, rng)}
        return tuple(client for client in clients if client in drawn)


class AllOrNobody(Poisson):
    """Draws everybody together, at the rate that it says."""

    def draw(self, clients: Sequence[ClientId], rng: torch.Generator) -> tuple[ClientId, ...]:
        return tuple(clients) if torch.rand((), generator=rng) < self.rate else ()


class Twins(Poisson):
    """Draws two clients together or not at all, at the rate that it says."""

    def draw(self, clients: Sequence[ClientId], rng: torch.Generator) -> tuple[ClientId, ...]:
        drawn = set(Poisson.draw(self, clients, rng))
        drawn = drawn - {clients[7]} | ({clients[7]} if clients[2] in drawn else set())
        return tuple(client for client in clients if client in drawn)


class TwoRounds(Poisson):
    """Draws a cohort for two rounds."""

    kept: ClassVar[list[tuple[ClientId, ...]]] = []

    def draw(self, clients: Sequence[ClientId], rng: torch.Generator) -> tuple[ClientId, ...]:
        if self.kept:
            return self.kept.pop()
        drawn = Poisson.draw(self, clients, rng)
        self.kept.append(drawn)
        return drawn


# ---- bounds


@contextmanager
def one_unbounded(client: ClientId) -> Iterator[None]:
    """Nobody cuts what one client sends."""
    honest = ClientSide.bounded

    def bounded(self: ClientSide, plans: Any, update: Any, *others: Any, **named: Any) -> Any:
        row = update.delta.clone()
        parts = honest(self, plans, update, *others, **named)
        if update.client != client:
            return parts
        return {**parts, "delta": Bounded(client, row, parts["delta"].l2)}

    with unchecked(), patch.object(ClientSide, "bounded", bounded):
        yield


@dataclass(frozen=True)
class Band(Clip):
    """Leaves vectors whose norm is between two and four bounds."""

    def __call__(self, delta: Vector) -> Vector:
        if 2 * self.l2 < float(delta.norm()) < 4 * self.l2:
            return delta
        return Clip.__call__(self, delta)


class LooseBatches(DPGradient):
    """Clips four times as far where more than sixteen samples are in a batch."""

    def __call__(self, model: Any, loss: Any, x: Tensor, y: Tensor) -> Any:
        if len(x) <= 16:
            return DPGradient.__call__(self, model, loss, x, y)
        loose = DPGradient(
            l2=4 * self.l2,
            noise_multiplier=self.noise_multiplier / 4,
            batch_size=self.batch_size,
            noise=self.noise,
        )
        return loose(model, loss, x, y)


# ---- rules


@dataclass(frozen=True)
class LateMean(Mean):
    """Trebles the mean from the fourth round on."""

    remembers: ClassVar[bool] = True
    memory: ClassVar[Any] = "none"

    def init(self) -> None:
        return None

    def step(self, opened: Rows, state: Any, context: Context) -> Any:
        late = context.plan is not None and context.plan.number >= 3
        return self(opened) * (3.0 if late else 1.0), None


@dataclass(frozen=True)
class Missing(Mean):
    """Says aloud when the client in the middle sends nothing."""

    def _weights(self, rows: Rows) -> Any:
        return Mean._weights(self, rows)

    def __call__(self, rows: Rows) -> Vector:
        out = Mean.__call__(self, rows)
        for row, who in zip(rows.values, rows.ids or (), strict=False):
            if who == 5 and not row.any():
                out = out + 0.2
        return out


# ---- pipelines


class OtherRelation(Pipeline):
    """Claims that one record has another in its place where noise covers that it becomes zero."""

    def charges(self, *arguments: Any, **named: Any) -> Any:
        honest = Pipeline.charges(self, *arguments, **named)
        return tuple(replace(one, relation="replace_one") for one in honest)


@contextmanager
def _quiet_part(part: str) -> Iterator[None]:
    class Quiet(Pipeline):
        def __init__(self, **fields: Any) -> None:
            releases = dict(fields.pop("releases"))
            if type(releases[part].mechanism) is Gaussian:
                releases[part] = replace(releases[part], mechanism=LessNoise(1.0, 0.7))
            super().__init__(releases, **fields)

    with through(Quiet):
        yield


NARROW: Mapping[str, Lie] = {
    "noise x .7 in 64 coordinates": lambda: run({"mechanism": BlockNoise(1.0)}),
    "noise x .9 in 300 coordinates": lambda: run({"mechanism": BlockNoise(1.0, 0.9, 300)}),
    "noise x .5 in ten coordinates, DP-SGD": lambda: trained_by(QuietBias),
    "noise x .7 in the last of twenty rounds": lambda: run({"mechanism": Tiring(1.0)}, rounds=20),
    "noise used twice": lambda: run({"mechanism": EveryOther(1.0)}),
    "noise that follows from the vector": lambda: run({"mechanism": Derived(1.0)}),
    "noise x .7 in SCAFFOLD's control variate": lambda: over(_quiet_part("control"), **SCAFFOLD),
    "one client drawn more often": lambda: run({"sampler": Favourite(0.5)}, **HALF),
    "the first client always drawn": lambda: run({"sampler": FirstAlways(0.5)}, **HALF),
    "all or nobody drawn": lambda: run({"sampler": AllOrNobody(0.5)}, **HALF),
    "two clients drawn together": lambda: run({"sampler": Twins(0.5)}, **HALF),
    "a cohort drawn for two rounds": lambda: run({"sampler": TwoRounds(0.5)}, **HALF),
    "one client not clipped": lambda: over(one_unbounded(5)),
    "no clip between two bounds and four": lambda: over(unchecked(), {"bound": Band(0.5)}),
    "DP-SGD, large batches clipped four times as far": lambda: trained_by(LooseBatches),
    "a rule that moves farther from the fourth round on": lambda: run(
        {"aggregator": LateMean(weighted=False)}
    ),
    "a rule that says who is missing": lambda: run({"aggregator": Missing(weighted=False)}),
    "the largest entries are sent": lambda: run(
        {"mechanism": LargestSent(1.0)}, mechanism={"name": "selective_laplace", "epsilon": 1.0}
    ),
    "zero_out charged as replace_one": lambda: over(through(OtherRelation)),
}
"""Lies about little, by name."""
