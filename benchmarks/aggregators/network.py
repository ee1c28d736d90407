"""The compiled selection network beside the sort that it stands in for, bit for bit."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks import floors
from benchmarks.aggregators.shared import D, F, N, rows
from benchmarks.harness import Row, cost, interleaved
from privfl import aggregators as ours
from privfl.aggregators.network import (
    agrees_with_the_sort,
    median_by_network,
    same_bits,
    trimmed_by_network,
)
from privfl.core.native import build_kernels, kernels


def network(quick: bool) -> Iterator[Row]:
    """Trimmed mean and median by the network over the same rules by the sort, in turn; 50 rows of
    1M values, for which there is a target, and others. Raises where the bits differ.
    """
    with tempfile.TemporaryDirectory() as place:
        build_kernels(agrees_with_the_sort, Path(place))
        library = kernels(Path(place))
    os.environ["PRIVFL_NATIVE"] = "off"  # from here on rules sort
    for n, d in ((N, D), (10, D), (100, D // 2), (300, D // 10)):
        f, data = (F if n == N else n // 5), rows(n, d)
        by_network: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "trimmed mean": (
                partial(trimmed_by_network, data.values, f, library),
                partial(ours.TrimmedMean(f), data),
            ),
            "median": (
                partial(median_by_network, data.values, library),
                partial(ours.Median(), data),
            ),
        }
        reading = floors.read(data.values)
        for name, (ran, sorts) in by_network.items():
            found, wanted = ran(), sorts()
            if found is None or not same_bits(found, wanted):  # type: ignore[arg-type]
                raise RuntimeError(f"{name}: the network has other bits than the sort at n={n}")
            seconds = interleaved(
                {"ours": ran, "theirs": sorts, "reading": reading},
                5 if quick else 15,
                clock=time.process_time,
            )
            metric = f"{name}: CPU seconds, n={n} d={d} f={f}"
            goal = 4.0 if n == N else None
            yield cost("network", "our sort", metric, seconds["ours"], seconds["theirs"], goal)
            yield floors.floor(
                "network", metric, "reading the rows", seconds["ours"], seconds["reading"]
            )
