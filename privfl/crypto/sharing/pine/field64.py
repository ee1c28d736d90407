"""Field64, the integers modulo p = 2^64 - 2^32 + 1, on arrays of words.

Every function takes and returns words below p (canonical words). A product of two words is reduced
by 2^64 = 2^32 - 1 and 2^96 = -1 modulo p, from four products of 32-bit halves.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from privfl.crypto.primitives.fields import Malformed

Field64: TypeAlias = npt.NDArray[np.uint64]
P = 2**64 - 2**32 + 1
ORDER = 2**32
"""The largest power of two that divides p - 1."""
GENERATOR = pow(7, 2**32 - 1, P)
"""An element of order `ORDER`."""
_P = np.uint64(P)
_WRAP = np.uint64(2**32 - 1)
"""2^64 modulo p: what a carry out of a word, or a borrow into it, is worth."""
_LOW = np.uint64(2**32 - 1)
_HALF = np.uint64(32)
_BLOCK = 1 << 13
"""Words at a time: all temporaries of a product stay in the second-level cache."""
_FEW = 128
"""So many powers are quicker made one by one than as arrays."""


def words(values: npt.ArrayLike) -> Field64:
    """Signed integers of less than 64 bits as field elements: -k becomes p - k.

    >>> words([1, -1]).tolist() == [1, P - 1]
    True
    """
    signed = np.asarray(values, dtype=np.int64)
    out = signed.astype(np.uint64)
    out[signed < 0] -= _WRAP
    return out


def centred(values: Field64) -> npt.NDArray[np.int64]:
    """Field elements as the integers around zero that they stand for: above p / 2 is negative.

    >>> centred(words([5, -7])).tolist()
    [5, -7]
    """
    negative = values > np.uint64(P // 2)
    out = values.copy()
    out[negative] += _WRAP
    return out.view(np.int64)


def add(a: Field64, b: Field64) -> Field64:
    """The sum a + b."""
    out = a + b
    out += _WRAP * (out < a)
    return _canonical(out)


def subtract(a: Field64, b: Field64) -> Field64:
    """The difference a - b."""
    out = a - b
    out -= _WRAP * (a < b)
    return out


def _canonical(out: Field64) -> Field64:
    out -= _P * (out >= _P)
    return out


def multiply(a: Field64, b: Field64) -> Field64:
    """The product a b, elementwise and broadcast.

    >>> multiply(words([3, P // 2]), words([-5, 2])).tolist() == [P - 15, P - 1]
    True
    """
    if a.shape != b.shape:
        a, b = np.broadcast_arrays(a, b)
    out = np.empty(a.shape, dtype=np.uint64)
    left, right, flat = a.reshape(-1), b.reshape(-1), out.reshape(-1)
    for start in range(0, len(flat), _BLOCK):
        part = slice(start, start + _BLOCK)
        flat[part] = _product(left[part], right[part])
    return out


def _product(a: Field64, b: Field64) -> Field64:
    a0, a1, b0, b1 = a & _LOW, a >> _HALF, b & _LOW, b >> _HALF
    low, mid, high = a0 * b0, a0 * b1, a1 * b1
    a1 *= b0
    mid += low >> _HALF  # below 2^64: (2^32 - 1)^2 + 2^32 - 1
    a1 += mid & _LOW
    high += mid >> _HALF
    high += a1 >> _HALF
    low &= _LOW
    low |= a1 << _HALF  # the product is high 2^64 + low
    top = high >> _HALF  # worth 2^96 = -1
    high &= _LOW
    borrow = low < top
    low -= top
    low -= _WRAP * borrow
    high *= _WRAP
    low += high
    low += _WRAP * (low < high)
    return _canonical(low)


def total(values: Field64, axis: int = 0) -> Field64:
    """The sum along an axis of at most 2^31 elements.

    >>> int(total(words([-1, -1, 5])))
    3
    """
    low = np.add.reduce(values & _LOW, axis=axis, keepdims=True)
    high = np.add.reduce(values >> _HALF, axis=axis, keepdims=True)
    high += low >> _HALF  # the sum is high 2^32 + low, high below 2^63
    low &= _LOW
    low |= high << _HALF
    return add(_canonical(low), (high >> _HALF) * _WRAP).squeeze(axis)


def power(base: int, exponent: int) -> int:
    """base^exponent, of Python integers."""
    return pow(base, exponent, P)


def powers(base: int, n: int) -> Field64:
    """1, base, ..., base^(n-1).

    >>> powers(3, 5).tolist()
    [1, 3, 9, 27, 81]
    """
    first = [1]
    while len(first) < min(n, _FEW):
        first.append(first[-1] * base % P)
    known = len(first)
    out = np.empty(max(n, 1), dtype=np.uint64)
    out[:known] = first
    while known < n:
        more = min(known, n - known)
        step = np.uint64(power(base, known))
        out[known : known + more] = multiply(out[:more], np.full(more, step))
        known += more
    return out[:n]


def inverse(values: Field64) -> Field64:
    """1 / v of each value; zero stays zero.

    By Montgomery's trick: neighbours are multiplied until one product is left, its inverse by
    Fermat is that of all, and times the one neighbour it is the other's.

    >>> multiply(inverse(words([3, 0, -4])), words([3, 0, -4])).tolist()
    [1, 0, 1]
    """
    flat = values.reshape(-1)
    zero = flat == 0
    levels = [np.where(zero, np.uint64(1), flat)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        if len(below) % 2:
            below = levels[-1] = np.append(below, np.uint64(1))
        levels.append(multiply(below[::2], below[1::2]))
    out = np.array([power(int(each), P - 2) for each in levels.pop()], dtype=np.uint64)
    for below in reversed(levels):
        swapped = below.reshape(-1, 2)[:, ::-1]
        out = multiply(swapped, out[: len(swapped), None]).reshape(-1)
    out = out[: len(flat)]
    out[zero] = 0
    return out.reshape(values.shape)


def encode(values: Field64) -> bytes:
    """The words, little-endian, 8 bytes each."""
    return np.ascontiguousarray(values).astype("<u8", copy=False).tobytes()


def decode(body: memoryview, n: int) -> Field64:
    """The n words that `encode` wrote.

    Raises:
        Malformed: another size, or a word that is no element of the field.
    """
    if len(body) != 8 * n:
        raise Malformed(f"{len(body)} bytes where {n} elements of Field64 have {8 * n}")
    values = np.frombuffer(body, dtype="<u8").astype(np.uint64)
    if n and values.max() >= _P:
        raise Malformed("a word is no element of Field64")
    return values
