"""What audits used to call blind: rows of groups, and rows whose batch size nobody tells."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.harness import Row, gain
from privfl import Federation
from privfl.attacks import GradientInversion, LinearLeakage, UpdateMembership
from privfl.audit import Finding, audit
from privfl.config import load as config_of

HYBRIDS = Path(__file__).parents[2] / "examples" / "audit-hybrids.yaml"
PRIVATE = {
    "data": {"name": "digits", "clients": 20, "partition": {"name": "iid"}},
    "model": {"name": "mlp", "hidden": [32]},
    "training": {"name": "sgd", "lr": 0.1, "weighting": "uniform"},
    "bound": {"name": "clip", "l2": 1.0},
    "mechanism": {"name": "gaussian", "noise_multiplier": 1.0},
    "aggregator": {"name": "mean", "weighted": False},
    "rounds": 1,
    "executor": "stacked",
}


def _value(finding: Finding) -> float:
    return float("nan") if finding.value is None else finding.value.value


def honest(quick: bool) -> Iterable[Row]:
    """The server under groups of 2 and of 5 of `examples/audit-hybrids.yaml`, and a server that
    reads raw rows before it adds the noise of client-level privacy.
    """
    config = config_of(HYBRIDS)
    base = {name: told for name, told in config.model_dump().items() if name != "audit"}
    for size, area, decibels in ((2, 0.8, 30.0), (5, None, None)):
        layer = config.audit.layers[f"groups of {size}, median"]
        report = audit(
            Federation.from_config({**base, **layer, "audit": {"keep": "all"}}),
            adversaries=["server"],
            stream=(UpdateMembership(),),
            probe=(LinearLeakage(),),
            properties=(),
        )
        samples, members = report.findings
        case = f"groups of {size}, the server"
        wanted = None if area is None else 1.0
        peer = "must reach" if wanted else "shown"
        yield gain(
            f"{case}: members against their own client's samples",
            peer,
            "AUC",
            _value(members),
            area or 0.5,
            wanted,
        )
        yield gain(
            f"{case}: one sample a client, closed form",
            peer,
            "PSNR, dB",
            _value(samples),
            decibels or 12.0,
            wanted,
        )
    report = audit(
        Federation.from_config({**PRIVATE, "audit": {"keep": "all"}}),
        adversaries=["server"],
        stream=(),
        probe=(LinearLeakage(), GradientInversion(iterations=300 if quick else 1000)),
        properties=(),
    )
    case = "client-level privacy, rows read, batch size hidden"
    exact, near = (_value(finding) for finding in report.findings)
    yield gain(f"{case}: closed form", "must reach", "PSNR, dB", exact, 40.0, 1.0)
    yield gain(f"{case}: matching", "shown", "PSNR, dB", near, 40.0)
