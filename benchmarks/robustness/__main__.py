"""The cases of `benchmarks.robustness`."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.robustness.backdoors import BACKFED
from benchmarks.robustness.detectors import DETECTED, FORETOLD
from benchmarks.robustness.devices import DEVICES
from benchmarks.robustness.evading import EVADING
from benchmarks.robustness.fedsecurity import FEDSECURITY
from benchmarks.robustness.grid import GRID
from benchmarks.robustness.heat import WORST
from benchmarks.robustness.inspecting import INSPECTED
from benchmarks.robustness.longevity import LONGEVITY
from benchmarks.robustness.nets import NETS
from benchmarks.robustness.repeated import REPEATED
from benchmarks.robustness.semantic import SEMANTIC
from benchmarks.robustness.single_shot import SINGLE_SHOT
from benchmarks.robustness.tails import TAILS
from benchmarks.robustness.wider import WIDER, WIDER_PATH
from benchmarks.robustness.words import WORDS
from benchmarks.robustness.workers import Experiment, main

EXPERIMENTS: Mapping[str, Experiment] = {
    "semantic": SEMANTIC,
    "longevity": LONGEVITY,
    "words": WORDS,
    "single_shot": SINGLE_SHOT,
    "evading": EVADING,
    "repeated": REPEATED,
    "tails": TAILS,
    "inspect": INSPECTED,
    "nets": NETS,
    "fedsecurity": FEDSECURITY,
    "wider": WIDER,
    "wider_path": WIDER_PATH,
    "devices": DEVICES,
    "flanders": FORETOLD,
    "backdoors": BACKFED,
    "detectors": DETECTED,
    "heat": WORST,
    "grid": GRID,
}
"""Those with long runs first, so that no core waits for one at the end."""

if __name__ == "__main__":
    main(EXPERIMENTS)
