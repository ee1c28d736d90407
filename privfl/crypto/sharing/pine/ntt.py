"""Number-theoretic transforms over Field64, of many polynomials at once, along the first axis,
in Stockham's order.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from privfl.crypto.sharing.pine.field64 import (
    GENERATOR,
    ORDER,
    Field64,
    P,
    add,
    multiply,
    power,
    powers,
    subtract,
)


def root(n: int) -> int:
    """The element of order n, a power of two, that transforms of n points use.

    >>> power(root(8), 4) == P - 1
    True
    """
    return power(GENERATOR, ORDER // n)


def values(coefficients: Field64) -> Field64:
    """The values [n, ...] at 1, w, ..., w^(n-1), w = `root` (n), of polynomials whose coefficients
    these are [n, ...], n a power of two.

    >>> from privfl.crypto.sharing.pine.field64 import words
    >>> interpolated(values(words([1, 2, 3, 4]))).tolist()
    [1, 2, 3, 4]
    """
    return _transform(coefficients, inverse=False)


def interpolated(at: Field64) -> Field64:
    """The coefficients [n, ...] of the polynomials with these values."""
    n = len(at)
    return multiply(_transform(at, inverse=True), np.full(1, power(n, P - 2), dtype=np.uint64))


def shifted(coefficients: Field64, by: int) -> Field64:
    """The coefficients [n, ...] of f(by x)."""
    scale = powers(by, len(coefficients))
    return multiply(coefficients, scale.reshape(-1, *[1] * (coefficients.ndim - 1)))


@lru_cache(maxsize=64)
def _twiddles(n: int, inverse: bool) -> Field64:
    w = root(n)
    out = powers(power(w, P - 2) if inverse else w, n // 2)
    out.flags.writeable = False
    return out


def _transform(data: Field64, *, inverse: bool) -> Field64:
    """In every pass the halves at distance n / 2 meet, and results are stored in order."""
    shape, length = data.shape, len(data)
    current = data.reshape(length, 1, -1)
    n = length
    while n > 1:
        half = n // 2
        top, bottom = current[:half], current[half:]
        out = np.empty((half, 2, *current.shape[1:]), dtype=np.uint64)
        out[:, 0] = add(top, bottom)
        twiddles = _twiddles(n, inverse).reshape(half, 1, 1)
        out[:, 1] = multiply(subtract(top, bottom), twiddles)
        current = out.reshape(half, -1, current.shape[-1])
        n = half
    return current.reshape(shape)
