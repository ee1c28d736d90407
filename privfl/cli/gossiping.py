"""``privfl gossip``: decentralised learning over a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from privfl.cli.running import Json, Out, Settings, fresh
from privfl.cli.screen import say, table
from privfl.federation.threads import torch_threads
from privfl.gossip.config import load_gossip
from privfl.gossip.folder import run_in
from privfl.gossip.play import GossipRecord
from privfl.report.gossip import write_gossip_report


def gossip(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml", help="Its graph, its rule, and what is left.")
    ],
    settings: Settings = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Train without a server: every node of a graph trains, meets its neighbours, and moves.

    Leaves a run folder with every node's model and a report of accuracy, spread, and what nodes
    read of each other.
    """
    told = load_gossip(config, settings or ())
    folder = out or fresh(config.stem)

    def shown(record: GossipRecord) -> None:
        say(
            f"privfl: round {record.round + 1} of {told.run.rounds}: accuracy"
            f" {record.accuracy:.3f}, spread {record.spread:.3g}"
        )

    with torch_threads(told.run.threads):
        run, summary = run_in(folder, told, shown)
    page = write_gossip_report(folder)
    names = ("accuracy", "worst", "loss", "spread", "rounds", "nodes", "parameters")
    row = {name: summary[name] for name in names}
    sent = summary["bytes_sent"]
    row["MB sent"] = None if sent is None else sent / 1e6
    for claim in summary["privacy"]:
        row["epsilon (a node's data)"] = claim.get("epsilon", claim.get("refused"))
    incidents = sum(len(record.incidents) for record in run.records)
    table("Result", [{**row, "incidents": incidents, "folder": str(folder)}], as_json)
    for line in (summary["reads"], *summary["exposed"]):
        say(f"privfl: {line}")
    say(f"privfl: the run is in {folder}, its report in {page}")
