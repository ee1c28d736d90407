"""The cases of `benchmarks.robustness`."""

from __future__ import annotations

from benchmarks.harness import main
from benchmarks.robustness.backdoors import backdoors
from benchmarks.robustness.detectors import detectors, flanders
from benchmarks.robustness.devices import devices
from benchmarks.robustness.evading import evading
from benchmarks.robustness.fedsecurity import fedsecurity
from benchmarks.robustness.grid import grid
from benchmarks.robustness.heat import heat
from benchmarks.robustness.inspecting import inspecting
from benchmarks.robustness.nets import nets
from benchmarks.robustness.semantic import semantic
from benchmarks.robustness.single_shot import single_shot
from benchmarks.robustness.tails import tails
from benchmarks.robustness.wider import wider
from benchmarks.robustness.words import words

CASES = {
    "fedsecurity": fedsecurity,
    "single_shot": single_shot,
    "grid": grid,
    "heat": heat,
    "detectors": detectors,
    "flanders": flanders,
    "backdoors": backdoors,
    "semantic": semantic,
    "words": words,
    "devices": devices,
    "wider": wider,
    "nets": nets,
    "evading": evading,
    "tails": tails,
    "inspect": inspecting,
}

if __name__ == "__main__":
    main("robustness", CASES)
