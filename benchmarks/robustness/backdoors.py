"""Detectors beside backdoors, as BackFed's table has them, cut to a CPU: MNIST, a small net, and
two liars of twenty who attack a model that was trained before.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.harness import Row, gain
from benchmarks.robustness.workers import SEEDS, between, spread_out
from privfl import Federation, aggregators, attacks
from privfl.audit.detection import detections
from privfl.config import AuditConfig
from privfl.core import LocalPlan, Seeds
from privfl.data import Dirichlet, load
from privfl.engine import Attacker, AttackSchedule
from privfl.models import initialised, mlp
from privfl.training import LocalSGD

N, LIARS, BEFORE, ROUNDS = 20, 2, 8, 14
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
SQUARE = attacks.PixelPattern(target=2, boxes=((0, 0, 4, 4),))
ADAPTIVE = "constrain-and-scale (adaptive)"
BACKDOORS: Mapping[str, Callable[[], Any]] = {
    "square": lambda: attacks.ModelReplacement(SQUARE, HOW),
    "distributed": lambda: attacks.ModelReplacement(attacks.DBA(target=2), HOW),
    "blended": lambda: attacks.ModelReplacement(attacks.Blended(target=2), HOW),
    "sample-specific": lambda: attacks.ModelReplacement(attacks.SampleSpecific(target=2), HOW),
    "Neurotoxin": lambda: attacks.Neurotoxin(SQUARE, HOW),
    ADAPTIVE: lambda: attacks.ConstrainAndScale(SQUARE, HOW, gamma=1.0, alpha=0.3),
}


def attacked(detector: str, backdoor: str, seed: int) -> Figures:
    """Backdoor and main task after 14 rounds of which liars attack in the last 6, TPR and FPR:
    Dirichlet 0.5, an MLP of 64, 10 steps of 32 at 0.1.
    """
    split, seeds = load("mnist"), Seeds(seed)
    parts = Dirichlet(alpha=0.5, min_size=32)(split.train, N, seeds.generator("partition"))
    model = initialised(mlp, split.shape, split.classes, seed=seed, hidden=(64,))
    (rule, seats), attack = DETECTORS[detector](), BACKDOORS[backdoor]()
    run = Federation(
        model,
        [split.train.take(part) for part in parts],
        split.test,
        rounds=ROUNDS,
        training=LocalSGD(lr=0.1, plan=LocalPlan(32, steps=10), weighting="uniform"),
        aggregator=rule,
        defences=seats,
        attackers=[Attacker("a", attack, frozenset(range(LIARS)), AttackSchedule(first=BEFORE))],
        seed=seed,
        executor="stacked",
        audit=AuditConfig(keep=[], evaluate_every=1000),
    ).run()
    figures = dict(attack.measure(model, split.test))
    for one in detections(run.history):
        told = {"TPR": one.tpr, "FPR": one.fpr, "AUC": one.auc}
        figures |= {name: figure.value for name, figure in told.items() if figure is not None}
    return figures


def backdoors(quick: bool) -> Iterable[Row]:
    """Each detector under each backdoor, the one made to be inconspicuous among them."""
    seeds = SEEDS[:1] if quick else SEEDS
    jobs = [(detector, how, seed) for detector in DETECTORS for how in BACKDOORS for seed in seeds]
    found: dict[tuple[str, str], list[Figures]] = {}
    for (detector, how, _), figures in spread_out(attacked, jobs):
        found.setdefault((detector, how), []).append(figures)
    for (detector, how), over_seeds in found.items():
        plain = found["no defence", how]
        for name in ("backdoor", "main", "TPR", "FPR", "AUC"):
            values = [figures[name] for figures in over_seeds if name in figures]
            if not values:
                continue
            beside = [figures[name] for figures in plain if name in figures] or [0.5]
            what = f"{detector}, {how}: {name}"
            peer = "no defence" if name in ("backdoor", "main") else "chance"
            yield gain("backdoors", peer, what, statistics.mean(values), statistics.mean(beside))
            yield between("backdoors", what, values)
