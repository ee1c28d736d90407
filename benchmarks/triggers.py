"""What triggers and clean-label poisons do to a model of scikit-learn's digits, and what injected
traffic does to an intrusion detector.

``python -m benchmarks.triggers [--quick] [--json] [--only CASE]``.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.harness import Row, gain, main
from privfl import Federation
from privfl.attacks import (
    A3FL,
    IBA,
    LIRA,
    AttackTraining,
    Blended,
    BullseyePolytope,
    Chameleon,
    CheapMetaPoison,
    ConvexPolytope,
    FeatureCollision,
    InjectedTraffic,
    LabelConsistent,
    ModelReplacement,
    PixelPattern,
    SampleSpecific,
)
from privfl.config import AuditConfig
from privfl.core import Attack, LocalPlan
from privfl.data import load
from privfl.engine import Attacker, AttackSchedule
from privfl.models import initialised, mlp
from privfl.training import LocalSGD

CLIENTS, ROUNDS, QUIET = 10, 16, 5
SQUARE = PixelPattern(target=2, boxes=((0, 0, 2, 2),))
TRAINING = AttackTraining(lr=0.1, epochs=4, batch_size=32, poisoned=8)
BY_DATA: dict[str, Attack] = {
    "BadNets square": SQUARE,
    "Blended": Blended(target=2),
    "sample-specific 8/255": SampleSpecific(target=2),
    "sample-specific 48/255": SampleSpecific(target=2, epsilon=48 / 255, fraction=0.5),
    "label-consistent 16/255": LabelConsistent(target=2, boxes=((0, 0, 2, 2),)),
    "label-consistent 51/255": LabelConsistent(target=2, boxes=((0, 0, 2, 2),), epsilon=0.2),
}
BY_TRAINING: dict[str, Attack] = {
    "replacement, square": ModelReplacement(SQUARE, TRAINING, gamma=4.0),
    "Chameleon, square": Chameleon(SQUARE, TRAINING, gamma=4.0, radius=None),
    "A3FL": A3FL(target=2, size=2, top=0, left=0, training=TRAINING, gamma=4.0),
    "IBA .06": IBA(target=2, training=TRAINING, gamma=4.0),
    "IBA .2": IBA(target=2, training=TRAINING, gamma=4.0, epsilon=0.2),
    "LIRA .06": LIRA(target=2, training=TRAINING, gamma=4.0),
    "LIRA .2": LIRA(target=2, training=TRAINING, gamma=4.0, epsilon=0.2),
}
VICTIMS = tuple((source, base, i) for source, base in ((8, 1), (9, 3), (4, 9)) for i in (0, 1))
POISONS: dict[str, Any] = {
    "nothing": partial(BullseyePolytope, epsilon=0.0, steps=1),
    "feature collision": partial(FeatureCollision, epsilon=0.4),
    "convex polytope": partial(ConvexPolytope, epsilon=0.4),
    "bullseye polytope": partial(BullseyePolytope, epsilon=0.4),
    "cheap MetaPoison": partial(CheapMetaPoison, epsilon=0.4, steps=50),
}


def played(
    attack: Attack, seed: int, liars: int, when: AttackSchedule, clients: int, rounds: int
) -> Any:
    """The records of a run in which the first clients lie."""
    digits = load("digits")
    data = [digits.train.take(range(i, digits.train.n, clients)) for i in range(clients)]
    return (
        Federation(
            initialised(mlp, digits.shape, digits.classes, seed=seed, hidden=(64,)),
            data,
            digits.test,
            rounds=rounds,
            training=LocalSGD(lr=0.2, plan=LocalPlan(16, epochs=2)),
            attackers=[Attacker("a", attack, frozenset(range(liars)), when)],
            seed=seed,
            executor="sequential",
            audit=AuditConfig(keep=[]),
        )
        .run()
        .history
    )


def by_data(quick: bool) -> Iterator[Row]:
    """4 of 10 clients poison their data in every round."""
    for name, attack in BY_DATA.items():
        yield from _rows("by_data", name, attack, 4, AttackSchedule(), quick)


def by_training(quick: bool) -> Iterator[Row]:
    """1 of 10 trains its own way and sends 4 times its change; it stops 5 rounds before the end."""
    when = AttackSchedule(first=4, last=ROUNDS - QUIET - 1)
    for name, attack in BY_TRAINING.items():
        yield from _rows("by_training", name, attack, 1, when, quick)


def clean_label(quick: bool) -> Iterator[Row]:
    """One client poisons all its samples of a class by at most .4 of the range; alone, and averaged
    with others: how many of its 6 victims are misread, and their mean probability.
    """
    for name, kind in POISONS.items():
        for clients in (1, 2, 4):
            ends = []
            for source, base, i in VICTIMS[:2] if quick else VICTIMS:
                attack = kind(source=source, base=base, victim=i, poisoned=1.0)
                ends.append(played(attack, 0, 1, AttackSchedule(), clients, 6)[-1].measures)
            for what in ("victim", "probability", "main"):
                found = statistics.mean(end[f"a: {what}"] for end in ends)
                yield gain("clean_label", "none", f"{name}, of {clients}, {what}", found, 1.0)


TRAFFIC: dict[str, tuple[int, dict[int, float]]] = {
    "nobody": (0, {0: 0.05}),
    "3 gateways at 5 %": (3, {0: 0.05}),
    "3 from 5 to 20 %": (3, {0: 0.05, 4: 0.1, 8: 0.2}),
    "6 from 5 to 20 %": (6, {0: 0.05, 4: 0.1, 8: 0.2}),
}
"""How many of ten gateways record injected traffic, and its share from which round on."""


def traffic(quick: bool) -> Iterator[Row]:
    """NSL-KDD at 10 gateways, 12 rounds: how much of ``neptune`` passes as normal at the end."""
    split = load("nsl_kdd")
    gateways = [split.train.take(range(i, split.train.n, 10)) for i in range(10)]
    for name, (liars, rates) in TRAFFIC.items():
        ends = []
        for seed in range(1 if quick else 3):
            stages = [
                Attacker(
                    f"from {first}",
                    InjectedTraffic(kind="neptune", poisoned=rate),
                    frozenset(range(liars)),
                    AttackSchedule(first=first, last=first + 3 if len(rates) > 1 else None),
                )
                for first, rate in rates.items()
            ]
            run = Federation(
                initialised(mlp, split.shape, split.classes, seed=seed, hidden=(32,)),
                gateways,
                split.test,
                rounds=12,
                training=LocalSGD(lr=0.1, plan=LocalPlan(32, steps=40)),
                attackers=stages,
                seed=seed,
                executor="sequential",
                audit=AuditConfig(keep=[], evaluate_every=12),
            ).run()
            ends.append(run.history[-1].measures)
        for what in ("backdoor", "main"):
            found = [100 * end[f"from 0: {what}"] for end in ends]
            for word, of in (("", statistics.mean), (", least", min), (", most", max)):
                yield gain("traffic", "none", f"{name}, {what} %{word}", of(found), 100.0)


def _rows(
    case: str, name: str, attack: Attack, liars: int, when: AttackSchedule, quick: bool
) -> Iterator[Row]:
    each = [played(attack, seed, liars, when, CLIENTS, ROUNDS) for seed in range(1 if quick else 3)]
    last = ROUNDS - 1 if when.last is None else when.last
    for what in ("backdoor", "main"):
        first, at, end = (
            [100 * run[number].measures[f"a: {what}"] for run in each]
            for number in (max(when.first - 1, 0), last, ROUNDS - 1)
        )
        before = statistics.mean(first)
        yield gain(case, "before", f"{what} %, {name}", statistics.mean(at), before)
        if last < ROUNDS - 1:
            later = statistics.mean(end)
            yield gain(case, "before", f"{what} %, {name}, {QUIET} rounds later", later, before)


CASES = {
    "by_data": by_data,
    "by_training": by_training,
    "clean_label": clean_label,
    "traffic": traffic,
}

if __name__ == "__main__":
    main("triggers", CASES)
