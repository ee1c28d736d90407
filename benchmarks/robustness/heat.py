"""Worst-case accuracy over the number of liars and the heterogeneity of the data, as ByzFL draws
it: the learning rate is chosen on validation data, never on the test set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from benchmarks.harness import Row, gain
from benchmarks.robustness.figures import draw_worst
from benchmarks.robustness.workers import Experiment, Job, Played, between
from privfl import Federation, aggregators, attacks
from privfl.config import AuditConfig
from privfl.core import LocalPlan, Seeds
from privfl.data import Dirichlet, load
from privfl.engine import Attacker
from privfl.models import initialised, mlp
from privfl.training import LocalSGD

N, ROUNDS = 20, 60
LIARS = (2, 5, 8)
ALPHAS = (0.1, 0.5, 10.0)
RATES = (0.2, 0.5)
HELD_OUT = 0.2
Nnm = aggregators.NearestNeighbourMixing
RULES: Mapping[str, Callable[[int], tuple[Any, Sequence[Any]]]] = {
    "mean": lambda f: (aggregators.Mean(), ()),
    "trimmed mean": lambda f: (aggregators.TrimmedMean(f), ()),
    "Krum": lambda f: (aggregators.Krum(f), ()),
    "NNM + trimmed mean": lambda f: (aggregators.TrimmedMean(f), (Nnm(f),)),
}
ATTACKS: Mapping[str, Callable[[], Any]] = {
    "sign flip": attacks.SignFlip,
    "ALIE 1.5": lambda: attacks.ALIE(z=1.5),
    "IPM 0.5": lambda: attacks.IPM(epsilon=0.5),
    "mimic": attacks.Mimic,
    "label flip": attacks.LabelFlip,
    "AGR-tailored on the path": lambda: attacks.AGRTailored(tries=8),
}
Pair = tuple[float, float]


def cell(rule: str, f: int, alpha: float, seed: int) -> dict[tuple[str, float], Pair]:
    """Validation and test accuracy for every attack and learning rate: digits, 20 clients of which
    f lie, an MLP of 32, 60 rounds of one step.
    """
    split, seeds = load("digits"), Seeds(seed)
    order = torch.randperm(split.train.n, generator=seeds.generator("validation"))
    held = round(HELD_OUT * split.train.n)
    validation, train = split.train.take(order[:held]), split.train.take(order[held:])
    parts = Dirichlet(alpha=alpha, min_size=4)(train, N, seeds.generator("partition"))
    clients = [train.take(part) for part in parts]
    found = {}
    for attack, make in ATTACKS.items():
        for rate in RATES:
            aggregator, before = RULES[rule](f)
            run = Federation(
                initialised(mlp, split.shape, split.classes, seed=seed, hidden=(32,)),
                clients,
                split.test,
                validation=validation,
                rounds=ROUNDS,
                training=LocalSGD(lr=rate, plan=LocalPlan(32, steps=1), weighting="uniform"),
                aggregator=aggregator,
                defences=before,
                attackers=[Attacker(attack, make(), frozenset(range(N - f, N)))],
                seed=seed,
                executor="stacked",
                audit=AuditConfig(keep=[], evaluate_every=1000),
            ).run()
            chosen_on = float(run.summary["validation"]["accuracy"])
            found[attack, rate] = (chosen_on, run.accuracy)
    return found


def each_cell(seeds: Sequence[int]) -> Sequence[Job]:
    return [(rule, f, a, seed) for rule in RULES for f in LIARS for a in ALPHAS for seed in seeds]


def heat(played: Played) -> Iterable[Row]:
    """For each rule, number of liars and alpha the worst attack's accuracy, at the rate whose worst
    validation accuracy is best; the heat maps.
    """
    cells: dict[tuple[str, int, float], list[dict[tuple[str, float], Pair]]] = {}
    for (rule, f, alpha, _), found in played.runs:
        cells.setdefault((rule, f, alpha), []).append(found)
    worst = {rule: torch.zeros(len(LIARS), len(ALPHAS)) for rule in RULES}
    for (rule, f, alpha), over_seeds in cells.items():
        means = {
            key: torch.tensor([one[key] for one in over_seeds]).mean(dim=0) for key in over_seeds[0]
        }
        rate = max(RATES, key=lambda r: min(float(means[attack, r][0]) for attack in ATTACKS))
        attack = min(ATTACKS, key=lambda one: float(means[one, rate][1]))
        each = [one[attack, rate][1] for one in over_seeds]
        worst[rule][LIARS.index(f), ALPHAS.index(alpha)] = float(means[attack, rate][1])
        what = f"{rule}, f = {f}, alpha = {alpha:g}: worst accuracy (lr {rate:g}, {attack})"
        yield gain("heat", "1", what, float(means[attack, rate][1]), 1.0)
        yield between("heat", what, each)
    draw_worst(worst, LIARS, ALPHAS, len(next(iter(cells.values()))))


WORST = Experiment(cell, each_cell, heat, quick=1)
