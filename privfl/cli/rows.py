"""A finished run as one row of a table, read from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from privfl.core import ConfigError
from privfl.dp import above
from privfl.report import as_written, read_records


def result_row(folder: Path, as_json: bool) -> dict[str, Any]:
    """A row; people read an epsilon that is never less than it is, as in the sentences below.

    Raises:
        ConfigError: the run in the folder has not ended, or a file of it is damaged.
    """
    with as_written(folder):
        return _row(folder, as_json)


def _row(folder: Path, as_json: bool) -> dict[str, Any]:
    records, summary = read_records(folder)
    if not summary:
        raise ConfigError(f"the run in '{folder}' has not ended: privfl run --resume {folder}")
    row = {
        "accuracy": summary["accuracy"],
        "loss": summary["loss"],
        "rounds": summary["rounds"],
        "clients": summary["clients"],
        "parameters": summary["parameters"],
        "fidelity": summary["guarantees"]["channel"]["fidelity"],
        "MB sent": None if summary["bytes_sent"] is None else summary["bytes_sent"] / 1e6,
        "seconds": summary["seconds"],
    }
    if "validation" in summary:
        row = {"validation accuracy": summary["validation"]["accuracy"], **row}
    for line in summary["privacy"]:
        secret = "" if line["as_drawn"] is None else ", with secret coins"
        row[f"epsilon ({line['unit']} level{secret})"] = _bound(line["epsilon"], as_json)
        if secret:
            row[f"epsilon ({line['unit']} level, seed known)"] = _bound(line["as_drawn"], as_json)
    incidents = sum(len(record.incidents) for record in records)
    return {**row, "incidents": incidents, "folder": str(folder)}


def _bound(epsilon: Any, as_json: bool) -> Any:
    return above(epsilon) if isinstance(epsilon, float) and not as_json else epsilon
