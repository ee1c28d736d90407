"""``privfl demo``: real digits, 20 clients, one row for each privacy layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from privfl.cli.running import fresh
from privfl.cli.screen import bar, say, table
from privfl.core import PICTURES, RoundPlan
from privfl.crypto.he.libraries import seal
from privfl.engine.files import refuse_full
from privfl.federation import Federation
from privfl.report import write_report

Json = Annotated[bool, typer.Option("--json", help="One JSON array on stdout.")]
Picture = Annotated[
    Path | None, typer.Option("--picture", help="Also draw the table into this PNG.")
]

Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="A new folder for the run that the page is of; in runs/ unless said."
    ),
]

BASE: dict[str, Any] = {
    "data": {
        "name": "digits",
        "clients": 20,
        "partition": {"name": "dirichlet", "alpha": 1.0, "min_size": 40},
        "root": 100,
    },
    "model": {"name": "mlp", "hidden": [32]},
    "training": {"name": "sgd", "lr": 0.3, "epochs": 2, "batch_size": 16},
    "rounds": 15,
    "executor": "stacked",
    "audit": {"keep": "none", "evaluate_every": 5},
}
"""A small net on scikit-learn's scanned digits, dealt out unevenly; the server keeps 100 clean ones
for the rule that asks for them.
"""

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
    "one-time-pad RLWE": {**CLIP, "channel": "one_time_rlwe"},
    "multi-party RLWE (experimental)": {**CLIP, "channel": "mp_rlwe"},
    "DP-SGD at the clients": DP_SGD,
    "DP-SGD and SecAgg+": {**DP_SGD, **CLIP, "channel": "secagg"},
    "median of SecAgg groups of 2": {
        **CLIP,
        "channel": {"name": "bucketed_secagg", "size": 2},
        "aggregator": "median",
    },
    "two servers, norms proved": {**CLIP, "channel": "two_server"},
    "two servers, multi-Krum on shares": {
        **CLIP,
        "channel": "two_server",
        "aggregator": {"name": "krum", "f": 4, "m": 12},
    },
    "FLTrust under encryption": {**CLIP, "channel": "encrypted_cosine", "aggregator": "fltrust"},
}
"""What each row changes; the last four are robust and private at once."""
ENCRYPTED = ("paillier", "bfv", "ckks", "encrypted_cosine")
"""Channels that need the extra ``he``."""
ON_THE_PAGE = "two servers, multi-Krum on shares"
"""The layer whose run with liars is kept, and has a page."""
LIARS: list[dict[str, Any]] = [
    {"name": "sign_flip", "scale": 5.0, "clients": [0, 1, 2, 3]},
    {"name": "skip_clip", "clients": [0, 1, 2, 3]},
]
"""Four of the 20 clients send five times the opposite of their update, and skip the clip, as a
modified client can.
"""


def demo(as_json: Json = False, picture: Picture = None, out: Out = None) -> None:
    """Train 20 clients on real digits under each privacy layer, all honest and with Byzantine
    clients; needs no download, and leaves the page of one of these runs.
    """
    if picture is not None:
        PICTURES.require()
    folder = out or fresh("demo")
    refuse_full(folder)
    rows: list[dict[str, Any]] = []
    layers = {
        layer: changes
        for layer, changes in LAYERS.items()
        if not (seal.missing and changes.get("channel") in ENCRYPTED)
    }
    with bar("demo", len(layers)) as shown:
        for layer, changes in layers.items():
            federation = Federation.from_config({**BASE, **changes})
            result = federation.run()
            attacked = Federation.from_config({**BASE, **changes, "attacks": LIARS})
            lied_to = attacked.run(folder if layer == ON_THE_PAGE else None)
            rows.append(
                {
                    "privacy layer": layer,
                    "accuracy": round(result.accuracy, 3),
                    "4 of 20 lie": round(lied_to.accuracy, 3),
                    "epsilon": next(iter(result.history[-1].epsilon.values()), None),
                    "the server reads": federation.scenario.facts["the server reads"],
                    "one lying server": _one_liar(federation),
                    "kB a client and round": (
                        result.summary["bytes_sent"]
                        / 1e3
                        / len(result.history)
                        / len(federation.scenario.clients)
                    ),
                    "seconds": result.summary["seconds"],
                }
            )
            shown.step(layer)
    table("20 clients, real digits", rows, as_json)
    if picture is not None:
        _draw(rows, picture)
        say(f"privfl: wrote {picture}")
    for layer in LAYERS.keys() - layers.keys():
        say(f"privfl: '{layer}' was left out: {seal.missing}")
    say(
        "privfl: epsilon is for one sample at delta 1e-5. Next: 'privfl run examples/train.yaml',"
        " 'privfl list'."
    )
    say(
        f"privfl: who reads what, and whom the rule dropped, of '{ON_THE_PAGE}' with 4 liars:"
        f" {write_report(folder)}"
    )


def _one_liar(federation: Federation) -> str:
    """What one server or helper gets by lying, from the channel's record."""
    scenario = federation.scenario
    clients = tuple(scenario.clients)
    plan = RoundPlan(0, clients, scenario.workload.model.d, l2=1.0)
    return scenario.channel.guarantee.one_liar(plan)


def _draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 0.5 * len(rows) + 1.2), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names, shown = [row["privacy layer"] for row in rows][::-1], rows[::-1]
    for offset, key, colour, label in (
        (0.2, "accuracy", "#2f6fb3", "all 20 honest"),
        (-0.2, "4 of 20 lie", "#c2571a", "4 of 20 lie"),
    ):
        _bars(
            left,
            [y + offset for y in range(len(names))],
            [row[key] for row in shown],
            0.36,
            colour,
            label,
        )
    _bars(
        right,
        list(range(len(names))),
        [row["kB a client and round"] for row in shown],
        0.6,
        "#3d9361",
        "",
    )
    left.set_yticks(range(len(names)), names)
    left.set_ylim(-0.6, len(names) - 0.4)
    left.set_title("test accuracy", loc="left", fontsize=10, fontweight="bold")
    right.set_title(
        "kB on all wires, per client and round (log)", loc="left", fontsize=10, fontweight="bold"
    )
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.04), ncols=2, fontsize=8, frameon=False)
    left.set_xlim(0, 1.12)
    right.set_xscale("log")
    right.set_xlim(right=2.5 * max(row["kB a client and round"] for row in rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def _bars(
    axes: Any,
    places: Sequence[float],
    values: Sequence[float],
    height: float,
    colour: str,
    label: str,
) -> None:
    axes.barh(places, values, height=height, color=colour, label=label)
    for place, value in zip(places, values, strict=True):
        axes.annotate(
            f"{value:.3g}",
            (value, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8)
