"""Attacks that follow one client's updates over rounds, against its own held-out samples."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.harness import Row, gain
from benchmarks.privacy_attacks.runs import mean
from privfl import Federation
from privfl.attacks import FedMIA, Inference, LossThreshold, UpdateMembership
from privfl.audit import audit

BESIDE: dict[str, Inference] = {
    "FedMIA (loss)": FedMIA("loss"),
    "FedMIA (cosine)": FedMIA(),
    "cosine": UpdateMembership(statistic="cosine"),
    "whitened": UpdateMembership(),
    "loss threshold": LossThreshold(),
}
CONFIG = {
    "data": {"name": "digits", "clients": 10},
    "model": {"name": "mlp", "hidden": [64]},
    "training": {"name": "sgd", "lr": 0.1, "epochs": 2, "batch_size": 50},
    "rounds": 15,
    "executor": "stacked",
}


def trajectory(quick: bool) -> Iterable[Row]:
    """The server over the plain channel, 10 clients x 70 digits, 15 rounds of 2 local epochs in
    batches of 50: each client's members against as many other samples of the same client.
    """
    for kind, partition in (
        ("IID", {"name": "iid"}),
        ("labels by Dirichlet 1.0", {"name": "dirichlet", "alpha": 1.0}),
    ):
        areas: dict[str, list[float]] = {name: [] for name in BESIDE}
        rates: dict[str, list[float]] = {name: [] for name in BESIDE}
        for seed in range(1 if quick else 3):
            data = {**CONFIG["data"], "partition": partition}
            federation = Federation.from_config({**CONFIG, "data": data, "seed": seed})
            report = audit(
                federation,
                adversaries=["server"],
                stream=tuple(BESIDE.values()),
                probe=(),
                properties=(),
                seed=seed,
                lies=None,
            )
            for name, finding in zip(BESIDE, report.findings, strict=True):
                if finding.value is None:
                    raise RuntimeError(f"{name}: {finding.reason}")
                areas[name].append(finding.value.value)
                rates[name].append(finding.rates["tpr_at_.01"].value)
        for name in BESIDE:
            yield gain(f"{kind}: {name}", "chance", "AUC", mean(areas[name]), 0.5)
            yield gain(f"{kind}: {name}", "chance", "TPR at 1 % FPR", mean(rates[name]), 0.01)
