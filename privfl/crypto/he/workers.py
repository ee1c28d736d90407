"""Worker processes for libraries that hold the interpreter lock while they compute."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


@lru_cache(maxsize=4)
def _pool(workers: int) -> ProcessPoolExecutor:
    """Forked once and kept: starting workers costs more than a round's encryption."""
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork"))


def spread(work: Callable[[A], list[B]], jobs: Sequence[A], workers: int) -> list[B]:
    """The results of all jobs in order, one job after the other, or in worker processes where there
    is more than one.
    """
    if workers <= 1 or len(jobs) <= 1:
        return [item for job in jobs for item in work(job)]
    return [item for done in _pool(workers).map(work, jobs) for item in done]
