"""Privacy Meter in a folder of its own, `.venv-privacy-meter` at the root of the checkout, laid
over this environment when it is asked for.

Its release declares no dependency; what its PyTorch half imports (numpy, scipy, scikit-learn,
torch, Opacus) is here already. It imports tensorflow at the top without using it there: an empty
module of that name stands in while it is imported, and is gone after.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from benchmarks.beside import lay_over

FOLDER = ".venv-privacy-meter"
REQUIREMENTS = ("privacy-meter==1.0.1",)
MODULES = (
    "audit",
    "constants",
    "dataset",
    "hypothesis_test",
    "information_source",
    "information_source_signal",
    "metric",
    "model",
)


def privacy_meter() -> Any:
    """The package, with these modules of it, installed first if it is not there.

    Raises:
        ImportError: it cannot be installed.
    """
    lay_over(FOLDER, REQUIREMENTS)
    if "tensorflow" in sys.modules:
        return _imported()
    sys.modules["tensorflow"] = ModuleType("tensorflow")
    try:
        return _imported()
    finally:
        del sys.modules["tensorflow"]


def _imported() -> Any:
    for name in MODULES:
        importlib.import_module(f"privacy_meter.{name}")
    return importlib.import_module("privacy_meter")
