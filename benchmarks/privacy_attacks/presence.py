"""Whether a client's data are in the model, where rows, pairs, sums or noised sums are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.harness import Row, gain
from privfl import Federation
from privfl.attacks import ClientPresence
from privfl.audit import audit
from privfl.audit.intervals import Figure

CONFIG: Mapping[str, Any] = {
    "data": {"name": "digits", "clients": 10, "partition": {"name": "dirichlet", "alpha": 1.0}},
    "model": {"name": "mlp", "hidden": [32]},
    "training": {"name": "sgd", "lr": 0.3, "epochs": 2, "batch_size": 16, "weighting": "uniform"},
    "bound": {"name": "clip", "l2": 1.0},
    "aggregator": {"name": "mean", "weighted": False},
    "rounds": 3,
    "executor": "stacked",
}
LAYERS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "secagg": {"channel": "secagg"},
    "secagg in pairs": {"channel": {"name": "bucketed_secagg", "size": 2}},
    "secagg, noise in shares, multiplier 1": {
        "channel": "secagg",
        "mechanism": {"name": "distributed_discrete_gaussian", "noise_multiplier": 1.0},
    },
}
ATTACKS = (ClientPresence("loss"), ClientPresence(), ClientPresence(target="sum"))


def presence(quick: bool) -> Iterable[Row]:
    """The server and a client, each with every presence attack: the greatest area of those that
    have an answer, and the ends of its interval, beside chance. Losses at released models stand
    alone too. One seed.
    """
    layers = {
        name: Federation.from_config({**CONFIG, **changes, "audit": {"keep": "all"}})
        for name, changes in LAYERS.items()
    }
    report = audit(
        layers,
        adversaries=["server", "client(0)"],
        stream=(),
        probe=(),
        properties=(),
        presence=ATTACKS,
        lies=None,
    )
    for name in layers:
        told = [one for one in report.findings if one.layer == name and one.value is not None]
        if not told:
            raise RuntimeError(f"{name}: no presence attack had an answer")
        losses = [one for one in told if "loss" in one.attack]
        for case, those in ((name, told), (f"{name}, losses at released models", losses)):
            worst = max(those, key=lambda one: _figure(one.value).value)
            area = _figure(worst.value)
            said = f"{case}: {worst.adversary}, {worst.attack}, {worst.verdict}"
            yield gain(said, "chance", "AUC", area.value, 0.5)
            yield gain(said, "chance", "AUC, lower end", area.low, 0.5)
            yield gain(said, "chance", "AUC, upper end", area.high, 0.5)


def _figure(value: Figure | None) -> Figure:
    return Figure(float("nan")) if value is None else value
