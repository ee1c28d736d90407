"""Pages that a process gives back and asks for again."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import torch

_BYTES = (32 << 20) - (8 << 10)
"""Just under the largest block that glibc still learns from (mallopt(3), M_MMAP_THRESHOLD)."""


def keep_freed_pages() -> None:
    """Have the C library keep up to 64 MB of what is freed, instead of giving its pages back after
    every training step and paying for them again in the next: a tenth to a quarter of a small
    net's step.

    glibc raises its two thresholds when a large block is freed, so one is allocated (its pages are
    never touched) and freed. Elsewhere, and where the environment sets ``MALLOC_`` thresholds, this
    does nothing.

    >>> keep_freed_pages()
    """
    torch.empty(_BYTES, dtype=torch.uint8)


def give_back_pages() -> bool:
    """Give back what is kept so; whether the C library can (glibc).

    A round that holds vectors of megabytes frees blocks that fit none of the next, and what is kept
    of them would count beside what it holds.

    >>> give_back_pages() in (True, False)
    True
    """
    trim = _trim()
    if trim is None:
        return False
    trim(0)
    return True


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or none to ask
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    found: Callable[[int], int] = trim
    return found
