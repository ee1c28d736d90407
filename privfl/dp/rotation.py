"""The randomised Hadamard rotation: a public orthonormal change of basis that spreads every vector
evenly over its entries.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from privfl.core import ConfigError

Floats = npt.NDArray[np.float64]


def hadamard(x: Floats) -> Floats:
    """The orthonormal Walsh-Hadamard transform of a vector [2^k], in place, in k passes; its own
    inverse.

    Raises:
        ConfigError: the length is no power of two.

    >>> hadamard(np.array([1.0, 0.0, 0.0, 0.0]))
    array([0.5, 0.5, 0.5, 0.5])
    """
    n = len(x)
    if n & (n - 1) or not n:
        raise ConfigError(f"a Hadamard transform needs a power of two, and got {n} values.")
    half = 1
    while half < n:
        pairs = x.reshape(-1, 2, half)
        upper, lower = pairs[:, 0], pairs[:, 1]
        upper += lower
        lower *= -2
        lower += upper
        half *= 2
    x /= np.sqrt(n)
    return x


def padded(d: int) -> int:
    """The next power of two.

    >>> padded(5), padded(8)
    (8, 8)
    """
    return 1 << max(d - 1, 0).bit_length()


def _signs(seed: bytes, n: int) -> Floats:
    bits = np.unpackbits(
        np.frombuffer(
            hashlib.shake_256(b"privfl-rotation/" + seed).digest(-(-n // 8)), dtype=np.uint8
        )
    )[:n]
    return 1.0 - 2.0 * bits.astype(np.float64)


def rotate(x: Floats, seed: bytes) -> Floats:
    """A vector [d] padded to a power of two, with random signs from a public seed, transformed
    (Suresh et al. 2017, section 3).

    >>> x = np.array([3.0, 0.0, 4.0])
    >>> bool(np.allclose(unrotate(rotate(x, b"round 1"), b"round 1", d=3), x))
    True
    """
    n = padded(len(x))
    out = np.zeros(n)
    out[: len(x)] = x
    out *= _signs(seed, n)
    return hadamard(out)


def unrotate(x: Floats, seed: bytes, d: int) -> Floats:
    """The inverse of `rotate`, cut to the first d entries."""
    return (hadamard(x.copy()) * _signs(seed, len(x)))[:d]
