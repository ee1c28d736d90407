"""A public random rotation that spreads a vector's length evenly over its entries, so that fixed
point wastes no range on spikes.
"""

from __future__ import annotations

import hashlib
import math
from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
_BETA = 2.0**-40
"""How likely one vector may have one entry over `reach`, which fixed point then cuts."""
_AXIS = 5


@cache
def _hadamard(bits: int) -> Floats:
    """The orthonormal Hadamard matrix of order 2^bits."""
    signs = np.ones((1, 1), dtype=np.float32)
    for _ in range(bits):
        signs = np.kron(np.array([[1, 1], [1, -1]], dtype=np.float32), signs)
    return (signs / math.sqrt(1 << bits)).astype(np.float32)


def walsh_hadamard(x: Floats) -> Floats:
    """The orthonormal Walsh-Hadamard transform of a vector whose length is a power of two: its own
    inverse.

    Five butterfly levels at a time, as one product with the matrix of order 32.

    >>> walsh_hadamard(np.array([1, 0, 0, 0], dtype=np.float32))
    array([0.5, 0.5, 0.5, 0.5], dtype=float32)
    """
    left = len(x).bit_length() - 1
    while left:
        bits = min(_AXIS, left)
        x = np.ascontiguousarray((_hadamard(bits) @ x.reshape(1 << bits, -1)).T).reshape(-1)
        left -= bits
    return x


def _signs(seed: bytes, n: int) -> Floats:
    bits = np.unpackbits(np.frombuffer(hashlib.shake_256(seed).digest(-(-n // 8)), dtype=np.uint8))[
        :n
    ]
    return 1 - 2 * bits.astype(np.float32)


def _span(d: int) -> int:
    return 1 << (d.bit_length() - 1)


def rotate(x: Floats, seed: bytes) -> Floats:
    """The vector [d] in a random orthonormal basis that ``seed`` fixes (Suresh, Yu, Kumar, McMahan
    2017, section 3).

    Two signed transforms of 2^floor(log2 d) entries, over the front and then over the back, cover
    any d without padding.

    >>> x = np.arange(5, dtype=np.float32)
    >>> bool(np.allclose(unrotate(rotate(x, b"s"), b"s"), x, atol=1e-5))
    True
    """
    n = _span(len(x))
    out = x.copy()
    out[:n] = walsh_hadamard(out[:n] * _signs(seed + b"front", n))
    out[-n:] = walsh_hadamard(out[-n:] * _signs(seed + b"back", n))
    return out


def unrotate(x: Floats, seed: bytes) -> Floats:
    """The inverse of `rotate`."""
    n = _span(len(x))
    out = x.copy()
    out[-n:] = walsh_hadamard(out[-n:]) * _signs(seed + b"back", n)
    out[:n] = walsh_hadamard(out[:n]) * _signs(seed + b"front", n)
    return out


def reach(d: int) -> float:
    """What no entry of a rotated unit vector [d] exceeds, but with probability 2^-40 (a union bound
    over sums of random signs).
    """
    return min(1.0, math.sqrt(2 * math.log(2 * d / _BETA) / _span(d)))
