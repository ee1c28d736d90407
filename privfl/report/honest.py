"""The same run without its attackers: whom its defences accuse where nobody lies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from privfl.engine import RoundRecord
from privfl.engine.files import write_atomically
from privfl.federation import Federation
from privfl.report.kept import rounds_in

HONEST = "honest_rounds.jsonl"


def play_honest(federation: Federation, folder: Path) -> None:
    """Play a run again without its attackers, and leave the records of its rounds in its folder;
    nothing of it is published.
    """
    scenario = replace(federation.scenario, attackers=())
    records = federation.with_scenario(scenario).run().history
    lines = "".join(json.dumps(record.to_json()) + "\n" for record in records)
    write_atomically(folder / HONEST, lines)


def honest_rounds(folder: Path) -> list[RoundRecord]:
    """The records that `play_honest` left; none where it was not played."""
    return rounds_in(folder / HONEST)
