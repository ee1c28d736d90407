"""What secure aggregation of sampled clients gives away over many rounds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.harness import Row, gain
from privfl import Federation
from privfl.attacks import LinearLeakage, UpdateMembership
from privfl.audit import Attacks, audit
from privfl.audit.intervals import Figure

RATES = (0.2, 0.05, 0.02, 0.005)
NETS: dict[str, dict[str, Any]] = {
    "MLP 64-32-10": {"name": "mlp", "hidden": [32]},
    "softmax": {"name": "softmax"},
}
ATTACKS = Attacks(
    probe=(LinearLeakage(),),
    rounds=(LinearLeakage(target="rounds"), UpdateMembership(statistic="cosine", target="rounds")),
)


def over_rounds(quick: bool) -> Iterable[Row]:
    """8 clients of digits over secure aggregation, 4 of them drawn for each of 24 rounds, whole
    batches: samples of clients who hold one, and members among samples of clients who hold 90,
    from all sums together, beside blind guesses; by learning rate, with a clip of ten times that.
    Means over seeds.
    """
    for net, model in NETS.items():
        for lr in RATES:
            told: dict[str, list[tuple[float, float]]] = {}
            for seed in range(2 if quick else 5):
                for metric, figures in _audited(model, lr, seed).items():
                    told.setdefault(metric, []).append(figures)
            for metric, values in told.items():
                ours, blind = (sum(each) / len(values) for each in zip(*values, strict=True))
                yield gain(f"{net}, rate {lr}", "blind", metric, ours, blind)


def _audited(model: dict[str, Any], lr: float, seed: int) -> dict[str, tuple[float, float]]:
    federation = Federation.from_config(
        {
            "data": {"name": "digits", "clients": 8, "partition": "iid"},
            "model": model,
            "training": {"name": "fedsgd", "lr": lr, "weighting": "uniform"},
            "bound": {"name": "clip", "l2": 10 * lr},
            "rounds": 24,
            "sampler": {"name": "fixed_size", "size": 4},
            "channel": {"name": "secagg", "fidelity": "ideal"},
            "seed": seed,
            "executor": "sequential",
        }
    )
    report = audit(federation, adversaries=["server"], attacks=ATTACKS, lies=None, seed=seed)
    found: dict[str, tuple[float, float]] = {}
    for one in report.findings:
        if isinstance(one.value, Figure) and "rounds" in one.attack:
            value = one.value.value if one.baseline is None else one.baseline.value
            what = "AUC of members" if one.family == "membership" else "PSNR of samples, dB"
            found[what] = one.value.value, value
            if one.family != "membership":
                rate = one.rates["recognised"].value
                found["samples over 20 dB, and of decoys"] = (
                    rate,
                    max(one.rates["recognised, decoys"].value, 1e-3),
                )
    return found
