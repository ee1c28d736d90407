"""The CPU time of nearest-neighbour mixing, cold and warm, and by where rows lie."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch

from benchmarks.aggregators.shared import D, F, N, byzfl, child, context, rows
from benchmarks.harness import Row, cost
from privfl import aggregators as ours
from privfl.core import Rows


def nnm(quick: bool) -> Iterator[Row]:
    """Cold, the first call of a fresh process, and warm: the peer swings by its page faults.
    Medians of three (the peer: one if quick). Where liars lie apart, honest rows have the same
    neighbours, which are averaged once; amid them every row has neighbours of its own. Where rows
    lie together far from zero, distances are computed again in float64.
    """
    for state, where in (("cold", ""), ("warm", ""), *(("warm", where) for where in PLACED)):
        theirs = [
            child("mixing", "measure_nnm", state, where, "theirs") for _ in range(1 if quick else 3)
        ]
        own = [child("mixing", "measure_nnm", state, where, "ours") for _ in range(3)]
        what = f"{state}, {where}" if where else state
        metric = f"CPU seconds (user + system), {what}, n={N} d={D} f={F}"
        goal = None if where else 50.0
        yield cost("nnm", "ByzFL", metric, statistics.median(own), statistics.median(theirs), goal)


def measure_nnm(state: str, where: str, side: str) -> None:
    """Print the seconds of one call, after another one of that size if warm."""
    torch.set_num_threads(1)
    mixing, peer = ours.NearestNeighbourMixing(F), byzfl("preaggregators").NNM(F)

    def call(data: Rows) -> object:
        return mixing.before(data, None, context(data.d)) if side == "ours" else peer(data.values)

    call(rows(N, 1000))  # libraries load here
    data = rows()
    if where:
        PLACED[where](data.values)
    if state == "warm":
        call(data)
    began = time.process_time()
    call(data)
    print(time.process_time() - began)


PLACED: dict[str, Callable[[torch.Tensor], object]] = {
    "liars amid the others": lambda values: values[N - N // 5 :].normal_(
        generator=torch.Generator().manual_seed(2)
    ),
    "shared offset of 30": lambda values: values.add_(30.0),
    "liars 1,000 times as far": lambda values: values[N - N // 5 :].mul_(1000.0),
}
"""Where rows lie, if not around zero."""
