"""Products of a vector over Field64 with random coins of -1, 0 and 1: what shows that a sum of
squares did not wrap around the modulus (Rothblum, Omri, Chen, Talwar 2023, section 3).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from privfl.crypto.mpc import digits
from privfl.crypto.sharing.pine.field64 import Field64, P

_COLUMNS = 1 << 16
_TOP = np.uint64(0x7F7F7F7F7F7F7F7F)
"""The largest word that its eight signed digits stand for themselves; larger ones they mean less
2^64.
"""


def _four_coins() -> npt.NDArray[np.uint32]:
    """For each byte the four coins that it holds, two bits each from the lowest on: 00 is -1, 11 is
    1, and 01 and 10 are 0.
    """
    coin = np.array([-1, 0, 0, 1], dtype=np.int8)
    byte = np.arange(256)
    return coin[np.stack([byte >> 2 * k & 3 for k in range(4)], axis=1)].view(np.uint32)[:, 0]


_COINS = _four_coins()


def coin_bytes(d: int, checks: int) -> int:
    """How many bytes the coins of so many products of vectors [d] take: each product begins a
    byte.
    """
    return checks * -(-d // 4)


def products(vector: Field64, stream: bytes, checks: int) -> Field64:
    """The products [checks] of a vector [d] with the coins of a stream of `coin_bytes` bytes.

    >>> from privfl.crypto.sharing.pine.field64 import words
    >>> products(words([5, 7]), bytes([0b1100]), 1).tolist()  # -1 and 1
    [2]
    """
    d = len(vector)
    packed = np.frombuffer(stream, dtype=np.uint8).reshape(checks, -1)
    sums = np.zeros((checks, 9), dtype=np.int64)
    for start in range(0, d, _COLUMNS):
        part = vector[start : start + _COLUMNS]
        coins = _COINS[packed[:, start // 4 : (start + len(part) + 3) // 4]].view(np.int8)
        wide = np.empty((9, len(part)), dtype=np.int8)
        wide[:8] = digits.split(part[None], 8)[:, 0].numpy()
        wide[8] = part > _TOP
        left = torch.from_numpy(np.ascontiguousarray(coins[:, : len(part)]))
        sums += digits.product(left, torch.from_numpy(wide)).numpy()
    worth = [256**j for j in range(9)]
    exact = [sum(int(s) * w for s, w in zip(row, worth, strict=True)) % P for row in sums]
    return np.array(exact, dtype=np.uint64)
