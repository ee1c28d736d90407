"""How the seconds of rules grow with the number of rows and of columns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.aggregators.shared import context, rows
from benchmarks.harness import Row, cost, say
from privfl import aggregators as ours

CELLS = 1_000_000_000
"""Rows times columns at most: 4 GB of float32."""

GROWTH: dict[str, tuple[Callable[[int], Any], float]] = {
    "krum": (ours.Krum, 2.0),
    "trimmed_mean": (ours.TrimmedMean, 1.0),
    "centered_clipping": (lambda f: ours.CenteredClipping(), 1.0),
}


def curve(quick: bool) -> Iterator[Row]:
    """Nanoseconds a value over n = 10..1000 and d = 1e4..1e7, and the exponents with which seconds
    grow.
    """
    sizes = [(n, d) for n in (10, 30, 100, 300, 1000) for d in (10**4, 10**5, 10**6, 10**7)]
    for n, d in sizes:
        if n * d > CELLS:
            say(f"aggregators: curve: n={n} d={d:.0e} left out: {4 * n * d / 1e9:.0f} GB of rows")
    seconds: dict[str, dict[tuple[int, int], float]] = {name: {} for name in GROWTH}
    for n, d in sizes:
        if n * d > CELLS:
            continue
        data, seam = rows(n, d), context(d)
        for name, (make, _) in GROWTH.items():
            rule = make(n // 5)
            taken = []
            for _ in range(1 if n * d > 10**8 else 3 if quick else 7):
                began = time.process_time()
                (
                    rule.step(data, rule.init(), seam)
                    if isinstance(rule, ours.MemoryRule)
                    else rule(data)
                )
                taken.append(time.process_time() - began)
            seconds[name][n, d] = min(taken)
        del data
    for name, measured in seconds.items():
        base = measured[10, 10**4] / 10**5
        for (n, d), taken in measured.items():
            yield cost(
                "curve",
                "itself at n=10 d=1e4",
                f"{name}: ns a value, n={n} d={d:.0e}",
                1e9 * taken / (n * d),
                1e9 * base,
            )
        large = {size: taken for size, taken in measured.items() if size[0] * size[1] >= 10**6}
        design = np.array([[1.0, math.log(n), math.log(d)] for n, d in large])
        _, in_n, in_d = np.linalg.lstsq(design, np.log(list(large.values())), rcond=None)[0]
        yield cost("curve", "theory", f"{name}: growth exponent in n", float(in_n), GROWTH[name][1])
        yield cost("curve", "theory", f"{name}: growth exponent in d", float(in_d), 1.0)
