"""A trained model looked at for backdoors."""

from privfl.audit.inspection.inspection import (
    FLAGGED,
    FLAGGED_OVER,
    SMALL_SHARE,
    UNFLAGGED,
    ClassTrigger,
    Inspection,
    InspectionVerdict,
    inspect,
)
from privfl.audit.inspection.neural_cleanse import NeuralCleanse, Triggers, anomaly_index
from privfl.audit.inspection.page import inspection_page, write_inspection_page
from privfl.audit.inspection.record import (
    INSPECT_SCHEMA,
    class_rows,
    inspection_record,
    unit_rows,
    write_inspection,
)
from privfl.audit.inspection.run import inspect_run, trained_model
from privfl.audit.inspection.stimulation import Stimulated, Stimulation

__all__ = [
    "FLAGGED",
    "FLAGGED_OVER",
    "INSPECT_SCHEMA",
    "SMALL_SHARE",
    "UNFLAGGED",
    "ClassTrigger",
    "Inspection",
    "InspectionVerdict",
    "NeuralCleanse",
    "Stimulated",
    "Stimulation",
    "Triggers",
    "anomaly_index",
    "class_rows",
    "inspect",
    "inspect_run",
    "inspection_page",
    "inspection_record",
    "trained_model",
    "unit_rows",
    "write_inspection",
    "write_inspection_page",
]
