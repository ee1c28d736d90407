"""Binomial sums over many integer orders at once, in logs: what every theorem about sampling and
Rényi DP comes down to.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

Array: TypeAlias = npt.NDArray[np.float64]


@lru_cache(maxsize=8)
def terms(orders: tuple[int, ...]) -> tuple[Array, npt.NDArray[np.int64], Array]:
    """For every order a and every k in 2..a, laid end to end: a - k, k, log C(a, k)."""
    k = np.concatenate([np.arange(2, a + 1) for a in orders])
    a = np.repeat(np.array(orders), [a - 1 for a in orders])
    log_factorial = gammaln(np.arange(max(orders) + 1) + 1.0)
    return (a - k).astype(np.float64), k, log_factorial[a] - log_factorial[k] - log_factorial[a - k]


def rdp_of_sum(orders: tuple[int, ...], logs: Array, first: Array | float = 0.0) -> Array:
    """log(e^first + the sum of e^logs over each order's stretch) / (a - 1)."""
    a = np.array(orders)
    starts = np.concatenate([[0], np.cumsum(a - 1)[:-1]])
    top = np.maximum.reduceat(logs, starts)
    sums = top + np.log(np.add.reduceat(np.exp(logs - np.repeat(top, a - 1)), starts))
    return np.asarray(np.logaddexp(first, sums) / (a - 1), dtype=np.float64)


def log_expm1(y: Array) -> Array:
    """log(e^y - 1) for y > 0, without overflow."""
    return np.asarray(y + np.log(-np.expm1(-y)), dtype=np.float64)


def interpolated(orders: Array, integer: Callable[[tuple[int, ...]], Array]) -> Array:
    """A curve known at integer orders (from 2), at all orders above 1: (a - 1) RDP(a) is convex in
    a and 0 at 1.
    """
    low, high = np.floor(orders), np.ceil(orders)
    needed = tuple(sorted({int(a) for a in np.concatenate([low, high]) if a >= 2}))
    cumulant = dict(zip(needed, integer(needed) * (np.array(needed) - 1), strict=True)) | {1: 0.0}
    share = orders - low
    mixed = [
        (1 - s) * cumulant[int(a)] + s * cumulant[int(b)]
        for s, a, b in zip(share, low, high, strict=True)
    ]
    return np.array(mixed) / (orders - 1)
