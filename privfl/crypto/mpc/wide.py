"""Authenticated words of 64 bits of which all count: shares, keys and proofs are modulo 2^128
(SPDZ2k with k = s = 64: Cramer, Damgard, Escudero, Scholl and Xing 2018).

A word of 128 bits travels and rests as two of 64, the lower one first; sums and products are those
of Python's integers, so they are for few words. An error that is not 0 modulo 2^64 passes the one
key with a chance of 2^-65 at most. Who opens a word masks the bits above the 64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from privfl.crypto.mpc.words import U64

Integers = npt.NDArray[np.object_]
"""Python's integers, in an array."""
WIDE = 128
_MASK, _LOW = (1 << WIDE) - 1, (1 << 64) - 1


def numbers(words: U64) -> Integers:
    """The integers [...] that halves [..., 2] stand for.

    >>> numbers(np.array([[5, 1]], dtype=np.uint64)).tolist() == [2**64 + 5]
    True
    """
    found: Integers = words[..., 0].astype(object) + words[..., 1].astype(object) * (1 << 64)
    return found


def halves(values: Integers) -> U64:
    """The halves [..., 2] of integers [...] modulo 2^128.

    >>> halves(np.array([-1], dtype=object)).tolist() == [[2**64 - 1, 2**64 - 1]]
    True
    """
    whole = np.asarray(values, dtype=object) & _MASK
    return np.stack([(whole & _LOW).astype(np.uint64), (whole >> 64).astype(np.uint64)], axis=-1)


def off_key(values: U64, macs: U64, key: int) -> U64:
    """How far a party's shares of MACs are from the opened values times its share of the key, in
    halves [n, 2] as these.
    """
    return halves(numbers(macs) - numbers(values) * key)


def opposite(words: U64) -> U64:
    """Halves [n, 2] of the negative integers."""
    return halves(-numbers(words))


def plus(left: U64, right: U64) -> U64:
    """Halves [n, 2] of the sums modulo 2^128."""
    return halves(numbers(left) + numbers(right))
