"""Detectors beside backdoors, as BackFed's table has them, cut to a CPU: MNIST, a small net, and
two liars of twenty who attack a model that was trained before.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from benchmarks.harness import Row, gain
from benchmarks.robustness.workers import Experiment, Job, Played, between, loaded
from privfl import Federation, aggregators, attacks
from privfl.audit.detection import detections
from privfl.config import AuditConfig
from privfl.core import LocalPlan, Seeds
from privfl.data import Dirichlet
from privfl.engine import Attacker, AttackSchedule
from privfl.models import initialised, mlp
from privfl.training import LocalSGD

N, LIARS, BEFORE, ROUNDS = 20, 2, 8, 14
IMAGES, TEST_IMAGES = 10_000, 2_000
Figures = Mapping[str, float]
DETECTORS: Mapping[str, Callable[[], tuple[Any, Sequence[Any]]]] = {
    "no defence": lambda: (aggregators.Mean(), ()),
    "FLAME": lambda: (aggregators.FLAME(), ()),
    "FLDetector": lambda: (aggregators.Mean(), (aggregators.FLDetector(window=4),)),
    "FreqFed": lambda: (aggregators.FreqFed(), ()),
    "RFLBAT": lambda: (aggregators.RFLBAT(), ()),
    "Multi-metrics": lambda: (aggregators.MultiMetrics(), ()),
}
HOW = attacks.AttackTraining(lr=0.1, epochs=2, batch_size=32, poisoned=10)
LARGE = attacks.AttackTraining(lr=0.1, epochs=2, batch_size=128, poisoned=40)
SQUARE = attacks.PixelPattern(target=2, boxes=((0, 0, 4, 4),))
ADAPTIVE = "constrain-and-scale (adaptive)"
BACKDOORS: Mapping[str, Callable[[], Any]] = {
    "square": lambda: attacks.ModelReplacement(SQUARE, HOW),
    "distributed": lambda: attacks.ModelReplacement(attacks.DBA(target=2), HOW),
    "blended": lambda: attacks.ModelReplacement(attacks.Blended(target=2), HOW),
    "sample-specific": lambda: attacks.ModelReplacement(attacks.SampleSpecific(target=2), HOW),
    "Neurotoxin": lambda: attacks.Neurotoxin(SQUARE, HOW),
    "Chameleon": lambda: attacks.Chameleon(SQUARE, LARGE, epochs=2),
    "A3FL": lambda: attacks.A3FL(
        target=2, training=LARGE, size=4, top=0, left=0, epochs=4, renew=2, unlearning=1
    ),
    "IBA": lambda: attacks.IBA(target=2, training=LARGE, epsilon=0.1, epochs=1),
    "LIRA": lambda: attacks.LIRA(target=2, training=LARGE, epsilon=0.1, turns=1),
    ADAPTIVE: lambda: attacks.ConstrainAndScale(SQUARE, HOW, gamma=1.0, alpha=0.3),
}
NOBODY = "nobody attacks"
BY_DATA: Mapping[str, Any] = {
    "square": SQUARE,
    "distributed": attacks.DBA(target=2),
    "blended": attacks.Blended(target=2),
    "sample-specific": attacks.SampleSpecific(target=2),
}
"""Triggers whose base rate a model that nobody attacked tells."""


def attacked(detector: str, backdoor: str, seed: int) -> Figures:
    """Backdoor (or triggers' base rates) and main task after 14 rounds, TPR and FPR of the last 6,
    in which liars attack: 10,000 images by Dirichlet 0.5, an MLP of 64, 10 steps of 32 at 0.1.
    """
    split, seeds = loaded("mnist"), Seeds(seed)
    train = split.train.take(torch.randperm(60_000, generator=seeds.generator("drawn"))[:IMAGES])
    test = split.test.take(range(TEST_IMAGES))
    parts = Dirichlet(alpha=0.5, min_size=32)(train, N, seeds.generator("partition"))
    model = initialised(mlp, split.shape, split.classes, seed=seed, hidden=(64,))
    rule, seats = DETECTORS[detector]()
    made = BACKDOORS.get(backdoor)
    liars = frozenset(range(LIARS))
    attackers = [] if made is None else [Attacker("a", made(), liars, AttackSchedule(BEFORE))]
    run = Federation(
        model,
        [train.take(part) for part in parts],
        test,
        rounds=ROUNDS,
        training=LocalSGD(lr=0.1, plan=LocalPlan(32, steps=10), weighting="uniform"),
        aggregator=rule,
        defences=seats,
        attackers=attackers,
        seed=seed,
        executor="stacked",
        audit=AuditConfig(keep=[], evaluate_every=ROUNDS),
    ).run()
    measures = run.history[-1].measures
    figures = {name: measures[f"a: {name}"] for name in ("backdoor", "main") if attackers}
    if not attackers:
        based = {how: one.measure(model, test)["backdoor"] for how, one in BY_DATA.items()}
        figures = {"main": run.accuracy, **{f"base rate, {how}": r for how, r in based.items()}}
    for one in detections(run.history):
        if one.null_fpr is not None and not attackers:
            figures["FPR"] = one.null_fpr.value
        told = {"TPR": one.tpr, "FPR": one.fpr, "AUC": one.auc}
        figures |= {name: figure.value for name, figure in told.items() if figure is not None}
    return figures


def each_way(seeds: Sequence[int]) -> Sequence[Job]:
    ways = (*BACKDOORS, NOBODY)
    return [(detector, how, seed) for detector in DETECTORS for how in ways for seed in seeds]


def backdoors(played: Played) -> Iterable[Row]:
    """Each detector under each backdoor, the one made to be inconspicuous among them."""
    found: dict[tuple[str, str], list[Figures]] = {}
    for (detector, how, _), figures in played.runs:
        found.setdefault((detector, how), []).append(figures)
    for (detector, how), over_seeds in found.items():
        plain = found["no defence", how]
        for name in dict.fromkeys(name for figures in over_seeds for name in figures):
            values = [figures[name] for figures in over_seeds if name in figures]
            beside = [figures[name] for figures in plain if name in figures] or [0.5]
            what = f"{detector}, {how}: {name}"
            peer = "chance" if name in ("TPR", "FPR", "AUC") else "no defence"
            yield gain(
                "backdoors", peer, what, statistics.mean(values), statistics.mean(beside) or 1e-3
            )
            yield between("backdoors", what, values)


BACKFED = Experiment(attacked, each_way, backdoors, quick=1)
