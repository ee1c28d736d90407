"""FedSecurity's experiment 10: 70 devices, 7 liars, m-Krum with m = 35."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.harness import Row, cost, gain
from benchmarks.robustness.workers import LOADED, Experiment, Job, Played, between
from privfl.federation import Federation

N, LIARS, M, ROUNDS = 70, 7, 35, 30
KRUM = {"name": "krum", "f": LIARS, "m": M}
LIES: Mapping[str, Mapping[str, Any] | None] = {
    "none": None,
    "random weights": {"name": "random"},
    "AGR-tailored on the path (adaptive)": {"name": "agr_tailored"},
}
RULES: Mapping[str, Any] = {"FedAvg": "mean", "35-Krum": KRUM}


def device_run(rule: str, lie: str, seed: int) -> float:
    """Final accuracy on MNIST: 70 clients, Dirichlet 0.5, softmax regression, 30 rounds of 10 steps
    of 32.
    """
    attack = LIES[lie]
    partition = {"name": "dirichlet", "alpha": 0.5}
    config = {
        "data": {**LOADED, "of": "mnist", "clients": N, "partition": partition},
        "model": "softmax",
        "training": {"name": "sgd", "lr": 0.1, "steps": 10, "weighting": "uniform"},
        "rounds": ROUNDS,
        "aggregator": RULES[rule],
        "attacks": [] if attack is None else [{**attack, "clients": list(range(LIARS))}],
        "seed": seed,
        "executor": "stacked",
        "audit": {"keep": "none", "evaluate_every": ROUNDS},
    }
    return Federation.from_config(config).run().accuracy


def each_rule(seeds: Sequence[int]) -> Sequence[Job]:
    return [(rule, lie, seed) for rule in RULES for lie in LIES for seed in seeds]


def devices(played: Played) -> Iterable[Row]:
    """The published finding: attacked, m-Krum does about as well as nobody attacked."""
    found: dict[tuple[str, str], list[float]] = {}
    for (rule, lie, _), accuracy in played.runs:
        found.setdefault((rule, lie), []).append(accuracy)
    ours = {setting: statistics.mean(values) for setting, values in found.items()}
    plain = ours["FedAvg", "none"]
    for setting, values in found.items():
        what = f"10: accuracy, {', '.join(setting)}"
        yield gain("devices", "FedAvg, no attack", what, ours[setting], plain)
        yield between("devices", what, values)
    lost = 100 * (plain - ours["35-Krum", "random weights"])
    what = "10: points under no attack, 35-Krum, random weights"
    yield cost("devices", "goal", what, max(lost, 1e-2), 5.0, target=1.0)
    broken = ours["FedAvg", "random weights"]
    what = "10: 35-Krum restores under random weights"
    yield gain("devices", "FedAvg attacked", what, ours["35-Krum", "random weights"], broken, 1.0)


DEVICES = Experiment(device_run, each_rule, devices)
