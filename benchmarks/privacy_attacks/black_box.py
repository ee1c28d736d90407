"""Property inference from the answers of released models."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.harness import Row, gain
from benchmarks.privacy_attacks.runs import mean
from privfl import Federation
from privfl.attacks import BlackBoxProperty, PropertyInference
from privfl.audit import audit

CONFIG = {
    "data": {"name": "digits", "clients": 10},
    "model": {"name": "mlp", "hidden": [32]},
    "training": {"name": "sgd", "lr": 0.1, "epochs": 2, "batch_size": 16},
    "bound": {"name": "clip", "l2": 2.0},
    "rounds": 1,
    "executor": "stacked",
}
SEEN: dict[str, tuple[str, dict[str, object]]] = {
    "a client, over secagg": (
        "client(0)",
        {"channel": {"name": "secagg", "fidelity": "ideal"}},
    ),
    "a client, noise .01 at each client": (
        "client(0)",
        {
            "mechanism": {"name": "local_gaussian", "noise_multiplier": 0.0025},
            "training": {**CONFIG["training"], "weighting": "uniform"},
            "relation": "replace_one",
        },
    ),
}


def black_box(quick: bool) -> Iterable[Row]:
    """20 releases of one round, in 10 of them half of 10 clients mirror 30 % of their digits:
    which, by 719 queries at most, beside who reads the mean update off two models.
    """
    attacks = {
        "black box": BlackBoxProperty(share=0.15),
        "mean update": PropertyInference(target="sum"),
    }
    for who, (adversary, changes) in SEEN.items():
        for partition in ({"name": "iid"}, {"name": "dirichlet", "alpha": 1.0}):
            areas: dict[str, list[float]] = {name: [] for name in attacks}
            for seed in range(1 if quick else 4):
                data = {**CONFIG["data"], "partition": partition}
                config = {**CONFIG, **changes, "data": data, "seed": seed}
                report = audit(
                    Federation.from_config(config),
                    adversaries=[adversary],
                    stream=(),
                    probe=(),
                    properties=tuple(attacks.values()),
                    seed=seed,
                    lies=None,
                )
                for name, finding in zip(attacks, report.findings, strict=True):
                    if finding.value is None:
                        raise RuntimeError(f"{name}: {finding.reason}")
                    areas[name].append(finding.value.value)
            for name, found in areas.items():
                case = f"{who}, {partition['name']}: {name}"
                yield gain(case, "the prior alone", "AUC", mean(found), 0.5)
