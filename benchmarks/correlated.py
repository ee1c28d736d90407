"""Correlated noise beside independent noise: error of prefix sums, cost of a release, and accuracy
without amplification.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Case, Row, cost, interleaved, main, say
from privfl.core import OsNoise, Participation, Sensitivity
from privfl.data import load
from privfl.dp import Correlated, calibrate
from privfl.dp.strategies import Banded, Bisr, Blt, SquareRoot, Strategy, Tree, rmse

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

        def step(stream=stream, unit=unit) -> None:  # type: ignore[no-untyped-def]
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


BATCH, EPOCHS, CLIP, DELTA = 500, 10, 1.0, 1e-5
RATES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
POINTS = {1.0: 2.5, 3.0: 1.5, 8.0: 1.0}
"""By epsilon, how many points above independent noise are asked for."""
HELD_OUT = 10_000


@lru_cache(maxsize=1)
def fashion() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fashion-MNIST at 14 x 14, each image of norm 1."""
    split = load("fashion_mnist")

    def small(x: Tensor) -> Tensor:
        pooled = F.avg_pool2d(x.reshape(-1, 1, 28, 28).float(), 2).flatten(1)
        return pooled / pooled.norm(dim=1, keepdim=True).clamp(min=1e-6)

    return small(split.train.x), split.train.y.long(), small(split.test.x), split.test.y.long()


def trained(
    x: Tensor, y: Tensor, strategy: Strategy, z: float, rate: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Softmax by DP-SGD in one fixed order: each gradient clipped, one Gaussian of multiplier z
    over the whole training under zero_out. The last model counts.
    """
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    apart = len(x) // BATCH
    run = Correlated(z, strategy).over(Participation(apart * EPOCHS, EPOCHS, apart))
    features = x.shape[1]
    state, noise = run.init(features * 10 + 10), OsNoise()
    weights = torch.zeros(10, features + 1)
    for step in range(apart * EPOCHS):
        rows = order[(step % apart) * BATCH : (step % apart + 1) * BATCH]
        inputs = torch.cat([x[rows], torch.ones(BATCH, 1)], dim=1)
        error = torch.softmax(inputs @ weights.T, dim=1) - F.one_hot(y[rows], 10)
        norms = error.norm(dim=1) * inputs.norm(dim=1)  # a sample's gradient is of rank one
        error *= (CLIP / norms.clamp(min=CLIP))[:, None]
        gradient = (error.T @ inputs).flatten() / BATCH
        noisy, _, state = run.release(gradient, Sensitivity(CLIP / BATCH), state, noise)
        weights -= rate * noisy.reshape(weights.shape)
    return weights[:, :-1], weights[:, -1]


def accuracy(model: tuple[Tensor, Tensor], x: Tensor, y: Tensor) -> float:
    return 100 * float(((x @ model[0].T + model[1]).argmax(dim=1) == y).float().mean())


def chosen(strategy: Strategy, z: float, rates: Sequence[float]) -> float:
    """The rate with the best accuracy on training samples that were held out."""
    x, y, _, _ = fashion()
    kept = len(x) - HELD_OUT
    scores = {
        rate: accuracy(trained(x[:kept], y[:kept], strategy, z, rate, 100), x[kept:], y[kept:])
        for rate in rates
    }
    say(strategy, f"z={z:.3f}", {rate: round(score, 1) for rate, score in scores.items()})
    return max(scores, key=lambda rate: scores[rate])


def fashion_softmax(quick: bool) -> Iterable[Row]:
    """Test accuracy at equal epsilon, no amplification, rates chosen on held-out samples."""
    x, y, test_x, test_y = fashion()
    for epsilon, least in POINTS.items():
        z = calibrate(
            epsilon=epsilon, delta=DELTA, sample_rate=1.0, steps=1, accountant="pld",
            relation="zero_out", sampler="all",
        )  # fmt: skip
        means = {}
        for strategy in (ALONE, Blt(3)):
            rate = chosen(strategy, z, RATES)
            scores = [
                accuracy(trained(x, y, strategy, z, rate, seed), test_x, test_y)
                for seed in range(1 if quick else 3)
            ]
            say(f"epsilon {epsilon:g}", strategy, f"rate {rate}", [round(s, 2) for s in scores])
            means[strategy] = float(np.mean(scores))
        ours, theirs = means[Blt(3)], means[ALONE]
        yield Row(
            "fashion",
            "independent noise",
            f"test accuracy at epsilon {epsilon:g}, Blt(3) (ratio: points above)",
            ours,
            theirs,
            ours - theirs,
            least,
        )


CASES: dict[str, Case] = {"prefix": prefix, "release": release, "fashion": fashion_softmax}

if __name__ == "__main__":
    main("correlated", CASES)
