"""The single-shot backdoor on models close to convergence."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from benchmarks.harness import Row, cost, gain
from benchmarks.robustness.central import cnn, glance, train_centrally
from benchmarks.robustness.figures import draw_shots
from benchmarks.robustness.once import (
    Memory,
    OnceConstrained,
    OnceReplacing,
    OnceScaling,
    OnceSGD,
)
from benchmarks.robustness.workers import Experiment, Played, Point, between, loaded, one_each
from privfl import Federation, aggregators, attacks
from privfl.config import AuditConfig
from privfl.core import Dataset, LocalPlan, Seeds
from privfl.data import IID, Split, load
from privfl.engine import Attacker
from privfl.models import initialised
from privfl.training import LocalSGD, evaluate

HONEST = LocalSGD(lr=0.05, plan=LocalPlan(64, epochs=2), weighting="uniform")
SQUARE = attacks.PixelPattern(target=2, boxes=((0, 0, 4, 4),))
SQUARE_TRAINING = attacks.AttackTraining(lr=0.05, epochs=3, poisoned=5, decay=0.1, every=1)
TAIL_TRAINING = attacks.AttackTraining(lr=0.02, epochs=6, poisoned=10)
MEDIAN = 0.12
"""M, the honest updates' median norm."""
SIGMAS = (0.0, 0.02, 0.05)
TEAMS = ((1, 0.2), (2, 0.2), (3, 0.5))


def as_mnist(digits: Dataset, digit: int, split: Split) -> Dataset:
    """scikit-learn's scans of a digit, enlarged to 20 x 20 in the middle of 28 x 28, scaled as
    MNIST is.
    """
    found = digits.take((digits.y == digit).nonzero().flatten())
    pixels = load("digits").original(found.x).clamp(0, 1)
    large = functional.pad(
        functional.interpolate(pixels, size=(20, 20), mode="bilinear"), (4, 4, 4, 4)
    )
    return Dataset((large - split.mean[0]) / split.std[0], found.y, 10)


def seven_tail(split: Split) -> attacks.EdgeCase:
    """Sevens of another hand and another scanner, to be called ones."""
    digits = load("digits")
    return attacks.EdgeCase(
        source=7,
        target=1,
        tail=as_mnist(digits.train, 7, split),
        tail_test=as_mnist(digits.test, 7, split),
    )


def one_round(
    model: Any,
    clients: Sequence[Dataset],
    split: Split,
    attack: Any,
    memory: Memory,
    k: int = 1,
    rounds: int = 1,
    **parts: Any,
) -> Point:
    """Trigger and main accuracy after the round(s); the first k clients attack. The model is put
    back afterwards. What was trained before, from the same model on the same samples, is not
    trained again.
    """
    before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    attackers = [Attacker("a", attack, frozenset(range(k)))] if k else []
    audit = AuditConfig(keep=[], evaluate_every=rounds)
    Federation(
        model,
        clients,
        glance(split).test,
        rounds=rounds,
        training=OnceSGD(HONEST.lr, HONEST.plan, weighting="uniform", memory=memory),
        attackers=attackers,
        executor="sequential",
        audit=audit,
        **parts,
    ).run()
    measured = attack.measure(model, split.test)
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(before, model.parameters())
    return measured["backdoor"], measured["main"]


def near_convergence(split: Split, clients: Sequence[Dataset], seed: int) -> Any:
    """A CNN of 20k weights after 4 central epochs and 5 federated rounds of 10."""
    model = initialised(cnn, split.shape, split.classes, seed=seed)
    central = LocalSGD(lr=0.05, plan=LocalPlan(64, epochs=4))
    train_centrally(model, split, central, seed)
    Federation(
        model,
        clients[:10],
        glance(split).test,
        rounds=5,
        training=HONEST,
        seed=seed,
        executor="sequential",
        audit=AuditConfig(keep=[], evaluate_every=100),
    ).run()
    return model


