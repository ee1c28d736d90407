"""Correlated noise beside independent noise: error of prefix sums, cost of a release, and accuracy
without amplification, at sample level on Fashion-MNIST and at client level on MNIST by writer.

Learning rates and whatever else a mechanism may choose are chosen on held-out training data, for
both mechanisms in the same way, never on test data; that choice is in no epsilon here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Case, Row, cost, gain, interleaved, main, say
from benchmarks.recipes import DELTA
from benchmarks.tradeoff import writers
from benchmarks.tradeoff_figure import draw_mechanisms
from privfl import Federation
from privfl.aggregators import Mean
from privfl.config import AuditConfig
from privfl.core import Dataset, LocalPlan, OsNoise, Participation, Sensitivity
from privfl.data import load
from privfl.dp import Clip, Correlated, calibrate
from privfl.dp.strategies import Banded, Bisr, Blt, SquareRoot, Strategy, Tree, rmse
from privfl.engine import Separated
from privfl.models import initialised, softmax
from privfl.training import FedAvgM, LocalSGD

ALONE = Bisr(1)
"""Independent noise: one band of the inverse."""
RUNS = ((1024, 1, 1), (1024, 8, 128), (2000, 1, 1), (2000, 10, 200), (100, 10, 10))
STRATEGIES: tuple[Strategy, ...] = (
    Tree(), Bisr(4), Bisr(16), Bisr(64), Banded(64), Blt(2), Blt(3), SquareRoot(),
)  # fmt: skip


def prefix(quick: bool) -> Iterable[Row]:
    """The root of the mean squared error over all prefixes, at equal privacy."""
    for rounds, most, apart in RUNS:
        run = Participation(rounds, most, apart)
        independent = rmse(ALONE.matrix(run), run)
        for strategy in STRATEGIES:
            # of BandMF's bands no more are taken than rounds between participations
            error = rmse(strategy.matrix(run), run)
            target = 7.0 if strategy == Blt(3) and (rounds, most) == (1024, 1) else None
            yield cost(
                "prefix",
                "independent noise",
                f"{strategy!r}, T={rounds}, k={most}, b={apart}: RMSE of a prefix",
                error,
                independent,
                target,
            )


def release(quick: bool) -> Iterable[Row]:
    """One release of a million values, once its buffers are full."""
    d, rounds = 1_000_000, 64
    run = Participation(rounds=100_000, most=1)
    vector, far, noise = torch.zeros(d), Sensitivity(1.0), OsNoise()
    steps = {}
    for strategy in (ALONE, Blt(2), Blt(3), Bisr(4), Bisr(16)):
        made = Correlated(1.0, strategy).over(run)
        state = made.init(d)
        for _ in range(16):
            made.release(vector, far, state, noise)
        stream, unit = state.stream, made.unit

        def step(stream=stream, unit=unit) -> None:
            from privfl.dp.noise import normals

            stream.next(normals(d, noise, torch.float32).mul_(unit))

        steps[repr(strategy)] = step
    seconds = interleaved(steps, 4 if quick else rounds // 6, clock=time.thread_time)
    for name, spent in seconds.items():
        if name != repr(ALONE):
            yield cost(
                "release",
                "independent noise",
                f"{name}: CPU seconds a row, d=1e6",
                spent,
                seconds[repr(ALONE)],
            )


@lru_cache
def multiplier(epsilon: float) -> float:
    """The noise multiplier of one Gaussian over a whole training."""
    return calibrate(
        epsilon=epsilon, delta=DELTA, sample_rate=1.0, steps=1, accountant="pld",
        relation="zero_out", sampler="all",
    )  # fmt: skip


def climbed(score: Callable[[float], float], start: float) -> tuple[float, float]:
    """The best score, and its rate: doubled or halved from ``start`` for as long as that helps."""
    best = (score(start), start)
    for factor in (2.0, 0.5):
        while (tried := (score(best[1] * factor), best[1] * factor)) > best:
            best = tried
        if best[1] != start:
            break
    return best


BATCH = 500
CLIPS, EPOCHS = (1.0, 0.5), (10, 20)
POINTS = {1.0: 2.5, 3.0: 1.5, 8.0: 1.0}
"""By epsilon, how many points above independent noise are asked for."""
HELD_OUT = 10_000


@dataclass(frozen=True)
class Recipe:
    """What held-out samples choose: a sample's gradient is clipped to ``clip``, and weights move by
    ``rate`` / ``clip`` of the noisy mean.
    """

    strategy: Strategy
    clip: float
    epochs: int
    rate: float


@lru_cache(maxsize=1)
def fashion() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fashion-MNIST at 14 x 14, each image of norm 1."""
    split = load("fashion_mnist")

    def small(x: Tensor) -> Tensor:
        pooled = F.avg_pool2d(x.reshape(-1, 1, 28, 28).float(), 2).flatten(1)
        return pooled / pooled.norm(dim=1, keepdim=True).clamp(min=1e-6)

    return small(split.train.x), split.train.y.long(), small(split.test.x), split.test.y.long()


