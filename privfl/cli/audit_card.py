"""The report card of an audit on a terminal, and the name of what was audited."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from privfl.audit import AuditReport, Line
from privfl.audit.card import worst
from privfl.cli.screen import table
from privfl.config import Config


def print_card(lines: Sequence[Line]) -> None:
    """The card on one screen: of one layer its lines; of several, verdicts and first figures in a
    column for each layer, and the worst leak below.
    """
    layers = tuple(dict.fromkeys(line.layer for line in lines))
    if len(layers) == 1:
        table("What each adversary gets at worst", [line.row() for line in lines], False)
        return
    assets = tuple(dict.fromkeys(line.asset for line in lines))
    found = {(line.asset, line.layer): line for line in lines}
    rows = [
        {"asset": asset, **{layer: found[asset, layer].brief for layer in layers}}
        for asset in assets
    ]
    table("What each adversary gets at worst, under each layer", rows, False)
    top = worst(lines)
    if top is not None:
        table("The worst leak", [{"layer": top.layer, **top.row()}], False)


def named_by(
    report: AuditReport, path: Path, overrides: Sequence[str], config: Config
) -> AuditReport:
    """The report with the config's name and data set, and what its layers change."""
    of = path.parent.resolve().name if path.name == "config.yaml" else path.name
    about = {"config": of + (f" with {', '.join(overrides)}" if overrides else "")}
    about |= report.about
    about["data"] = f"{config.data.name}, {report.about['data']}"
    layers = {
        name: {**facts, "config": json.dumps(config.audit.layers.get(name, {})).replace('"', "")}
        for name, facts in report.layers.items()
    }
    kept = {key: facts for key, facts in report.layers.items() if not config.audit.layers.get(key)}
    return replace(report, about=about, layers={**layers, **kept})
