"""FedSecurity's experiments 4 and 5: clients whose data are alike, and a hundred clients."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.harness import Row, cost, gain
from benchmarks.robustness.workers import LOADED, Experiment, Job, Played, between
from privfl.federation import Federation

ROUNDS, TENTH = 30, 0.1
SETTINGS: Mapping[str, tuple[int, str | Mapping[str, Any]]] = {
    "4: IID": (10, "iid"),
    "5: 100 clients": (100, {"name": "dirichlet", "alpha": 0.5}),
}
PUBLISHED: Mapping[str, Mapping[str, Any] | None] = {
    "none": None,
    "random weights": {"name": "random"},
}
ADAPTIVE: Mapping[str, Mapping[str, Any] | None] = {
    "AGR-tailored on the path (adaptive)": {"name": "agr_tailored"},
}
LIES = {**PUBLISHED, **ADAPTIVE}


def wider_run(setting: str, rule: str, lie: str, seed: int) -> float:
    """Final accuracy on Fashion-MNIST: an MLP of 64, 30 rounds of 20 steps of 32 at 0.1, a tenth of
    the clients lie.
    """
    (clients, partition), attack = SETTINGS[setting], LIES[lie]
    liars = round(TENTH * clients)
    config = {
        "data": {**LOADED, "of": "fashion_mnist", "clients": clients, "partition": partition},
        "model": {"name": "mlp", "hidden": [64]},
        "training": {"name": "sgd", "lr": 0.1, "steps": 20},
        "rounds": ROUNDS,
        "aggregator": {"FedAvg": "mean", "5-Krum": {"name": "krum", "f": liars, "m": 5}}[rule],
        "attacks": [] if attack is None else [{**attack, "clients": list(range(liars))}],
        "seed": seed,
        "executor": "stacked",
        "audit": {"keep": "none", "evaluate_every": ROUNDS},
    }
    return Federation.from_config(config).run().accuracy


def each_setting(lies: Iterable[str], seeds: Sequence[int]) -> Sequence[Job]:
    runs = [(rule, lie) for rule in ("FedAvg", "5-Krum") for lie in lies]
    return [(setting, *run, seed) for setting in SETTINGS for run in runs for seed in seeds]


def by_run(played: Played) -> Mapping[tuple[str, str, str], list[float]]:
    """The accuracies of all seeds by setting, rule and lie."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for (setting, rule, lie, _), accuracy in played.runs:
        found.setdefault((setting, rule, lie), []).append(accuracy)
    return found


def wider(played: Played) -> Iterable[Row]:
    """The published finding: m-Krum stands random weights there as well."""
    found = by_run(played)
    ours = {key: statistics.mean(values) for key, values in found.items()}
    for (setting, rule, lie), values in found.items():
        what = f"{setting}: accuracy, {rule}, {lie}"
        plain = ours[setting, "FedAvg", "none"]
        yield gain("wider", "FedAvg, no attack", what, statistics.mean(values), plain)
        yield between("wider", what, values)
    for setting in SETTINGS:
        krum = ours[setting, "5-Krum", "random weights"]
        lost = 100 * (ours[setting, "FedAvg", "none"] - krum)
        what = f"{setting}: points under no attack, 5-Krum, random weights"
        yield cost("wider", "goal", what, max(lost, 1e-2), 5.0, target=1.0)


def wider_path(played: Played) -> Iterable[Row]:
    """The attack that tries its rows on the rule that judges them."""
    for (setting, rule, lie), values in by_run(played).items():
        what = f"{setting}: accuracy, {rule}, {lie}"
        yield gain("wider_path", "chance", what, statistics.mean(values), 0.1)
        yield between("wider_path", what, values)


WIDER = Experiment(wider_run, partial(each_setting, PUBLISHED), wider)
WIDER_PATH = Experiment(wider_run, partial(each_setting, ADAPTIVE), wider_path, quick=1)
