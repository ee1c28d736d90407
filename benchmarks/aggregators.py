"""Robust rules against ByzFL: CPU time, peak memory, and how both grow.

ByzFL is pure Python but imports torchvision for its data sets: install it with ``pip install
--no-deps byzfl==0.0.11``; its rules are imported here without the rest of it. Seconds are user +
system of one thread, because page faults are half of some peers' time.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Row, cost, interleaved, main, say
from privfl import aggregators as ours
from privfl.aggregators import Before
from privfl.aggregators.freq_fed import low_frequencies
from privfl.core import (
    Context,
    Released,
    RoundPlan,
    Rows,
)
from privfl.core.geometry import centred_gram, squared_norms

N, D, F = 50, 1_000_000, 10
TAU = 100.0
CELLS = 1_000_000_000
"""Rows times columns at most: 4 GB of float32."""


def byzfl(module: str) -> types.ModuleType:
    """One of ByzFL's modules, past its package face (which imports torchvision)."""
    if "byzfl" not in sys.modules:
        spec = importlib.util.find_spec("byzfl")
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError("byzfl: pip install --no-deps byzfl==0.0.11")
        face = types.ModuleType("byzfl")
        face.__path__ = list(spec.submodule_search_locations)
        sys.modules["byzfl"] = face
    return importlib.import_module(f"byzfl.aggregators.{module}")


def rows(n: int = N, d: int = D) -> Rows:
    """Normal rows; the last fifth are one liar's copies."""
    values = torch.empty(n, d).normal_(generator=torch.Generator().manual_seed(n + d))
    liars = n // 5
    values[n - liars :] = -2 * values[0]
    return Rows.of(values)


def context(d: int) -> Context:
    return Context(
        RoundPlan(0, (0,), d, math.inf), torch.zeros(d), torch.Generator().manual_seed(0)
    )


def compared(
    case: str,
    run: Callable[[Rows], object],
    peer: Callable[[torch.Tensor], object],
    target: float,
    quick: bool,
) -> Iterator[Row]:
    data = rows()
    seconds = interleaved(
        {"ours": lambda: run(data), "theirs": lambda: peer(data.values)},
        2 if quick else 5,
        clock=time.process_time,
    )
    yield cost(
        case, "ByzFL", f"CPU seconds, n={N} d={D} f={F}", seconds["ours"], seconds["theirs"], target
    )


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


def nnm(quick: bool) -> Iterator[Row]:
    """Cold, the first call of a fresh process, and warm: the peer swings by its page faults.
    Medians of three (the peer: one if quick). Where liars lie apart, honest rows have the same
    neighbours, which are averaged once; amid them every row has neighbours of its own. Where rows
    lie together far from zero, distances are computed again in float64.
    """
    for state, where in (("cold", ""), ("warm", ""), *(("warm", where) for where in PLACED)):
        theirs = [child("measure_nnm", state, where, "theirs") for _ in range(1 if quick else 3)]
        own = [child("measure_nnm", state, where, "ours") for _ in range(3)]
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


def child(function: str, *arguments: str) -> float:
    """The number that a function of this file prints in a fresh process."""
    script = f"from benchmarks.aggregators import {function}; {function}(*{arguments!r})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{function}{arguments} failed: {done.stderr[-400:]}")
    return float(done.stdout.split()[-1])


def without_peer(case: str, name: str, run: Callable[[Rows], object], quick: bool) -> Iterator[Row]:
    data = rows()
    seconds = interleaved({"ours": lambda: run(data)}, 1 if quick else 3, clock=time.process_time)[
        "ours"
    ]
    yield cost(case, "budget of 5 s", f"{name}: CPU seconds, n={N} d={D} f={F}", seconds, 5.0, 1.0)


def bulyan(quick: bool) -> Iterator[Row]:
    yield from without_peer("bulyan", "Bulyan", ours.Bulyan(F), quick)


def mda(quick: bool) -> Iterator[Row]:
    yield from without_peer("mda", "GreedyMDA", ours.GreedyMDA(F), quick)
    yield from without_peer("mda", "MDA (exact)", ours.MDA(F), quick)


DETECTORS: dict[str, tuple[Callable[[], Any], float, str]] = {
    "FreqFed": (ours.FreqFed, 22, "check, log2 d stages of the cosine transform, mean"),
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


MEASURED: dict[str, tuple[Callable[[], Any], Callable[[], Any] | None]] = {
    "multi_krum": (lambda: ours.Krum(F, m=N - F - 2), lambda: byzfl("aggregators").MultiKrum(F)),
    "trimmed_mean": (lambda: ours.TrimmedMean(F), lambda: byzfl("aggregators").TrMean(F)),
    "median": (ours.Median, lambda: byzfl("aggregators").Median()),
    "meamed": (lambda: ours.MeaMed(F), lambda: byzfl("aggregators").Meamed(F)),
    "geometric_median": (ours.GeometricMedian, lambda: byzfl("aggregators").GeometricMedian()),
    "centered_clipping": (
        ours.CenteredClipping,
        lambda: byzfl("aggregators").CenteredClipping(L=1, tau=TAU),
    ),
    "bulyan": (lambda: ours.Bulyan(F), None),
    "mda_greedy": (lambda: ours.GreedyMDA(F), None),
    "caf": (lambda: ours.CAF(F), None),
    "sign_guard": (ours.SignGuard, None),
    "nnm": (lambda: ours.NearestNeighbourMixing(F), None),
}


def peak(name: str, side: str) -> float:
    """Peak resident memory of one call in a fresh process, the update matrix counted, over the
    matrix' size.
    """
    return child("measure_peak", name, side)


def resident(field: str) -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in status if line.startswith(field)).split()[1])


def measure_peak(name: str, side: str) -> None:
    """Print what `peak` reads."""
    torch.set_num_threads(1)
    make = MEASURED[name][side == "theirs"]
    if make is None:
        raise SystemExit(f"{name} has no peer")

    def call(data: Rows) -> object:
        run = make()
        if side == "theirs":
            return run(data.values)
        if isinstance(run, ours.Before):
            return run.before(data, run.init(), context(data.d))
        return (
            run.step(data, run.init(), context(data.d))
            if isinstance(run, ours.MemoryRule)
            else run(data)
        )

    call(rows(N, 1000))  # imports and kernels come before the count
    data = rows()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = resident("VmRSS")
    call(data)
    matrix = data.values.numel() * data.values.element_size()
    print((resident("VmHWM") - before + matrix) / matrix)


def memory(quick: bool) -> Iterator[Row]:
    for name, (_, peer) in MEASURED.items():
        own = peak(name, "ours")
        if name == "nnm":  # its result is a second update matrix
            yield cost(
                "memory",
                "budget 2.3 matrices, two of them in and out",
                f"{name}: peak over the matrix",
                own,
                2.3,
                1.0,
            )
        else:
            yield cost(
                "memory", "budget 1.3 matrices", f"{name}: peak over the matrix", own, 1.3, 1.0
            )
        if peer is not None:
            yield cost(
                "memory", "ByzFL", f"{name}: peak over the matrix", own, peak(name, "theirs")
            )


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


CASES = {
    "multi_krum": multi_krum,
    "nnm": nnm,
    "trimmed_mean": trimmed_mean,
    "median": median,
    "meamed": meamed,
    "centered_clipping": centered_clipping,
    "geometric_median": geometric_median,
    "bulyan": bulyan,
    "mda": mda,
    "detectors": detectors,
    "memory": memory,
    "curve": curve,
}

if __name__ == "__main__":
    main("aggregators", CASES)
