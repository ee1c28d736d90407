"""``privfl demo``: real digits, 20 clients, one row for each privacy layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from privfl.cli.screen import bar, say, table
from privfl.federation import Federation

Json = Annotated[bool, typer.Option("--json", help="One JSON array on stdout.")]
Picture = Annotated[Path | None, typer.Option("--picture", help="Also draw the table into this PNG.")]

BASE: dict[str, Any] = {
    "data": {"name": "digits", "clients": 20, "partition": {"name": "dirichlet", "alpha": 1.0, "min_size": 40}},
    "model": {"name": "mlp", "hidden": [32]},
    "training": {"name": "sgd", "lr": 0.3, "epochs": 2, "batch_size": 16},
    "rounds": 15,
    "executor": "stacked",
    "audit": {"keep": "none", "evaluate_every": 5},
}
"""A small net on scikit-learn's scanned digits, dealt out unevenly."""

CLIP = {"bound": {"name": "clip", "l2": 3.0}}
DP_SGD = {
    "training": {
        "name": "sgd",
        "lr": 0.5,
        "batch_size": 20,
        "steps": 4,
        "gradient": {"name": "dp", "l2": 1.0, "noise_multiplier": 2.0},
    },
    "executor": "sequential",
}

LAYERS: dict[str, dict[str, Any]] = {
    "none": {},
    "two servers, additive shares": {**CLIP, "channel": "additive_sharing"},
    "SecAgg+": {**CLIP, "channel": "secagg"},
    "Paillier, 3072 bits": {**CLIP, "channel": "paillier"},
    "BFV": {**CLIP, "channel": "bfv"},
    "CKKS, flooded": {**CLIP, "channel": "ckks"},
    "multi-party RLWE (experimental)": {**CLIP, "channel": "mp_rlwe"},
    "DP-SGD at the clients": DP_SGD,
    "DP-SGD and SecAgg+": {**DP_SGD, **CLIP, "channel": "secagg"},
}
"""What each row changes."""


def demo(as_json: Json = False, picture: Picture = None) -> None:
    """Train 20 clients on real digits under each privacy layer; needs no download and under 3 minutes."""
    rows: list[dict[str, Any]] = []
    with bar("demo", len(LAYERS)) as shown:
        for layer, changes in LAYERS.items():
            federation = Federation.from_config({**BASE, **changes})
            result = federation.run()
            rows.append(
                {
                    "privacy layer": layer,
                    "accuracy": round(result.accuracy, 3),
                    "epsilon": next(iter(result.history[-1].epsilon.values()), None),
                    "the server reads": federation.scenario.facts["the server reads"],
                    "kB a client and round": result.summary["bytes_sent"] / 1e3 / len(result.history) / len(federation.scenario.clients),
                    "seconds": result.summary["seconds"],
                }
            )
            shown.step(layer)
    table("20 clients, real digits", rows, as_json)
    if picture is not None:
        _draw(rows, picture)
        say(f"privfl: wrote {picture}")
    say("privfl: epsilon is for one sample at delta 1e-5. Next: 'privfl run examples/train.yaml', 'privfl list'.")


def _draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.42 * len(rows) + 1.1), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [row["privacy layer"] for row in rows][::-1]
    for axes, key, title in ((left, "accuracy", "test accuracy"), (right, "kB a client and round", "kB a client sends and round (log)")):
        values = [row[key] for row in rows][::-1]
        axes.barh(names, values, color="#2f6fb3" if key == "accuracy" else "#3d9361", height=0.62)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        for y, value in enumerate(values):
            axes.annotate(f"{value:.3g}", (value, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.tick_params(labelsize=8)
    left.set_xlim(0, 1.12)
    right.set_xscale("log")
    right.set_xlim(right=2.5 * max(row["kB a client and round"] for row in rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
