"""Additive shares modulo a power of two: all but one share is a seed."""

from __future__ import annotations

import secrets

import numpy as np

from privfl.core import require
from privfl.crypto.primitives import Words, backend, mask

SEED = 32


def split(values: Words, parties: int) -> tuple[Words, list[bytes]]:
    """One share as a vector, for the first party, and the others' as 32-byte seeds that expand to
    theirs (Corrigan-Gibbs, Boneh 2017).

    Any ``parties`` - 1 of them are independent of the values.

    >>> vector, seeds = split(np.array([7, 9], dtype=np.uint32), 3)
    >>> vector + sum(expand(seed, 2, np.uint32) for seed in seeds)
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
