"""The peak memory of rules, over that of their input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.aggregators.shared import TAU, F, N, byzfl, child, context, rows
from benchmarks.harness import Row, cost
from privfl import aggregators as ours
from privfl.core import Rows

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
    return child("memory", "measure_peak", name, side)


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