def shots(seed: int) -> dict[str, Point]:
    """Everything that is measured from one model close to convergence: name -> (backdoor, main)."""
    split, seeds = loaded("mnist"), Seeds(seed)
    everyone = [
        split.train.take(part) for part in IID()(split.train, 100, seeds.generator("partition"))
    ]
    model = near_convergence(split, everyone, seed)
    drawn = torch.randperm(split.train.n, generator=seeds.generator("attacker"))[:20000]
    rich, own, honest, tail = (
        split.train.take(drawn),
        everyone[20],
        everyone[11:20],
        seven_tail(split),
    )
    found: dict[str, Point] = {
        "start, square": (
            SQUARE.measure(model, split.test)["backdoor"],
            evaluate(model, split.test).accuracy,
        )
    }
    found["start, tail"] = (
        tail.measure(model, split.test)["backdoor"],
        evaluate(model, split.test).accuracy,
    )
    memory = Memory()
    shot = partial(one_round, model, split=split, memory=memory)
    found["replacement, square"] = shot(
        clients=[rich, *honest], attack=attacks.ModelReplacement(SQUARE, SQUARE_TRAINING)
    )
    found["poisoning, square"] = shot(clients=[own, *honest], attack=SQUARE)
    replaced = OnceReplacing(tail, TAIL_TRAINING, memory=memory)
    found["replacement, tail"] = shot(clients=[own, *honest], attack=replaced)
    found["poisoning, tail"] = shot(clients=[own, *honest], attack=tail)
    for sigma in SIGMAS:
        seat = [aggregators.NormClipping(bound=MEDIAN, sigma=sigma)]
        found[f"clip M, noise {sigma:g}, attacked"] = shot(
            clients=[own, *honest], attack=replaced, defences=seat
        )
        found[f"clip M, noise {sigma:g}, scaled to M (adaptive)"] = shot(
            clients=[own, *honest],
            attack=OnceScaling(tail, TAIL_TRAINING, bound=MEDIAN, memory=memory),
            defences=seat,
        )
        found[f"clip M, noise {sigma:g}, 3 quiet rounds"] = shot(
            clients=[own, *honest], attack=tail, k=0, rounds=3, defences=seat
        )
    found["no clip, 3 quiet rounds"] = shot(clients=[own, *honest], attack=tail, k=0, rounds=3)
    for k, alpha in TEAMS:
        stealthy = OnceConstrained(
            tail, TAIL_TRAINING, gamma=1.0, split="same", alpha=alpha, memory=memory
        )
        cohort = [*everyone[20 : 20 + k], *everyone[11 : 21 - k]]
        found[f"krum, {k} of 10, alpha {alpha}"] = shot(
            clients=cohort, attack=stealthy, k=k, aggregator=aggregators.Krum(f=k)
        )
        found[f"mean, {k} of 10, alpha {alpha}"] = shot(clients=cohort, attack=stealthy, k=k)
    return found


def single_shot(played: Played) -> Iterable[Row]:
    """The backdoor paper's claims, each from the same models close to convergence."""
    each: Sequence[dict[str, Point]] = played.each
    backdoor = {name: [found[name][0] for found in each] for name in each[0]}
    main_task = {name: [found[name][1] for found in each] for name in each[0]}
    for name in each[0]:
        start = "start, square" if "square" in name else "start, tail"
        yield gain(
            "single_shot",
            "before",
            f"backdoor, {name}",
            statistics.mean(backdoor[name]),
            statistics.mean(backdoor[start]) or 1e-3,
        )
        yield between("single_shot", f"backdoor, {name}", backdoor[name])
        yield gain(
            "single_shot",
            "before",
            f"main task, {name}",
            statistics.mean(main_task[name]),
            statistics.mean(main_task[start]),
        )
    for mark in ("square", "tail"):
        shot, start, alone = f"replacement, {mark}", f"start, {mark}", f"poisoning, {mark}"
        lost = 100 * (statistics.mean(main_task[start]) - statistics.mean(main_task[shot]))
        base = (
            0.0 if mark == "square" else 100 * statistics.mean(backdoor[start])
        )  # some tails look like the target to begin with
        gained = 100 * statistics.mean(backdoor[alone]) - base
        yield gain(
            "single_shot",
            "goal",
            f"backdoor %, {shot}",
            100 * statistics.mean(backdoor[shot]),
            95.0,
            target=1.0,
        )
        yield cost(
            "single_shot",
            "goal",
            f"points of main task lost, {shot}",
            max(lost, 1e-2),
            1.0,
            target=1.0,
        )
        what = "backdoor %" if mark == "square" else "points of backdoor gained"
        yield cost("single_shot", "goal", f"{what}, {alone}", max(gained, 1e-2), 15.0, target=1.0)
    picked = 100 * statistics.mean(backdoor["krum, 2 of 10, alpha 0.2"])
    yield gain(
        "single_shot",
        "goal",
        "backdoor % that Krum installs, 2 of 10 collude",
        picked,
        90.0,
        target=1.0,
    )
    draw_shots(SHOWN, backdoor, main_task)


SHOWN = {
    "before the attack": ("start, square", "start, tail"),
    "mean": ("replacement, square", "poisoning, square", "replacement, tail", "poisoning, tail"),
    "norm clipping and noise, attacked": tuple(
        f"clip M, noise {sigma:g}, attacked" for sigma in SIGMAS
    ),
    "the same, 3 rounds without attack": (
        "no clip, 3 quiet rounds",
        *(f"clip M, noise {sigma:g}, 3 quiet rounds" for sigma in SIGMAS),
    ),
    "Krum and mean, constrain-and-scale": tuple(
        f"{rule}, {k} of 10, alpha {alpha}" for k, alpha in TEAMS for rule in ("krum", "mean")
    ),
}

SINGLE_SHOT = Experiment(shots, one_each, single_shot, quick=1)
