"""Worker processes for libraries that hold the interpreter lock while they compute, and that may
die of what they are given.

A worker has a limit on its memory and one on the time of a job, at which the system ends it. When a
worker dies the pool is built anew and the jobs are done again, in workers of their own, so that
nobody else's jobs end them; where they kill those too, they are halved until the job is found that
does, and that one is refused by its number.
"""

from __future__ import annotations

import multiprocessing
import resource
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

from privfl.core.pool import end_with_parent
from privfl.crypto.he.wire import Refused

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may take: ``memory`` bytes beyond what it was forked with, and ``seconds`` for
    one job.
    """

    memory: int = 4 << 30
    seconds: int = 600


LIMITS = Limits()


class Killer(Refused):
    """A job whose worker died of it, twice; ``job`` is its number."""

    def __init__(self, job: int) -> None:
        super().__init__("a worker process died of it: too much memory, too long, or a crash")
        self.job = job


def _limit(limits: Limits) -> None:
    """Keep this worker to its memory, on top of what it shares with the process that forked it, and
    to its life.
    """
    end_with_parent()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + limits.memory
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, in the middle of a C call too


def _timed(work: Callable[[A], B], seconds: int, job: A) -> B:
    signal.alarm(seconds)
    try:
        return work(job)
    except MemoryError:
        raise Refused("it takes more memory than a worker process may have") from None
    finally:
        signal.alarm(0)


@lru_cache(maxsize=4)
def _pool(workers: int, limits: Limits) -> ProcessPoolExecutor:
    """Forked once and kept: starting workers costs more than a round's encryption."""
    return _forked(workers, limits)


def _forked(workers: int, limits: Limits) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("fork"),
        initializer=_limit,
        initargs=(limits,),
    )


def _done(
    work: Callable[[A], B], jobs: dict[int, A], pool: ProcessPoolExecutor, limits: Limits
) -> tuple[dict[int, B], dict[int, A]]:
    """The results of the jobs that were done, and the jobs that were not because a worker died."""
    waiting = dict[int, Future[B]]()
    done: dict[int, B] = {}
    left: dict[int, A] = {}
    try:
        for number, job in jobs.items():
            waiting[number] = pool.submit(partial(_timed, work, limits.seconds), job)
    except BrokenProcessPool:
        pass  # a worker died between two calls, or of a job that is already waiting
    for number, job in jobs.items():
        try:
            if number in waiting:
                done[number] = waiting[number].result()
            else:
                left[number] = job
        except BrokenProcessPool:
            left[number] = job
    return done, left


def _isolated(
    work: Callable[[A], B], jobs: dict[int, A], workers: int, limits: Limits
) -> dict[int, B]:
    with _forked(min(workers, len(jobs)), limits) as pool:
        done, left = _done(work, jobs, pool, limits)
    if not left:
        return done
    if len(jobs) == 1:
        raise Killer(next(iter(jobs)))
    halves = list(left.items())
    middle = -(-len(halves) // 2)
    for half in (halves[:middle], halves[middle:]):
        if half:
            done |= _isolated(work, dict(half), workers, limits)
    return done


def isolated(
    work: Callable[[A], B], jobs: Sequence[A], workers: int, limits: Limits = LIMITS
) -> list[B]:
    """The results of all jobs in order, each of them done in a worker process.

    Raises:
        Killer: a worker dies of one of them, and which; the pool works again.
        Refused: one takes more memory than it may.
    """
    pool = _pool(workers, limits)
    done, left = _done(work, dict(enumerate(jobs)), pool, limits)
    if left:
        pool.shutdown(wait=False)
        _pool.cache_clear()  # the next call forks a pool that works
        done |= _isolated(work, left, workers, limits)  # what killed a worker need not be a job
    return [done[number] for number in range(len(jobs))]


def spread(
    work: Callable[[A], list[B]], jobs: Sequence[A], workers: int, limits: Limits = LIMITS
) -> list[B]:
    """The results of all jobs in order, one job after the other, or in worker processes where there
    is more than one worker; raises as `isolated`.
    """
    if workers <= 1 or len(jobs) <= 1:
        return [item for job in jobs for item in work(job)]
    return [item for done in isolated(work, jobs, workers, limits) for item in done]
