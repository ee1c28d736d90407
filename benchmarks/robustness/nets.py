"""FedSecurity's experiment 6: other nets and data, as far as a CPU goes. The RNN on Shakespeare is
an LSTM with a client a role, the CNN on FEMNIST a CNN on MNIST with a client a writer; ResNet-56 on
CIFAR-100 is left out.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.harness import Row, gain
from benchmarks.robustness.central import cnn
from benchmarks.robustness.workers import Experiment, Job, Played, between, loaded
from privfl import Federation, aggregators, attacks
from privfl.config import AuditConfig
from privfl.core import LocalPlan, Seeds
from privfl.data.shakespeare import Shakespeare
from privfl.engine import Attacker, AttackSchedule
from privfl.models import initialised, lstm
from privfl.training import LocalSGD

ROUNDS = 12


@dataclass(frozen=True)
class Setting:
    """A net and its data: so many of the natural clients, those with most samples."""

    split: Any
    model: Any
    clients: int
    training: LocalSGD


SETTINGS: Mapping[str, Setting] = {
    "LSTM by role": Setting(
        Shakespeare(length=20), partial(lstm, hidden=32), 10, LocalSGD(2.0, LocalPlan(32, steps=20))
    ),
    "CNN by writer": Setting(
        partial(loaded, "mnist"), cnn, 20, LocalSGD(0.05, LocalPlan(16, epochs=1))
    ),
}
RULES: Mapping[str, Any] = {
    "FedAvg": lambda f, n: aggregators.Mean(),
    "m-Krum, m = n / 2": lambda f, n: aggregators.Krum(f=f, m=n // 2),
    "RFA": lambda f, n: aggregators.RFA(),
    "FoolsGold": lambda f, n: aggregators.FoolsGold(),
}
LIES: Mapping[str, Any] = {
    "none": None,
    "random weights": attacks.RandomWeights,
    "AGR-tailored on the path (adaptive)": attacks.AGRTailored,
}
RUNS = [(rule, lie) for rule in RULES for lie in LIES]


def net_run(setting: str, rule: str, lie: str, seed: int) -> float:
    """Accuracy after 12 rounds, a tenth of the clients lying, other ones in every round."""
    chosen, seeds, made = SETTINGS[setting], Seeds(seed), LIES[lie]
    split, n = chosen.split(), chosen.clients
    largest = sorted(split.by_client().values(), key=lambda data: -data.n)[:n]
    f = n // 10
    attackers = []
    for number in range(ROUNDS if made else 0):
        drawn = torch.randperm(n, generator=seeds.generator("team", number))[:f].tolist()
        only = AttackSchedule(rounds=(number,))
        attackers.append(Attacker(lie, made(), frozenset(drawn), only))
    run = Federation(
        initialised(chosen.model, split.shape, split.classes, seed=seed),
        largest,
        split.test.take(range(0, split.test.n, max(1, split.test.n // 2000))),
        rounds=ROUNDS,
        training=chosen.training,
        aggregator=RULES[rule](f, n),
        attackers=attackers,
        seed=seed,
        executor="sequential",
        audit=AuditConfig(keep=[], evaluate_every=ROUNDS),
    ).run()
    return run.accuracy


def each_net(seeds: Sequence[int]) -> Sequence[Job]:
    return [(setting, *run, seed) for setting in SETTINGS for run in RUNS for seed in seeds]


def nets(played: Played) -> Iterable[Row]:
    """Which defences stand random weights on which net."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for (setting, rule, lie, _), accuracy in played.runs:
        found.setdefault((setting, rule, lie), []).append(accuracy)
    for (setting, rule, lie), values in found.items():
        plain = statistics.mean(found[setting, "FedAvg", "none"])
        what = f"6, {setting}: accuracy, {rule}, {lie}"
        yield gain("nets", "FedAvg, no attack", what, statistics.mean(values), plain)
        yield between("nets", what, values)


NETS = Experiment(net_run, each_net, nets, quick=1)
