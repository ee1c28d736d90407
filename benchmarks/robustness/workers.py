"""Runs dealt out to worker processes, what these keep, and the spread over seeds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import torch

from benchmarks.harness import Case, Row, command_line, gain, play, say
from privfl.core.pool import pool_of
from privfl.data import Split, load

SEEDS = (0, 1, 2)
LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Where libraries read, when they are loaded, how many threads they may have. numpy's matrix
products had as many as there are cores, each of which waits busily for the next product.
"""
Point = tuple[float, ...]
Job = tuple[Any, ...]


class Done(NamedTuple):
    """What a run found, its processor seconds, and when it began and ended on the clock that all
    processes share.
    """

    found: Any
    seconds: float
    began: float
    ended: float


@dataclass(frozen=True)
class Played:
    """Every job of an experiment with what it found, in the order of the jobs; how many processes
    there were.
    """

    jobs: Sequence[Job]
    done: Sequence[Done]
    processes: int

    @property
    def runs(self) -> Iterator[tuple[Job, Any]]:
        """Each job with what it found."""
        yield from ((job, one.found) for job, one in zip(self.jobs, self.done, strict=True))

    @property
    def each(self) -> list[Any]:
        """What was found alone, for experiments with one job a seed."""
        return [one.found for one in self.done]

    @property
    def seconds(self) -> float:
        """Processor time of all runs."""
        return sum(one.seconds for one in self.done)

    @property
    def waited(self) -> float:
        """Seconds on the clock from the first run's start to the last one's end."""
        return max(one.ended for one in self.done) - min(one.began for one in self.done)


@dataclass(frozen=True)
class Experiment:
    """Runs that do not hang on one another, and the rows that are made of what they found.

    ``work`` is called with each job, in some process that has one thread; ``jobs`` lists them for
    some seeds; ``seeds`` are those of a whole run, and ``--quick`` plays the first ``quick`` ones:
    all where a mean over seeds is near to its target, for that mean and one seed are two things.
    """

    work: Callable[..., Any]
    jobs: Callable[[Sequence[int]], Sequence[Job]]
    rows: Callable[[Played], Iterable[Row]]
    seeds: Sequence[int] = SEEDS
    quick: int = len(SEEDS)


@dataclass(frozen=True)
class Workers:
    """Processes that all experiments share, so that none waits for another's longest run."""

    pool: ProcessPoolExecutor
    processes: int

    def deal(self, name: str, one: Experiment, quick: bool) -> Case:
        """Hand in an experiment's jobs behind all others; the case that waits for them, and drops
        those that have not begun once one failed.
        """
        jobs = one.jobs(one.seeds[: one.quick] if quick else one.seeds)
        asked = [self.pool.submit(_apply, one.work, job) for job in jobs]

        def rows(quick: bool) -> Iterator[Row]:
            played = Played(jobs, list(_results(jobs, asked)), self.processes)
            yield from one.rows(played)
            say(f"robustness: {name}: {played.seconds:.0f} processor seconds of {len(jobs)} runs")

        return rows


def _results(jobs: Sequence[Job], asked: Sequence[Future[Done]]) -> Iterator[Done]:
    try:
        for job, future in zip(jobs, asked, strict=True):
            try:
                yield future.result()
            except Exception as failure:
                failure.add_note(f"in the run {job}")
                raise
    finally:
        for future in asked:
            future.cancel()


@contextmanager
def workers(processes: int) -> Iterator[Workers]:
    """So many processes of one thread, which end with the block: once nothing is left to do, or at
    once where the block is left by an error, Ctrl-C or SIGTERM.
    """
    before = signal.signal(signal.SIGTERM, _ended)
    try:
        with _one_thread_each(), pool_of(processes) as pool:
            try:
                yield Workers(pool, processes)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for child in multiprocessing.active_children():
                    child.kill()
                while multiprocessing.active_children():  # the pool's own thread waits for them too
                    time.sleep(0.01)
                raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """What processes that begin inside find in their environment; this one's libraries have read
    theirs.
    """
    before = {name: os.environ.get(name) for name in LIBRARIES}
    os.environ.update(dict.fromkeys(LIBRARIES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _ended(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def main(experiments: Mapping[str, Experiment], argv: Sequence[str] | None = None) -> None:
    """Parse the command line, play the experiments with all jobs in one queue, print their rows in
    order; exit as `benchmarks.harness.play` does.
    """
    parser = command_line("robustness", experiments)
    parser.add_argument(
        "--jobs",
        type=int,
        default=cores(),
        metavar="N",
        help="so many processes of one thread (as many as there are cores): same figures",
    )
    options = parser.parse_args(argv)
    if options.jobs < 1:
        parser.error(f"--jobs is {options.jobs}: give 1 or more processes")
    with workers(options.jobs) as dealer:
        cases = {
            name: dealer.deal(name, one, options.quick)
            for name, one in experiments.items()
            if options.only in (None, name)
        }
        play("robustness", cases, options)


def cores() -> int:
    """Of the cores of this machine those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _apply(work: Callable[..., Any], job: Job) -> Done:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends us
    torch.set_num_threads(1)
    began, used = time.monotonic(), time.process_time()
    with redirect_stdout(sys.stderr):  # what a run prints is no row
        found = work(*job)
    return Done(found, time.process_time() - used, began, time.monotonic())


@cache
def loaded(name: str) -> Split:
    """A data set, read once in each process."""
    return load(name)


@dataclass(frozen=True)
class Loaded:
    """A config's data, read once in each process."""

    of: str

    def __call__(self, folder: Path | None = None) -> Split:
        """The data set of this name, from the usual folder."""
        return loaded(self.of)


LOADED = {"name": f"{Loaded.__module__}:{Loaded.__qualname__}"}
"""What a config's data begin with, and ``of``."""


def one_each(seeds: Sequence[int]) -> Sequence[Job]:
    """A job a seed, for experiments that begin with a long one."""
    return [(seed,) for seed in seeds]


def between(case: str, what: str, over_seeds: Sequence[float]) -> Row:
    """The spread of a figure over seeds: the least beside the most."""
    return gain(case, "best seed", f"{what}: worst seed", min(over_seeds), max(over_seeds) or 1e-9)
