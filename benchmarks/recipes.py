"""DP-SGD at the epsilons of the literature: recipes, their training through `Federation`, and the
choice of their learning rates on held-out training samples.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.scattering import scattering
from privfl import Federation
from privfl.config import AuditConfig
from privfl.core import BatchGradient, Dataset, LocalPlan
from privfl.data import load
from privfl.dp import DPGradient, calibrate
from privfl.models import initialised, softmax, tanh_cnn
from privfl.training import LocalSGD, PlainGradient

DELTA = 1e-5
VIRTUAL_BATCH = 4096
"""The most samples whose gradients are held at once."""


@dataclass(frozen=True)
class Recipe:
    """DP-SGD with the tanh CNN of Papernot et al. 2020, or of softmax regression on fixed wavelet
    features (Tramèr, Boneh 2021).

    ``goal`` is the accuracy that is asked for at this epsilon, None where it is shown only.
    ``samples`` are how many training samples there are, None for all; ``batch`` None is all of
    them in every step. ``lr`` is the one of ``rates`` that did best on ``held_out`` training
    samples (the mean of ``tries``), which it then trains on too.
    """

    data: str
    epsilon: float
    goal: float | None
    batch: int | None
    epochs: int
    lr: float
    l2: float = 0.1
    wavelets: bool = False
    samples: int | None = None
    rates: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0)
    held_out: int = 5_000
    tries: int = 3


RECIPES = {
    "mnist_1.19": Recipe("mnist", 1.19, 0.950, batch=1024, epochs=6, lr=2.0),
    "mnist_3": Recipe("mnist", 3.0, 0.968, batch=1024, epochs=7, lr=4.0),
    "mnist_7": Recipe("mnist", 7.0, 0.971, batch=512, epochs=6, lr=2.0),
    "mnist_wavelets_2.93": Recipe(
        "mnist", 2.93, 0.984, batch=4096, epochs=15, lr=8.0, wavelets=True
    ),
    "fashion_2.7": Recipe(
        "fashion_mnist",
        2.7,
        0.896,
        batch=8192,
        epochs=60,
        lr=8.0,
        wavelets=True,
        rates=(4.0, 8.0, 16.0),
    ),
    "cifar10_3": Recipe(
        "cifar10", 3.0, 0.57, batch=None, epochs=40, lr=16.0, wavelets=True, held_out=2_500, tries=1
    ),
    "cifar10_10000_3": Recipe(
        "cifar10",
        3.0,
        None,
        batch=None,
        epochs=40,
        lr=4.0,
        wavelets=True,
        samples=10_000,
        held_out=2_500,
        tries=1,
    ),
}
OPEN_RATES = (0.001, 0.003, 0.01)
"""Learning rates of the same features without clip and noise, chosen on the same samples."""


def samples(recipe: Recipe) -> tuple[Dataset, Dataset]:
    """What the model sees: training and test samples."""
    split = load(recipe.data)
    train = split.train.take(range(recipe.samples or split.train.n))
    return _seen(recipe, train), _seen(recipe, split.test)


def _seen(recipe: Recipe, part: Dataset) -> Dataset:
    return Dataset(scattering(part.x), part.y, part.classes) if recipe.wavelets else part


def trained(
    recipe: Recipe, train: Dataset, test: Dataset, lr: float, seed: int
) -> tuple[float, Mapping[str, Any]]:
    """The accuracy after the last step of one private training, and the claim of its report."""
    batch = recipe.batch or train.n
    steps = round(recipe.epochs * train.n / batch)
    z = calibrate(
        epsilon=recipe.epsilon,
        delta=DELTA,
        sample_rate=batch / train.n,
        steps=steps,
        accountant="pld",
    )
    private = DPGradient(
        l2=recipe.l2,
        noise_multiplier=z,
        batch_size=batch,
        microbatch=min(batch, VIRTUAL_BATCH),
        sampling="secret",
    )
    return _run(recipe, train, test, lr, LocalPlan(batch, steps=steps), private, seed)


def trained_openly(recipe: Recipe, train: Dataset, test: Dataset, lr: float, seed: int) -> float:
    """The accuracy of the same model on the same features without clip and noise: 10 epochs in
    batches of 256.
    """
    plan = LocalPlan(256, epochs=10)
    return _run(recipe, train, test, lr, plan, PlainGradient(), seed)[0]


def _run(
    recipe: Recipe,
    train: Dataset,
    test: Dataset,
    lr: float,
    plan: LocalPlan,
    gradient: BatchGradient,
    seed: int,
) -> tuple[float, Mapping[str, Any]]:
    model = softmax if recipe.wavelets else tanh_cnn
    run = Federation(
        initialised(model, tuple(train.x.shape[1:]), train.classes, seed=seed),
        [train],
        test,
        rounds=1,
        training=LocalSGD(lr=lr, momentum=0.9, plan=plan, gradient=gradient),
        seed=seed,
        executor="sequential",
        audit=AuditConfig(keep="none", delta=DELTA),
    ).run()
    return run.accuracy, next(iter(run.summary["privacy"]), {})


def held_out(recipe: Recipe, train: Dataset) -> tuple[Dataset, Dataset]:
    """The training samples without the last ones, and those."""
    first = train.n - recipe.held_out
    return train.take(torch.arange(first)), train.take(torch.arange(first, train.n))


def choices(recipe: Recipe, train: Dataset) -> Iterator[tuple[float, float]]:
    """Each learning rate with its accuracy on the held-out samples, the mean of ``tries``."""
    rest, held = held_out(recipe, train)
    for lr in recipe.rates:
        tries = [trained(recipe, rest, held, lr, seed)[0] for seed in range(recipe.tries)]
        yield lr, statistics.mean(tries)


def chosen_openly(recipe: Recipe, train: Dataset) -> float:
    """The learning rate without clip and noise that does best on the held-out samples."""
    rest, held = held_out(recipe, train)
    found = {lr: trained_openly(recipe, rest, held, lr, seed=0) for lr in OPEN_RATES}
    return max(found, key=lambda lr: found[lr])
