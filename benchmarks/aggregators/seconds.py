"""The CPU time of rules: user + system of one thread, because page faults are half of some peers'
time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch

from benchmarks import floors
from benchmarks.aggregators.shared import TAU, D, F, N, byzfl, context, rows
from benchmarks.harness import Row, cost, interleaved
from privfl import aggregators as ours
from privfl.core import Released, Rows
from privfl.core.geometry import centred_gram


def compared(
    case: str,
    run: Callable[[Rows], object],
    peer: Callable[[torch.Tensor], object],
    target: float,
    quick: bool,
) -> Iterator[Row]:
    data = rows()
    seconds = interleaved(
        {"ours": lambda: run(data), "theirs": lambda: peer(data.values)} | at_least(case, data),
        2 if quick else 5,
        clock=time.process_time,
    )
    metric = f"CPU seconds, n={N} d={D} f={F}"
    yield cost(case, "ByzFL", metric, seconds["ours"], seconds["theirs"], target)
    yield from distances(case, metric, seconds)


def at_least(case: str, data: Rows) -> dict[str, Callable[[], object]]:
    """The floors of a rule: it reads the rows; from distances, it multiplies them."""
    floor: dict[str, Callable[[], object]] = {"reading the rows": floors.read(data.values)}
    if case in ("multi_krum", "geometric_median", "bulyan", "mda"):
        floor["inner products of the rows"] = floors.inner_products(data.values)
    return floor


def distances(case: str, metric: str, seconds: Mapping[str, float]) -> Iterator[Row]:
    for what, least in seconds.items():
        if what not in ("ours", "theirs"):
            yield floors.floor(case, metric, what, seconds["ours"], least)


def multi_krum(quick: bool) -> Iterator[Row]:
    rule = ours.Krum(F, m=N - F - 2)
    yield from compared("multi_krum", rule, byzfl("aggregators").MultiKrum(F), 2.5, quick)


def trimmed_mean(quick: bool) -> Iterator[Row]:
    yield from compared(
        "trimmed_mean", ours.TrimmedMean(F), byzfl("aggregators").TrMean(F), 2.0, quick
    )


def median(quick: bool) -> Iterator[Row]:
    yield from compared("median", ours.Median(), byzfl("aggregators").Median(), 2.0, quick)


def meamed(quick: bool) -> Iterator[Row]:
    yield from compared("meamed", ours.MeaMed(F), byzfl("aggregators").Meamed(F), 4.0, quick)


def centered_clipping(quick: bool) -> Iterator[Row]:
    rule = ours.CenteredClipping(tau=TAU, iterations=1)
    before = replace(context(D), released={"delta": Released(0.1 * torch.ones(D))})
    peer = byzfl("aggregators").CenteredClipping(L=1, tau=TAU)
    peer(rows().values)  # from here on it has a centre of its own
    yield from compared(
        "centered_clipping", lambda data: rule.step(data, None, before), peer, 1.5, quick
    )


def geometric_median(quick: bool) -> Iterator[Row]:
    rule, peer = ours.GeometricMedian(), byzfl("aggregators").GeometricMedian()
    yield from compared("geometric_median", rule, peer, 2.0, quick)
    data = rows()
    inner, at = centred_gram(data.values).numpy(), np.full(N, 1 / N)
    for _ in range(2000):  # Weiszfeld's plain steps, far past convergence
        away = np.sqrt(np.maximum(inner.diagonal() - 2 * inner @ at + at @ inner @ at, 1e-300))
        at = (1 / away) / (1 / away).sum()
    exact = torch.from_numpy(at) @ data.values.double()
    size = float((data.values[0] - exact).norm())
    errors = [
        float((out.double() - exact).norm()) / size for out in (rule(data), peer(data.values))
    ]
    yield cost(
        "geometric_median",
        "ByzFL",
        "distance from the exact point, relative",
        errors[0],
        errors[1],
        1.0,
    )


def without_peer(case: str, name: str, run: Callable[[Rows], object], quick: bool) -> Iterator[Row]:
    data = rows()
    runs = {"ours": lambda: run(data)} | at_least(case, data)
    seconds = interleaved(runs, 1 if quick else 3, clock=time.process_time)
    metric = f"{name}: CPU seconds, n={N} d={D} f={F}"
    yield cost(case, "budget of 5 s", metric, seconds["ours"], 5.0, 1.0)
    yield from distances(case, metric, seconds)


def bulyan(quick: bool) -> Iterator[Row]:
    yield from without_peer("bulyan", "Bulyan", ours.Bulyan(F), quick)


def mda(quick: bool) -> Iterator[Row]:
    yield from without_peer("mda", "GreedyMDA", ours.GreedyMDA(F), quick)
    yield from without_peer("mda", "MDA (exact)", ours.MDA(F), quick)
