"""The CPU time of detectors, beside readings of their input."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.aggregators.shared import D, F, N, context, rows
from benchmarks.harness import Row, cost, interleaved
from privfl import aggregators as ours
from privfl.aggregators import Before
from privfl.aggregators.freq_fed import low_frequencies
from privfl.core import Released
from privfl.core.geometry import squared_norms

DETECTORS: dict[str, tuple[Callable[[], Any], float, str]] = {
    "FreqFed": (ours.FreqFed, 22, "check, log2 d stages of the cosine transform, mean"),
    "FLARE": (
        lambda: ours.FLARE(lambda model, context: model[: 100 * 32].view(100, 32).clone()),
        5,
        "check, n models (reading, writing), lengths, mean; not what models make of samples",
    ),
    "MultiMetrics": (ours.MultiMetrics, N, "each row beside each other one"),
    "RFLBAT": (ours.RFLBAT, 3, "check, inner products, mean"),
    "LASA": (
        lambda: ours.LASA([D // 2, D // 4, D // 4]),
        4,
        "norms, least entries, what is left, mean",
    ),
    "FLDetector": (ours.FLDetector, 4, "rows, last rows, keeping them, 20 vectors thrice"),
    "FLANDERS": (
        lambda: ours.FLANDERS(F),
        22,
        "check, handing on, 10 fits of all pairs of 450 columns of 500 by 500",
    ),
    "FLANDERS, last": (
        lambda: ours.FLANDERS(F, forecast="last"),
        2,
        "check, handing on",
    ),
}
"""How often each must read its input, and for what. What is as large as the input counts as its
reading: a stage of a fast transform, or for each row all others.
"""


def detectors(quick: bool) -> Iterator[Row]:
    """Detectors beside one reading of their input, its norms, as often as their formulas read it;
    those that look back in their twelfth round.
    """
    data, rng = rows(), torch.Generator().manual_seed(1)
    reading = interleaved({"ours": lambda: squared_norms(data.values)}, 5, clock=time.process_time)
    for name, (make, times, reads) in DETECTORS.items():
        one, here = make(), context(D)
        if isinstance(one, Before):
            state = one.init()
            for _ in range(12):
                last = {"delta": Released(-0.1 * here.parameters)}
                at = torch.randn(D, generator=rng)
                here = replace(here, parameters=at, released=last)
                before, state = state, one.before(data, state, here)[1]
            run = partial(one.before, data, before, here)
        else:
            run = partial(one.step, data, None, here)
        seconds = interleaved({"ours": run}, 1 if quick else 3, clock=time.process_time)["ours"]
        what = f"{name}: CPU seconds, n={N} d={D}"
        peer = f"{times:g} readings: {reads}"
        yield cost("detectors", peer, what, seconds, times * reading["ours"], target=1 / 3)
    transforms = {"ours": partial(low_frequencies, data.values)}
    alone = interleaved(transforms, 1 if quick else 3, clock=time.process_time)["ours"]
    what = f"FreqFed's cosine transforms alone: CPU seconds, n={N} d={D}"
    yield cost("detectors", "one reading", what, alone, reading["ours"])
