"""The report card of an audit on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from privfl.audit import Line
from privfl.audit.card import worst
from privfl.cli.screen import table


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
