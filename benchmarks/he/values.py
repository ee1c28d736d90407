"""A million values and 100 clients, and how runs are timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import interleaved
from privfl.core import RoundPlan

D = 1_000_000
CLIENTS = 100
SAMPLE = 1 << 16
"""Values over which errors of sums of 100 fresh ciphertexts are looked at."""
TOP = (1 << 15) - 1


def plan_of(d: int) -> RoundPlan:
    return RoundPlan(0, tuple(range(CLIENTS)), d - 1, l2=1.0)


def rows(d: int) -> tuple[Any, Any]:
    """The same values twice: integers of 16 bits, and reals in [-1, 1]."""
    integers = np.random.default_rng(0).integers(-TOP, TOP + 1, d)
    return integers, integers / TOP


def timed(quick: bool, runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    return interleaved(runs, 2 if quick else 5, time.process_time)
