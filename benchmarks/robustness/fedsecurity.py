"""FedSecurity's experiments 1, 2, 3 and 7."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from benchmarks.harness import Row, cost, gain
from benchmarks.robustness.figures import save
from benchmarks.robustness.workers import Experiment, Job, Played, between, loaded
from privfl import Federation, aggregators, attacks
from privfl.config import AuditConfig
from privfl.core import LocalPlan, Seeds
from privfl.data import Dirichlet
from privfl.engine import Attacker, AttackSchedule
from privfl.models import initialised, mlp
from privfl.training import LocalSGD

HARM: Mapping[str, Callable[[], Any] | None] = {
    "none": None,
    "label flip": lambda: attacks.LabelFlip(pairs=((3, 9), (2, 1))),
    "flip": attacks.FlippedWeights,
    "zero": attacks.ZeroWeights,
    "random": attacks.RandomWeights,
    "AGR-tailored on the path (adaptive)": attacks.AGRTailored,
}
DEFENCE: Mapping[str, Callable[[int], Any]] = {
    "FedAvg": lambda f: aggregators.Mean(),
    "5-Krum": lambda f: aggregators.Krum(f=max(f, 1), m=5),
    "RFA": lambda f: aggregators.RFA(),
    "FoolsGold": lambda f: aggregators.FoolsGold(bound=math.inf),  # as FedML has it
}
EXPERIMENTS = {
    "1: attacks": [("FedAvg", harm, 1) for harm in HARM if "adaptive" not in harm],
    "2: defences, no attack": [(rule, "none", 1) for rule in DEFENCE],
    "3: defences, labels flipped": [(rule, "label flip", 1) for rule in DEFENCE],
    "3: defences, random weights": [(rule, "random", 1) for rule in DEFENCE],
    "7: adversaries, random weights": [("5-Krum", "random", k) for k in (1, 2, 3)],
}
ADAPTIVE = [(rule, "AGR-tailored on the path (adaptive)", 1) for rule in DEFENCE]
"""Not of the paper: who tries candidates on the rule itself."""
ROUNDS, EVERY = 30, 3


def fedsecurity_team(harm: str, k: int, seeds: Seeds) -> list[Attacker]:
    """The paper's attackers: those that lie about weights are k other clients every round, flipped
    labels stay where they are.
    """
    made = HARM[harm]
    if made is None:
        return []
    if harm == "label flip":
        return [Attacker(harm, made(), frozenset(range(k)))]
    drawn = [
        torch.randperm(10, generator=seeds.generator("team", number))[:k].tolist()
        for number in range(ROUNDS)
    ]
    return [
        Attacker(harm, made(), frozenset(team), AttackSchedule(rounds=(number,)))
        for number, team in enumerate(drawn)
    ]


def fedsecurity_run(rule: str, harm: str, k: int, seed: int) -> list[float]:
    """Accuracy over 30 rounds on Fashion-MNIST: 10 clients, Dirichlet 0.5, an MLP of 64, 20 steps
    of 32 at 0.1 a round.
    """
    split, seeds = loaded("fashion_mnist"), Seeds(seed)
    parts = Dirichlet(alpha=0.5, min_size=32)(split.train, 10, seeds.generator("partition"))
    run = Federation(
        initialised(mlp, split.shape, split.classes, seed=seed, hidden=(64,)),
        [split.train.take(part) for part in parts],
        split.test,
        rounds=ROUNDS,
        training=LocalSGD(lr=0.1, plan=LocalPlan(32, steps=20)),
        aggregator=DEFENCE[rule](k),
        attackers=fedsecurity_team(harm, k, seeds),
        seed=seed,
        executor="stacked",
        audit=AuditConfig(keep=[], evaluate_every=EVERY),
    ).run()
    return [record.accuracy for record in run.history if record.accuracy is not None]


def settings(seeds: Sequence[int]) -> Sequence[Job]:
    groups = (*EXPERIMENTS.values(), ADAPTIVE)
    each = dict.fromkeys(setting for group in groups for setting in group)
    return [(*setting, seed) for setting in each for seed in seeds]


def fedsecurity(played: Played) -> Iterable[Row]:
    """The published orders: attacks compared, defences compared, defences under attack, more
    adversaries.
    """
    curves: dict[tuple[str, str, int], list[list[float]]] = {}
    for (rule, harm, k, _), curve in played.runs:
        curves.setdefault((rule, harm, k), []).append(curve)
    finals = {setting: [curve[-1] for curve in seeds] for setting, seeds in curves.items()}
    ours = {setting: statistics.mean(values) for setting, values in finals.items()}
    plain = ours["FedAvg", "none", 1]
    for group, members in {**EXPERIMENTS, "made against the rule": ADAPTIVE}.items():
        for setting in members:
            rule, harm, k = setting
            what = f"{group}: accuracy, {rule}, {harm}" + (
                f" x{k}" if k > 1 or group.startswith("7") else ""
            )
            yield gain("fedsecurity", "FedAvg, no attack", what, ours[setting], plain)
            yield between("fedsecurity", what, finals[setting])
    broken = ours["FedAvg", "random", 1]
    quiet = [ours[rule, "none", 1] for rule in DEFENCE if rule != "FedAvg"]
    yield gain(
        "fedsecurity",
        "goal",
        "1: points that random weights cost FedAvg",
        100 * (plain - broken),
        10.0,
        target=1.0,
    )
    yield gain(
        "fedsecurity",
        "goal",
        "1: published order (none, flip, zero, random)",
        float(_falls(ours)),
        1.0,
        target=1.0,
    )
    yield cost(
        "fedsecurity",
        "goal",
        "1: points that flipped labels cost",
        _lost(plain, ours["FedAvg", "label flip", 1]),
        2.0,
        target=1.0,
    )
    yield gain(
        "fedsecurity",
        "goal",
        "2: defences of 3 that cost accuracy",
        float(sum(one < plain for one in quiet)),
        3.0,
        target=1.0,
    )
    yield cost(
        "fedsecurity",
        "goal",
        "3: points under no attack, 5-Krum, random",
        _lost(plain, ours["5-Krum", "random", 1]),
        5.0,
        target=1.0,
    )
    yield gain(
        "fedsecurity",
        "FedAvg attacked",
        "3: 5-Krum restores under random",
        ours["5-Krum", "random", 1],
        broken,
        target=1.1,
    )
    yield gain(
        "fedsecurity",
        "1 adversary",
        "7: 5-Krum with 3",
        ours["5-Krum", "random", 3],
        ours["5-Krum", "random", 1],
        target=0.95,
    )
    _draw_fedsecurity(curves)


def _falls(ours: Mapping[tuple[str, str, int], float]) -> bool:
    order = [ours["FedAvg", harm, 1] for harm in ("none", "flip", "zero", "random")]
    return all(a >= b for a, b in pairwise(order))


def _lost(before: float, after: float) -> float:
    """Points of accuracy lost; a hundredth where none is."""
    return max(100 * (before - after), 1e-2)


def _draw_fedsecurity(curves: Mapping[tuple[str, str, int], Sequence[Sequence[float]]]) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, 3, figsize=(12, 6.8), sharex=True, sharey=True, layout="constrained"
    )
    *used, spare = axes.flat
    for axis, (group, members) in zip(used, EXPERIMENTS.items(), strict=True):
        for rule, harm, k in members:
            each = torch.tensor(curves[rule, harm, k])
            rounds = [min(EVERY * i, ROUNDS - 1) + 1 for i in range(each.shape[1])]
            label = {"1": harm, "2": rule, "3": rule, "7": f"{k} of 10"}[group[0]]
            (line,) = axis.plot(rounds, each.mean(dim=0), label=label)
            axis.fill_between(
                rounds, each.amin(dim=0), each.amax(dim=0), color=line.get_color(), alpha=0.15
            )
        axis.set(title=f"Experiment {group}", xlabel="round", ylabel="test accuracy", ylim=(0, 0.9))
        axis.tick_params(labelbottom=True, labelleft=True)
        axis.grid(alpha=0.3)
        axis.legend(loc="lower right", ncols=2, fontsize=9)
    spare.axis("off")
    about = (
        "Fashion-MNIST, 10 clients, Dirichlet 0.5,\nMLP of 64, 20 steps of 32 at rate 0.1 a"
        f" round.\n\nLines: mean of {len(next(iter(curves.values())))} seeds; bands: least and"
        " most.\n1 client of 10 attacks where not said,\nanother one in every round\n(flipped"
        " labels stay with theirs)."
    )
    spare.text(0.0, 0.5, about, va="center", fontsize=11, transform=spare.transAxes)
    save(figure, "fedsecurity.png")


FEDSECURITY = Experiment(fedsecurity_run, settings, fedsecurity)
