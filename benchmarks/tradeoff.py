"""Privacy against utility: DP-SGD at the epsilons of the literature, DP-FedAvg by writer, and the
curve in docs/figures.

Everything runs through `Federation`: DP-SGD is a federation of one client whose gradient seat is
`DPGradient`, with Poisson batches, judged after its last step. Recipes were chosen on held-out
training samples (sample level: the ``choose_`` cases do it again) and on the writers 500 to 538
(client level), never on test data; what that choice costs in privacy is not counted, as in the
papers that are compared with. Noise is from the operating system, calibrated by PLD.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.harness import Case, Row, cost, gain, main, say
from benchmarks.recipes import (
    DELTA,
    RECIPES,
    choices,
    chosen_openly,
    samples,
    trained,
    trained_openly,
)
from benchmarks.tradeoff_figure import keep
from privfl import Federation
from privfl.aggregators import Mean
from privfl.config import AuditConfig
from privfl.core import Dataset, LocalPlan
from privfl.data import Natural, Split, load
from privfl.dp import Clip, Gaussian, calibrate
from privfl.engine import Poisson
from privfl.models import initialised, softmax
from privfl.training import FedAvgM, LocalSGD

SEEDS = (0, 1, 2)


def dp_sgd(name: str, quick: bool) -> Iterator[Row]:
    """One recipe over seeds: the mean accuracy beside the goal and beside the same features without
    noise, the worst seed, the claimed epsilon by both accountants.
    """
    recipe = RECIPES[name]
    (train, test), accuracies, claims = samples(recipe), [], []
    began = time.process_time()
    for seed in SEEDS[:1] if quick else SEEDS:
        accuracy, claim = trained(recipe, train, test, recipe.lr, seed)
        say(
            f"  seed {seed}: {accuracy:.4f} at epsilon {claim['epsilon']:.3f} (RDP says"
            f" {claim['rdp']:.3f})"
        )
        accuracies.append(accuracy)
        claims.append(claim)
    minutes = (time.process_time() - began) / 60 / len(accuracies)
    goal, mean = recipe.goal, statistics.mean(accuracies)
    what = f"test accuracy at epsilon {recipe.epsilon:g}"
    seeds = f"{what}, mean of {len(accuracies)} seeds"
    if goal is not None:
        yield gain(name, "goal", seeds, mean, goal, target=1)
        yield gain(name, "goal", f"{what}, worst seed", min(accuracies), goal)
    if recipe.wavelets:
        lr = chosen_openly(recipe, train)
        theirs = trained_openly(recipe, train, test, lr, seed=0)
        yield gain(name, "without noise", seeds, mean, theirs)
    claimed = max(claim["epsilon"] for claim in claims)
    yield cost(name, "goal", "claimed epsilon", claimed, recipe.epsilon, target=1)
    yield cost(name, "by RDP", "claimed epsilon", claimed, max(claim["rdp"] for claim in claims))
    say(f"  {minutes:.1f} CPU minutes a seed, features apart")
    keep(name, {recipe.epsilon: accuracies})


def choose(name: str, quick: bool) -> Iterator[Row]:
    """How a recipe's learning rate was chosen: each one's accuracy on held-out training samples,
    beside the best other's. What this choice costs in privacy is in no epsilon here.
    """
    recipe = RECIPES[name]
    found = dict(choices(recipe, samples(recipe)[0]))
    for lr, accuracy in found.items():
        others = max(other for rate, other in found.items() if rate != lr)
        mark = ", taken" if lr == recipe.lr else ""
        yield gain(
            f"choose_{name}",
            "best other rate",
            f"held-out accuracy at rate {lr:g}{mark}",
            accuracy,
            others,
        )


@dataclass(frozen=True)
class ByWriter:
    """DP-FedAvg (McMahan et al. 2018) of softmax regression: clients are writers, drawn by coins,
    each clipped to ``l2``.
    """

    epsilon: float
    rate: float
    rounds: int
    lr: float
    l2: float
    momentum: float = 0.9
    server_lr: float = 1.0


WRITERS = (
    ByWriter(1.0, rate=1.0, rounds=12, lr=0.02, l2=0.2),
    ByWriter(2.0, rate=1.0, rounds=20, lr=0.05, l2=0.2),
    ByWriter(4.0, rate=1.0, rounds=30, lr=0.05, l2=0.2),
    ByWriter(8.0, rate=1.0, rounds=40, lr=0.05, l2=0.2),
)


def writers(split: Split) -> list[Dataset]:
    """Each of the 539 writers' digits."""
    return [
        split.train.take(index) for index in Natural("writer")(split.train, None, torch.Generator())
    ]


def client_level(
    plan: ByWriter, clients: list[Dataset], test: Dataset, split: Split, seed: int
) -> tuple[float, Mapping[str, Any]]:
    """The accuracy of one private federation, and the claim of its report."""
    z = calibrate(
        epsilon=plan.epsilon,
        delta=DELTA,
        sample_rate=plan.rate,
        steps=plan.rounds,
        accountant="pld",
    )
    run = Federation(
        initialised(softmax, split.shape, split.classes, seed=seed),
        clients,
        test,
        rounds=plan.rounds,
        training=LocalSGD(lr=plan.lr, plan=LocalPlan(16), weighting="uniform"),
        sampler=Poisson(plan.rate),
        bound=Clip(plan.l2),
        mechanism=Gaussian(z),
        aggregator=Mean(weighted=False, denominator=plan.rate * len(clients)),
        server_optimizer=FedAvgM(lr=plan.server_lr, momentum=plan.momentum),
        seed=seed,
        executor="stacked",
        audit=AuditConfig(keep="none", delta=DELTA, evaluate_every=1000),
    ).run()
    return run.accuracy, run.summary["privacy"][0]


def by_writer(quick: bool) -> Iterator[Row]:
    """Client-level DP-FedAvg on MNIST by its writers at epsilon 1 to 8, beside the same federation
    without noise and clip.
    """
    split = load("mnist")
    clients, points = writers(split), {}
    open_run = Federation(
        initialised(softmax, split.shape, split.classes, seed=0),
        clients,
        split.test,
        rounds=WRITERS[-1].rounds,
        training=LocalSGD(lr=WRITERS[-1].lr, plan=LocalPlan(16), weighting="uniform"),
        server_optimizer=FedAvgM(lr=WRITERS[-1].server_lr, momentum=WRITERS[-1].momentum),
        executor="stacked",
        audit=AuditConfig(keep="none", evaluate_every=1000),
    ).run()
    for plan in WRITERS:
        told = [
            client_level(plan, clients, split.test, split, seed)
            for seed in (SEEDS[:2] if quick else SEEDS)
        ]
        points[plan.epsilon] = [accuracy for accuracy, _ in told]
        say(f"  epsilon {plan.epsilon:g}: {points[plan.epsilon]}")
        what = f"test accuracy at client-level epsilon {plan.epsilon:g}, mean of {len(told)} seeds"
        yield gain(
            "by_writer",
            "without noise and clip",
            what,
            statistics.mean(points[plan.epsilon]),
            open_run.accuracy,
        )
        yield cost(
            "by_writer",
            "goal",
            f"claimed epsilon {plan.epsilon:g}",
            max(c["epsilon"] for _, c in told),
            plan.epsilon,
            target=1,
        )
    keep("by_writer", points)


CASES: dict[str, Case] = {
    **{name: partial(dp_sgd, name) for name in RECIPES},
    "by_writer": by_writer,
    **{f"choose_{name}": partial(choose, name) for name, one in RECIPES.items() if one.wavelets},
}

if __name__ == "__main__":
    main("tradeoff", CASES)
