"""An inspection as data: ``inspect.json`` in the schema ``privfl.inspect/1``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from privfl.audit.inspection.inspection import FLAGGED, UNFLAGGED, Inspection
from privfl.engine.files import write_atomically

INSPECT_SCHEMA = "privfl.inspect/1"
"""The schema's name and version. Keys are added within a version, and never taken away or given
another meaning.
"""


def inspection_record(found: Inspection) -> dict[str, Any]:
    """The whole inspection as plain values that JSON has words for; what is not known is null."""
    return {
        "schema": INSPECT_SCHEMA,
        "verdict": found.verdict,
        "why": found.why,
        "means": FLAGGED if found.verdict == "flagged" else UNFLAGGED,
        "limit": found.limit,
        "smaller": found.smaller,
        "by_index_alone": list(found.by_index_alone),
        "complete": found.complete,
        "seconds": found.seconds,
        "data": {
            "of": found.data,
            "images": found.images,
            "held_out": found.held_out,
            "seed": found.seed,
            "span": found.span,
        },
        "neural_cleanse": {"settings": asdict(found.cleanse), "classes": class_rows(found)},
        "stimulation": {"settings": asdict(found.stimulation), "classes": unit_rows(found)},
    }


def class_rows(found: Inspection) -> list[dict[str, Any]]:
    """One row for each class, the largest anomaly index first."""
    return [
        {
            "class": one.target,
            "mask": one.size,
            "index": one.index,
            "share": one.share,
            "flagged": one.flagged,
            "success": one.success,
            "held_out": one.held_out,
        }
        for one in found.classes
    ]


def unit_rows(found: Inspection) -> list[dict[str, Any]]:
    """One row for each class, the one that a single unit lifts most first."""
    return [
        {
            "class": one.target,
            "layer": one.layer,
            "unit": one.unit,
            "elevation": one.elevation,
            "turned": one.turned,
        }
        for one in found.stimulated
    ]


def write_inspection(found: Inspection, folder: Path) -> Path:
    """Write ``inspect.json`` into a folder, which is made if it is not there; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "inspect.json"
    write_atomically(path, json.dumps(inspection_record(found), indent=1, allow_nan=False))
    return path
