"""Runs dealt out to worker processes, and the spread over seeds."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import torch

from benchmarks.harness import Row, gain

WORKERS = 2
SEEDS = (0, 1, 2)
Point = tuple[float, ...]


def spread_out(
    work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Each job with its result, in order, worked off by processes of one thread."""
    with ProcessPoolExecutor(
        WORKERS, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)
    ) as pool:
        yield from zip(jobs, pool.map(partial(_apply, work), jobs), strict=True)


def _apply(work: Callable[..., Any], job: tuple[Any, ...]) -> Any:
    return work(*job)


def between(case: str, what: str, over_seeds: Sequence[float]) -> Row:
    """The spread of a figure over seeds: the least beside the most."""
    return gain(case, "best seed", f"{what}: worst seed", min(over_seeds), max(over_seeds) or 1e-9)
