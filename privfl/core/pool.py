"""Processes of a command that end with it, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import TypeVar

R = TypeVar("R")
_GRACE = 5.0
"""Seconds in which a process that is told to end puts its own things away: files, workers."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end the block as Ctrl-C does: what is inside is put away, and the
    process leaves with 128 and the signal's number. Those that are handled or ignored already (as
    nohup has it) are left as they are, and outside of the main thread so are both.
    """
    kinds = [one for one in (signal.SIGTERM, signal.SIGHUP) if _unheard(one)]

    def end(number: int, frame: FrameType | None) -> None:
        for one in kinds:
            signal.signal(one, signal.SIG_IGN)  # it is told, and is putting things away
        raise SystemExit(128 + number)

    for one in kinds:
        signal.signal(one, end)
    try:
        yield
    finally:
        for one in kinds:
            signal.signal(one, signal.SIG_DFL)


def _unheard(one: signal.Signals) -> bool:
    main = threading.current_thread() is threading.main_thread()
    return main and signal.getsignal(one) is signal.SIG_DFL


@contextmanager
def pool_of(jobs: int, *, at_once: bool = False) -> Iterator[ProcessPoolExecutor]:
    """So many fresh processes, which end with the block. One whose parent is gone ends too: killed
    outright, the parent cannot tell it to, and it would go on with work that nobody asks for any
    more, and then wait without end.

    What leaves the block by Ctrl-C or `ended_by_signals` ends them in mid-work; with ``at_once`` an
    error does so as well, and else they end what they have begun.
    """
    with ended_by_signals(), _pool(jobs, at_once) as pool:
        yield pool


@contextmanager
def _pool(jobs: int, at_once: bool) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    heard, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_end_when_told, initargs=(heard,)
    )
    try:
        yield pool
    except BaseException as error:
        if at_once or not isinstance(error, Exception):
            held.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        held.close()
        heard.close()


def put(pool: ProcessPoolExecutor, work: Callable[..., R], *given: object) -> Future[R]:
    """Have ``work(*given)`` done in a process of `pool_of`. Ctrl-C at a terminal reaches the parent
    alone, which tells the others; an error that does not travel comes back as one that does.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a process inherits it
    try:
        return pool.submit(_done, work, given)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Have this process end as soon as its parent is gone."""
    _watch(lambda: os._exit(1))


def _end_when_told(heard: Connection) -> None:
    """End this process where its parent is gone or closes what is heard: first by a signal, so
    that what runs here puts its files and workers away.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(1))  # nothing is begun yet
    main = threading.get_ident()

    def end() -> None:
        signal.pthread_kill(main, signal.SIGTERM)
        time.sleep(_GRACE)
        os._exit(1)

    _watch(end, heard)
    signal.signal(signal.SIGTERM, _leave)


def _watch(end: Callable[[], object], *told: Connection) -> None:
    parent = multiprocessing.parent_process()
    heard: list[Connection | int] = [*told]
    heard += [] if parent is None else [parent.sentinel]

    def watch() -> None:
        wait(heard)
        end()

    threading.Thread(target=watch, daemon=True).start()


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(1)


def _done(work: Callable[..., R], given: tuple[object, ...]) -> R:
    try:
        return work(*given)
    except SystemExit:
        os._exit(1)  # else the pool takes it for an answer, and begins what waits
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        raise
