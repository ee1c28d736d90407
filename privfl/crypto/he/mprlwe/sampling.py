"""Secret randomness: an AES-256-CTR stream under a fresh key of the operating system's, and the
distributions drawn from it.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from privfl.core import KeepsSecrets
from privfl.crypto.he.mprlwe.ring import LIMBS, N, Small, Words, carried
from privfl.crypto.primitives import backend
from privfl.crypto.primitives.stream import keystream, next_words

ERROR = 24
"""Errors are centred binomial of this parameter: standard deviation sqrt(24 / 2) = 3.46, magnitude
at most 24.
"""
_STEP, _AT_ONCE = 28, 16
_TRIT = (np.arange(256) % 3 - 1).astype(np.int8)


class Stream(KeepsSecrets):
    """Random bytes for one encryption or one decryption; it does not serialise and is not kept."""

    def __init__(self) -> None:
        self._stream = keystream(os.urandom(32), backend())

    def words(self, n: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The next n words of a type, which nobody else holds."""
        return next_words(self._stream, n, dtype)

    def ternary(self, k: int) -> Small:
        """Uniform in {-1, 0, 1}, [k, N]."""
        raw = self.words(k * N, np.uint8)
        while (
            again := np.flatnonzero(raw == 255)
        ).size:  # 255 of the 256 bytes split evenly in three
            raw[again] = self.words(again.size, np.uint8)
        trits: Small = _TRIT[raw].reshape(k, N)
        return trits

    def error(self, k: int) -> Small:
        """Centred binomial, [k, N]."""
        counts = np.bitwise_count(self.words(6 * k * N, np.uint8))
        plus, minus = counts.view(np.int8).reshape(2, 3, k, N)
        errors: Small = plus[0] + plus[1] + plus[2]
        for some in minus:
            errors -= some
        return errors

    def smudge(self, k: int, bits: int) -> Words:
        """Gaussian integers of standard deviation 2^bits as limbs mod 2^96, [3, k, N]; bits from 40
        to 76.

        A double has no low bits at such a width, so two are added: one of deviation 2^32, and 2^28
        times one of deviation 2^(bits - 28). The first is 16 times wider than the steps of the
        second, which makes the sum a Gaussian over all integers (Micciancio and Walter 2017,
        theorem 2).
        """
        out = np.empty((LIMBS, k, N), dtype=np.uint32)
        for start in range(0, k, _AT_ONCE):
            block = slice(start, min(start + _AT_ONCE, k))
            first, second = self._normal((block.stop - start) * N)
            wide = np.rint(first * 2.0 ** (bits - _STEP)).astype(np.int64).reshape(-1, N)
            narrow = np.rint(second * 2.0 ** (_STEP + 4)).astype(np.int64).reshape(-1, N)
            low = ((wide & ((1 << (32 - _STEP)) - 1)) << _STEP) + narrow
            out[:, block] = carried(low, wide >> (32 - _STEP), np.zeros_like(low))
        return out

    def _normal(self, n: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Two independent sets [n] of standard normal values (Box and Muller 1958), from a uniform
        number of 128 bits, which reaches 13 standard deviations, and an angle.
        """
        high, low, turn = self.words(3 * n, "<u8").reshape(3, n)
        uniform = (high.astype(np.float64) + (low.astype(np.float64) + 0.5) * 2.0**-64) * 2.0**-64
        radius = np.sqrt(-2 * np.log(uniform))
        angle = (turn >> np.uint64(11)).astype(np.float64) * (2 * np.pi * 2.0**-53)
        return radius * np.cos(angle), radius * np.sin(angle)


def uniform_from(seed: bytes) -> Words:
    """The public polynomial [3, 1, N] that everybody derives from a seed (SHAKE-256)."""
    raw = hashlib.shake_256(b"privfl/mp-rlwe/a/1\x00" + seed).digest(4 * LIMBS * N)
    return np.frombuffer(raw, dtype="<u4").astype(np.uint32).reshape(LIMBS, 1, N)
