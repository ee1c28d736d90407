"""Whether hybrids still defend: MNIST under attack, beside the plaintext rules."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.harness import Row, cost, gain, say
from privfl import Federation

N, F, L2 = 50, 10, 2.0
MNIST: dict[str, Any] = {
    "data": {
        "name": "mnist",
        "clients": N,
        "partition": {"name": "dirichlet", "alpha": 0.5, "min_size": 40},
        "root": 200,
    },
    "model": {"name": "mlp", "hidden": [32]},
    "training": {"name": "sgd", "lr": 0.1, "steps": 10, "batch_size": 32, "weighting": "uniform"},
    "rounds": 15,
    "bound": {"name": "clip", "l2": L2},
    "executor": "stacked",
    "audit": {"keep": "none", "evaluate_every": 15},
}
"""50 clients hold MNIST unevenly (Dirichlet 0.5); 10 of them lie. The server has 200 clean samples
for the rules that need a root.
"""
LAST = MNIST["rounds"] - 1
LIARS = {"clients": list(range(F))}
UNCLIPPED = {"name": "skip_clip", **LIARS}
ATTACKS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "sign flip": [{"name": "sign_flip", "scale": 5.0, **LIARS}, UNCLIPPED],
    "ALIE": [{"name": "alie", **LIARS}],
    "Min-Max": [{"name": "min_max", **LIARS}],
    "label flip": [{"name": "label_flip", **LIARS}, {**UNCLIPPED, "scale": 10.0}],
    "model replacement": [
        {
            "name": "model_replacement",
            "backdoor": {"name": "pixel_pattern", "target": 0},
            "gamma": float(N),
            "training": {"epochs": 20, "lr": 0.1},
            "clients": [0],
            "rounds": [LAST],
        },
        {"name": "skip_clip", "clients": [0], "rounds": [LAST]},
    ],
}
"""Ten liars, and one for model replacement, in the last round; those who need length skip the clip,
as a modified client can.
"""
TAILORED: dict[str, list[dict[str, Any]]] = {
    f"AGR-tailored, {share} %": [{"name": "agr_tailored", "clients": list(range(share * N // 100))}]
    for share in (20, 30)
}
"""Attackers that try their rows on the rule that really judges them, the hybrid's own."""
OVER = ("AGR-tailored, 30 %",)
"""More attackers than the rules are set for, and more than half of the groups of 2: shown only."""
MIXED = {"aggregator": "median", "defences": [{"name": "nnm", "f": F}]}
KRUM = {"name": "krum", "f": F, "m": 20}
FOLLOW = {"name": "two_server", "security": "semi_honest"}
"""Quicker; what is opened is the same under `malicious`, bit by bit."""
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mixed median, groups of 2": (
        MIXED,
        {**MIXED, "channel": {"name": "bucketed_secagg", "size": 2}},
    ),
    "multi-Krum, groups of 2": (
        {"aggregator": KRUM},
        {
            "aggregator": {"name": "krum", "f": F, "m": 10},
            "channel": {"name": "bucketed_secagg", "size": 2},
        },
    ),
    "verified mean, two servers": (
        {"aggregator": "mean"},
        {"aggregator": "mean", "channel": FOLLOW},
    ),
    "multi-Krum, two servers": (
        {"aggregator": KRUM},
        {"aggregator": KRUM, "channel": FOLLOW},
    ),
    "FLTrust, two servers": (
        {"aggregator": "fltrust"},
        {"aggregator": "fltrust", "channel": FOLLOW},
    ),
    "FLTrust, encrypted cosine": (
        {"aggregator": "fltrust"},
        {"aggregator": "fltrust", "channel": "encrypted_cosine"},
    ),
}
"""A rule over plaintext rows, and the hybrid that runs it where nobody reads a row."""
SUM: dict[str, Any] = {"channel": {"name": "secagg", "fidelity": "ideal"}}


def outcome(changes: Mapping[str, Any], attack: str, seed: int) -> tuple[float, float]:
    """Test accuracy and, where there is one, the backdoor's success at the end of a run, in per
    cent.
    """
    result = Federation.from_config(
        {**MNIST, **changes, "attacks": {**ATTACKS, **TAILORED}[attack], "seed": seed}
    ).run()
    backdoor = [value for name, value in result.history[-1].measures.items() if "backdoor" in name]
    return 100 * float(result.accuracy or 0.0), 100 * (backdoor[0] if backdoor else 0.0)


def defence(quick: bool) -> Iterator[Row]:
    """MNIST under five attacks: every hybrid beside its plaintext rule (within 2 points), and the
    sum that nobody defends.
    """
    yield from _under(ATTACKS, quick)


def tailored(quick: bool) -> Iterator[Row]:
    """The same under attackers that know the rule, 20 and 30 % of the clients."""
    yield from _under(TAILORED, quick)


def _under(attacks: Mapping[str, Any], quick: bool) -> Iterator[Row]:
    seeds = (0,) if quick else (0, 1, 2)
    for attack in attacks:
        undefended = [outcome(SUM, attack, seed) for seed in seeds]
        say(f"  {attack}: plain SecAgg {_spread(undefended)}")
        for name, (plaintext, hidden) in PAIRS.items():
            theirs = [outcome(plaintext, attack, seed) for seed in seeds]
            ours = [outcome(hidden, attack, seed) for seed in seeds]
            say(f"  {attack}: {name} {_spread(ours)}, in plaintext {_spread(theirs)}")
            case = f"{attack}: {name}"
            yield gain(
                case,
                "its plaintext rule",
                "accuracy %, 2 points less allowed",
                _main(ours) + 2.0,
                _main(theirs),
                target=None if attack in OVER else 1,
            )
            yield gain(case, "plain SecAgg", "accuracy %", _main(ours), _main(undefended))
            if attack == "model replacement":
                yield cost(
                    case, "plain SecAgg", "backdoor %", _backdoor(ours), _backdoor(undefended)
                )


def _main(runs: Sequence[tuple[float, float]]) -> float:
    return statistics.mean(accuracy for accuracy, _ in runs)


def _backdoor(runs: Sequence[tuple[float, float]]) -> float:
    return statistics.mean(backdoor for _, backdoor in runs)


def _spread(runs: Sequence[tuple[float, float]]) -> str:
    accuracies = [accuracy for accuracy, _ in runs]
    return (
        f"{_main(runs):.1f} % ({min(accuracies):.1f}..{max(accuracies):.1f}), backdoor"
        f" {_backdoor(runs):.0f} %"
    )
