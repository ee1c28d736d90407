"""Additive shares modulo 2^16, 2^32 or 2^64: all but one share is a seed."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from privfl.core import require
from privfl.crypto.primitives import Words, backend, mask

U64 = npt.NDArray[np.uint64]
SEED = 32


def split(values: Words, parties: int) -> tuple[Words, list[bytes]]:
    """One share as a vector, for the first party, and the others' as 32-byte seeds that expand to
    theirs (Corrigan-Gibbs, Boneh 2017).

    Any ``parties`` - 1 of them are independent of the values.

    >>> vector, seeds = split(np.array([7, 9], dtype=np.uint32), 3)
    >>> combine([vector, *(expand(seed, 2, np.uint32) for seed in seeds)])
    array([7, 9], dtype=uint32)
    """
    require.at_least(2, parties=parties)
    seeds = [secrets.token_bytes(SEED) for _ in range(parties - 1)]
    vector = values.copy()
    mask(vector, [(seed, -1) for seed in seeds], backend())
    return vector, seeds


def expand(seed: bytes, n: int, dtype: type[np.unsignedinteger]) -> Words:
    """The share [n] that a seed stands for."""
    share: Words = np.zeros(n, dtype=dtype)
    mask(share, [(seed, 1)], backend())
    return share


def combine(shares: Sequence[Words]) -> Words:
    """The values: the sum of all shares, modulo the word."""
    total = shares[0].copy()
    for share in shares[1:]:
        np.add(total, share, out=total)
    return total


def uniform(shape: Sequence[int]) -> U64:
    """A uniform array modulo 2^64 under a fresh seed."""
    return (
        expand(secrets.token_bytes(SEED), int(np.prod(shape)), np.uint64)
        .astype(np.uint64, copy=False)
        .reshape(shape)
    )


def split_whole(values: U64, parties: int) -> list[U64]:
    """Shares modulo 2^64 of an array of any shape, all of them as arrays."""
    others = [uniform(values.shape) for _ in range(parties - 1)]
    first = values.copy()
    for share in others:
        first -= share
    return [first, *others]