def trained(x: Tensor, y: Tensor, recipe: Recipe, z: float, seed: int) -> tuple[Tensor, Tensor]:
    """Softmax by DP-SGD in one fixed order: each gradient clipped, one Gaussian of multiplier z
    over the whole training under zero_out. The last model counts.
    """
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    apart, clip = len(x) // BATCH, recipe.clip
    steps = apart * recipe.epochs
    run = Correlated(z, recipe.strategy).over(Participation(steps, recipe.epochs, apart))
    features = x.shape[1]
    state, noise = run.init(features * 10 + 10), OsNoise()
    weights = torch.zeros(10, features + 1)
    for step in range(steps):
        rows = order[(step % apart) * BATCH : (step % apart + 1) * BATCH]
        inputs = torch.cat([x[rows], torch.ones(BATCH, 1)], dim=1)
        error = torch.softmax(inputs @ weights.T, dim=1) - F.one_hot(y[rows], 10)
        norms = error.norm(dim=1) * inputs.norm(dim=1)  # a sample's gradient is of rank one
        error *= (clip / norms.clamp(min=clip))[:, None]
        gradient = (error.T @ inputs).flatten() / BATCH
        noisy, _, state = run.release(gradient, Sensitivity(clip / BATCH), state, noise)
        weights -= recipe.rate / clip * noisy.reshape(weights.shape)
    return weights[:, :-1], weights[:, -1]


def accuracy(model: tuple[Tensor, Tensor], x: Tensor, y: Tensor) -> float:
    return 100 * float(((x @ model[0].T + model[1]).argmax(dim=1) == y).float().mean())


def chosen(strategies: Iterable[Strategy], z: float) -> Recipe:
    """The recipe with the best accuracy on training samples that were held out."""
    x, y, _, _ = fashion()
    kept = len(x) - HELD_OUT
    found = []
    for strategy, clip, epochs in product(strategies, CLIPS, EPOCHS):
        made = partial(Recipe, strategy, clip, epochs)

        def score(rate: float, made=made) -> float:
            model = trained(x[:kept], y[:kept], made(rate), z, 100)
            return accuracy(model, x[kept:], y[kept:])

        best, rate = climbed(score, 8.0)
        say(f"  {made(rate)}: {best:.2f} on held-out samples")
        found.append((best, made(rate)))
    return max(found, key=lambda one: one[0])[1]


def fashion_softmax(quick: bool) -> Iterable[Row]:
    """Test accuracy at equal epsilon, no amplification."""
    x, y, test_x, test_y = fashion()
    for epsilon, least in POINTS.items():
        z, means = multiplier(epsilon), []
        for strategies in ((Bisr(16), Blt(3)), (ALONE,)):
            recipe = chosen(strategies, z)
            scores = [
                accuracy(trained(x, y, recipe, z, seed), test_x, test_y)
                for seed in range(1 if quick else 3)
            ]
            say(f"epsilon {epsilon:g}, {recipe}: {[round(s, 2) for s in scores]} on test samples")
            means.append(float(np.mean(scores)))
        ours, theirs = means
        yield Row(
            "fashion",
            "independent noise",
            f"test accuracy at epsilon {epsilon:g} (ratio: points above)",
            ours,
            theirs,
            ours - theirs,
            least,
        )


