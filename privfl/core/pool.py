"""Processes of a command that end with it, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor


def pool_of(jobs: int) -> ProcessPoolExecutor:
    """So many fresh processes. One whose parent is gone ends at once: killed outright, the parent
    cannot tell it to, and it would go on with work that nobody asks for any more, and then wait
    without end.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
