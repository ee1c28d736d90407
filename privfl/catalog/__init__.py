"""The one place that names every concrete class: a table for each seam, with room for plug-ins,
and how a part of a config becomes an object.
"""

from privfl.catalog.listing import (
    describe,
    paper_of,
    seat_of,
)
from privfl.catalog.page import page
from privfl.catalog.parts import (
    build,
    checked,
    fields_of,
    needs_of,
)
from privfl.catalog.plugins import JoinedTable, PluggedTable
from privfl.catalog.tables import (
    AGGREGATORS,
    ATTACKS,
    BOUNDS,
    CHANNELS,
    DATASETS,
    DEFENCES,
    GRADIENTS,
    HYBRIDS,
    INFERENCE,
    MECHANISMS,
    MODELS,
    PARTITIONERS,
    PARTS,
    RING_NOISE,
    SAMPLERS,
    SCHEDULES,
    SEAMS,
    SERVER_OPTIMIZERS,
    TRAINING,
    Table,
)
from privfl.catalog.verdicts import (
    MARKS,
    compatibility,
    hybrids_for,
    verdict,
    works,
)

__all__ = [
    "AGGREGATORS",
    "ATTACKS",
    "BOUNDS",
    "CHANNELS",
    "DATASETS",
    "DEFENCES",
    "GRADIENTS",
    "HYBRIDS",
    "INFERENCE",
    "MARKS",
    "MECHANISMS",
    "MODELS",
    "PARTITIONERS",
    "PARTS",
    "RING_NOISE",
    "SAMPLERS",
    "SCHEDULES",
    "SEAMS",
    "SERVER_OPTIMIZERS",
    "TRAINING",
    "JoinedTable",
    "PluggedTable",
    "Table",
    "build",
    "checked",
    "compatibility",
    "describe",
    "fields_of",
    "hybrids_for",
    "needs_of",
    "page",
    "paper_of",
    "seat_of",
    "verdict",
    "works",
]