TURNS, MOST, L2 = 8, (2, 8), 0.2
KEPT = 500
"""The writers from this one on choose; the final federations have all."""


@dataclass(frozen=True)
class Plan:
    """DP-FedAvg of softmax regression where the writers come in turns of an eighth, each ``most``
    times.
    """

    strategy: Strategy
    most: int
    server_lr: float


def federated(
    plan: Plan, epsilon: float, clients: list[Dataset], test: Dataset, seed: int
) -> tuple[float, float]:
    """The accuracy of one federation, and the epsilon that its report claims."""
    run = Federation(
        initialised(softmax, tuple(test.x.shape[1:]), test.classes, seed=seed),
        clients,
        test,
        rounds=plan.most * TURNS,
        training=LocalSGD(lr=0.05, plan=LocalPlan(16), weighting="uniform"),
        sampler=Separated(TURNS),
        bound=Clip(L2),
        mechanism=Correlated(multiplier(epsilon), plan.strategy),
        aggregator=Mean(weighted=False, denominator=len(clients) / TURNS),
        server_optimizer=FedAvgM(lr=plan.server_lr, momentum=0.9),
        seed=seed,
        executor="stacked",
        audit=AuditConfig(keep="none", delta=DELTA, evaluate_every=1000),
    ).run()
    return run.accuracy, run.summary["privacy"][0]["epsilon"]


def planned(strategy: Strategy, epsilon: float, clients: list[Dataset]) -> Plan:
    """The plan with the best accuracy on the writers that were held out."""
    found = []
    held = Dataset(
        torch.cat([one.x for one in clients[KEPT:]]),
        torch.cat([one.y for one in clients[KEPT:]]),
        clients[0].classes,
    )
    for most in MOST:

        def score(rate: float, most=most) -> float:
            plan = Plan(strategy, most, rate)
            return federated(plan, epsilon, clients[:KEPT], held, seed=100)[0]

        best, rate = climbed(score, 0.25)
        found.append((best, Plan(strategy, most, rate)))
    return max(found, key=lambda one: one[0])[1]


def by_writer(quick: bool) -> Iterable[Row]:
    """Client-level test accuracy on MNIST by its writers, no amplification."""
    split = load("mnist")
    clients = writers(split)
    curves: dict[str, dict[float, list[float]]] = {"correlated, blt": {}, "independent": {}}
    for epsilon in (1.0, 2.0, 4.0, 8.0):
        for (name, curve), strategy in zip(curves.items(), (Blt(3), ALONE), strict=True):
            plan = planned(strategy, epsilon, clients)
            told = [
                federated(plan, epsilon, clients, split.test, seed)
                for seed in range(2 if quick else 3)
            ]
            curve[epsilon] = [accuracy for accuracy, _ in told]
            claimed = max(claim for _, claim in told)
            say(f"epsilon {epsilon:g} (claimed {claimed:.3f}), {plan}: {curve[epsilon]}")
            yield cost("writers", "goal", f"claimed epsilon, {name}", claimed, epsilon, target=1)
        ours, theirs = (float(np.mean(curve[epsilon])) for curve in curves.values())
        yield gain(
            "writers",
            "independent noise",
            f"test accuracy at client-level epsilon {epsilon:g}, {len(told)} seeds",
            ours,
            theirs,
        )
    draw_mechanisms(curves)


CASES: dict[str, Case] = {
    "prefix": prefix,
    "release": release,
    "fashion": fashion_softmax,
    "writers": by_writer,
}

if __name__ == "__main__":
    main("correlated", CASES)
