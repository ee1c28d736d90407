"""Lies about privacy, each told by a copy of one part of an honest run: its noise, its sampler, its
accountant, its bound, its rule, its pipeline. The audit must find every one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.dp_lies_rules import OneRowClipping, OneRowMixing, OwnCentre, Still
from privfl import Federation
from privfl.core import (
    ClientId,
    DpEvent,
    LocalPlan,
    NoiseSource,
    RoundPlan,
    Sampling,
    SeededNoise,
    Sensitivity,
    Vector,
)
from privfl.dp import ClipByLayer, DPGradient, Gaussian, RdpAccount
from privfl.dp.accounting import ledger as accountant
from privfl.dp.accounting import pld_epsilon
from privfl.dp.pipeline import Pipeline
from privfl.dp.sgd.kernels import KERNELS
from privfl.engine import Poisson, pipeline_of, scenario

BASE: Mapping[str, Any] = {
    "data": {"name": "digits", "clients": 12, "partition": {"name": "iid"}},
    "rounds": 5,
    "executor": "sequential",
    "training": {"name": "sgd", "weighting": "uniform"},
    "bound": {"name": "clip", "l2": 0.5},
    "mechanism": {"name": "gaussian", "noise_multiplier": 1.0},
    "audit": {"delta": 1e-5},
}
HALF: Mapping[str, Any] = {"sampler": {"name": "poisson", "rate": 0.5}}
REPLACE: Mapping[str, Any] = {"relation": "replace_one"}
SGD: Mapping[str, Any] = {
    "mechanism": {"name": "none"},
    "bound": {"name": "none"},
    "training": {
        "name": "sgd",
        "steps": 5,
        "batch_size": 32,
        "gradient": {"name": "dp", "l2": 0.5, "noise_multiplier": 1.0},
    },
}


@contextmanager
def run(lie: Mapping[str, Any] | None = None, **changes: Any) -> Iterator[Federation]:
    """An honest run with these keys changed, and then parts of its scenario in place of its own."""
    made = Federation.from_config({**BASE, **changes})
    yield made.with_scenario(replace(made.scenario, **(lie or {})))


# ---- noise


@dataclass(frozen=True, slots=True)
class LessNoise(Gaussian):
    """Draws ``share`` of the noise that it accounts for."""

    share_drawn: float = 0.5

    def release(
        self, vector: Vector, sensitivity: Sensitivity, survivors: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        less = replace(sensitivity, l2=sensitivity.l2 * self.share_drawn)
        return Gaussian.release(self, vector, less, survivors, noise)


@dataclass(frozen=True, slots=True)
class SameNoise(Gaussian):
    """Draws the same noise in every round."""

    def release(
        self, vector: Vector, sensitivity: Sensitivity, survivors: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        noise.random_bytes(1)
        return Gaussian.release(self, vector, sensitivity, survivors, SeededNoise(0))


class Lingering(Gaussian):
    """A fifth of each round's noise is that of the round before; its variance is right."""

    last: ClassVar[dict[int, Tensor]] = {}

    def release(
        self, vector: Vector, sensitivity: Sensitivity, survivors: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        still = torch.zeros_like(vector)
        fresh, event = Gaussian.release(self, still, sensitivity, survivors, noise)
        before = self.last.get(len(vector))
        drawn = fresh if before is None else 0.2 * before + 0.96**0.5 * fresh
        self.last[len(vector)] = drawn
        return vector + drawn, event


class QuietGradient(DPGradient):
    """DP-SGD with half of its noise."""

    def _add_noise(self, grad: Tensor) -> None:
        DPGradient._add_noise(self, grad)
        grad.mul_(0.5)


# ---- samplers


class AlwaysIn(Poisson):
    """Draws everybody."""

    def draw(self, clients: Sequence[ClientId], rng: torch.Generator) -> tuple[ClientId, ...]:
        return tuple(clients)


class MoreOften(Poisson):
    """Draws at rate .65 whatever it says."""

    def draw(self, clients: Sequence[ClientId], rng: torch.Generator) -> tuple[ClientId, ...]:
        return Poisson(0.65).draw(clients, rng)


class EveryBatch(DPGradient):
    """Takes all samples in every step."""

    def batches(self, n: int, plan: LocalPlan, rng: torch.Generator) -> Iterator[Tensor]:
        for _ in DPGradient.batches(self, n, plan, rng):
            yield torch.arange(n)


# ---- the accountant


@contextmanager
def halved() -> Iterator[None]:
    """An accountant that says half of what was spent."""
    tight, wide = pld_epsilon, RdpAccount.optimum

    def optimum(self: RdpAccount, *arguments: Any, **named: Any) -> Any:
        epsilon, order = wide(self, *arguments, **named)
        return epsilon / 2, order

    with ExitStack() as stack:
        stack.enter_context(
            patch.object(accountant, "pld_epsilon", lambda *a, **k: tight(*a, **k) / 2)
        )
        stack.enter_context(patch.object(RdpAccount, "optimum", optimum))
        yield


# ---- bounds


@dataclass(frozen=True)
class _Unseen:
    """Per-sample gradients whose norms are forgotten."""

    inner: Any

    def tensors(self) -> tuple[Tensor, ...]:
        return self.inner.tensors()

    def squared(self) -> Tensor:
        return torch.zeros_like(self.inner.squared())

    def add(self, slot: Tensor, factors: Tensor) -> None:
        self.inner.add(slot, factors)

    def dense(self, shape: torch.Size) -> Tensor:
        return self.inner.dense(shape)


@contextmanager
def forgotten_norms() -> Iterator[None]:
    """A convolution kernel that leaves its own gradients out of the norms, but where somebody looks
    at them in double precision.
    """
    honest = KERNELS[nn.Conv2d]

    def kernel(layer: Any, x: Tensor) -> Any:
        out, saved, backward = honest(layer, x)

        def forgetful(*arguments: Any) -> Any:
            behind, found = backward(*arguments)
            if x.dtype == torch.float64:
                return behind, found
            return behind, {name: _Unseen(piece) for name, piece in found.items()}

        return out, saved, forgetful

    with patch.dict(KERNELS, {nn.Conv2d: kernel}):
        yield


class OpenLayer(ClipByLayer):
    """Leaves its smallest layer as it is."""

    def __call__(self, delta: Vector) -> Vector:
        sizes = list(self.sizes)
        smallest = sizes.index(min(sizes))
        start = sum(sizes[:smallest])
        out = ClipByLayer.__call__(self, delta)
        here = slice(start, start + sizes[smallest])
        out[here] = delta[here]
        return out


@contextmanager
def unchecked() -> Iterator[None]:
    """Norms that nobody checks on the way."""
    with ExitStack() as stack:
        for module in ("privfl.core.update", "privfl.crypto.plain_letters"):
            stack.enter_context(patch(f"{module}.norm", lambda vector: 0.0))
        yield


# ---- pipelines


class Credulous(Pipeline):
    """Believes what rules claim, and looks at no part but the noised ones."""

    def check(self, rows: int) -> None:
        return

    def sensitivity(self, part: str, rows: int | None = None) -> float:
        return self.reach(part, rows)


class OneEnd(Pipeline):
    """Charges noise in shares for C where a row that is replaced moves the sum by 2C."""

    def _event(self, part: str, plan: RoundPlan, survivors: int | None, *others: Any) -> DpEvent:
        shares = self.releases[part].shares
        event = None if shares is None else shares.noise_event(plan, survivors, self.colluders)
        return Pipeline._event(self, part, plan, survivors, *others) if event is None else event


class OncePaid(Pipeline):
    """Charges the first of the parts that a round releases."""

    def charges(self, *arguments: Any, **named: Any) -> Any:
        first = next(iter(self.releases))
        alone = Pipeline(**{**vars(self), "releases": {first: self.releases[first]}})
        return alone.charges(*arguments, **named)


class Amplified(Pipeline):
    """Charges noise of each client's own as a release of a cohort that nobody sees."""

    def charges(self, *arguments: Any, **named: Any) -> Any:
        honest = Pipeline.charges(self, *arguments, **named)
        drawn = Sampling("poisson", 0.5, self.sampling.population)
        return tuple(
            replace(one, sampling=drawn, cohort_hidden=True, cohort=None) for one in honest
        )


@contextmanager
def through(kind: type[Pipeline], bare: str | None = None) -> Iterator[None]:
    """Runs whose vectors leave by this pipeline; ``bare`` names a part that gets no noise."""
    honest = pipeline_of

    def made(*arguments: Any, **named: Any) -> Pipeline:
        pipeline = honest(*arguments, **named)
        releases = {
            part: replace(release, mechanism=None) if part == bare else release
            for part, release in pipeline.releases.items()
        }
        return kind(**{**vars(pipeline), "releases": releases})

    with patch.object(scenario, "pipeline_of", made):
        yield


# ---- the lies


@contextmanager
def over(around: Any, lie: Mapping[str, Any] | None = None, **changes: Any) -> Iterator[Federation]:
    """A run with that mechanism or these settings, while a patch is in force."""
    with around, run(lie, **changes) as made:
        yield made


@contextmanager
def trained_by(kind: type[DPGradient]) -> Iterator[Federation]:
    """A run of DP-SGD by that gradient."""
    with run(**SGD) as made:
        work = made.scenario.workload
        gradient = kind(l2=0.5, noise_multiplier=1.0, batch_size=32)
        method = replace(work.method, gradient=gradient)
        lying = replace(work, method=method)
        yield made.with_scenario(replace(made.scenario, workload=lying))


@contextmanager
def _open_layer() -> Iterator[Federation]:
    with unchecked(), run(bound={"name": "clip_by_layer", "l2": 0.5}) as made:
        honest = made.scenario.bound
        assert isinstance(honest, ClipByLayer)
        lie = OpenLayer(honest.sizes, honest.bounds)
        yield made.with_scenario(replace(made.scenario, bound=lie))


SHARES: Mapping[str, Any] = {
    "channel": "secagg",
    "mechanism": {"name": "distributed_skellam", "noise_multiplier": 1.0},
    **REPLACE,
}
CONV: Mapping[str, Any] = {
    **SGD,
    "model": {"name": "tanh_cnn"},
    "data": {"name": "fashion_mnist", "clients": 12, "partition": {"name": "iid"}},
}
SCAFFOLD: Mapping[str, Any] = {
    "training": {"name": "scaffold"},
    "bound": {"name": "clip", "l2": 0.5, "parts": {"control": 1.0}},
}
Lie = Callable[[], Any]
LIES: Mapping[str, Lie] = {
    "half of the noise, everybody": lambda: run({"mechanism": LessNoise(1.0)}),
    "half of the noise, Poisson": lambda: run({"mechanism": LessNoise(1.0)}, **HALF),
    "half of the noise, DP-SGD": lambda: trained_by(QuietGradient),
    "the same noise every round": lambda: run({"mechanism": SameNoise(1.0)}),
    "rate .1 charged, everybody drawn": lambda: run({"sampler": AlwaysIn(0.1)}),
    "DP-SGD, everybody drawn": lambda: trained_by(EveryBatch),
    "an accountant that halves, everybody": lambda: over(halved()),
    "an accountant that halves, Poisson": lambda: over(halved(), **HALF),
    "norms of a convolution forgotten": lambda: over(forgotten_norms(), **CONV),
    "the smallest layer left open": _open_layer,
    "SCAFFOLD's control variate bare": lambda: over(through(Credulous, bare="control"), **SCAFFOLD),
    "NNM moves one row": lambda: run({"defences": (OneRowMixing(f=3),)}, **REPLACE),
    "ARC moves one row": lambda: run({"defences": (OneRowClipping(f=3),)}, **REPLACE),
    "shares charged for C, not 2C": lambda: over(through(OneEnd), **SHARES),
    "centred clipping keeps its centre": lambda: run({"aggregator": OwnCentre(tau=0.3)}, **REPLACE),
}
"""The fifteen, each a context in which a federation lies."""
HARDER: Mapping[str, Lie] = {
    "noise x .9": lambda: run({"mechanism": LessNoise(1.0, 0.9)}),
    "noise x .95": lambda: run({"mechanism": LessNoise(1.0, 0.95)}),
    "a fifth of the last round's noise": lambda: run({"mechanism": Lingering(1.0)}),
    "rate .65 for .5": lambda: run({"sampler": MoreOften(0.5)}, **HALF),
    "a rule that nobody moves": lambda: over(
        through(Credulous), {"aggregator": Still(weighted=False)}
    ),
    "two parts charged as one": lambda: over(through(OncePaid), **SCAFFOLD),
    "local noise charged as sampled": lambda: over(
        through(Amplified), mechanism={"name": "local_gaussian", "noise_multiplier": 1.0}
    ),
}
"""Lies that show only where many values are looked at, and holes of pipelines."""
HONEST: Mapping[str, Mapping[str, Any]] = {
    "everybody": {},
    "Poisson": HALF,
    "fixed size": {"sampler": {"name": "fixed_size", "size": 6}},
    "adaptive clip": {"bound": {"name": "adaptive_clip", "initial": 0.5}},
    "clip by layer": {"bound": {"name": "clip_by_layer", "l2": 0.5}},
    "SCAFFOLD": SCAFFOLD,
    "local noise": {"mechanism": {"name": "local_gaussian", "noise_multiplier": 1.0}},
    "discrete Gaussian": {"mechanism": {"name": "discrete_gaussian", "noise_multiplier": 1.0}},
    "Laplace": {"mechanism": {"name": "laplace", "epsilon": 1.0}},
    "centred clipping": {"aggregator": {"name": "centered_clipping", "tau": 0.3}},
    "NNM and trimmed mean": {
        "defences": [{"name": "nnm", "f": 2}],
        "aggregator": {"name": "trimmed_mean", "f": 2},
    },
    "secret cohorts": {**HALF, "threat": {"sampling": "secret"}},
}
"""Ways to be honest."""
