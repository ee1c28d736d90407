"""Exact matrix products modulo 2^8, 2^16, ..., 2^64 from products of signed 8-bit digits, which
processors multiply fastest.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int8, Int32
from torch import Tensor

U64 = npt.NDArray[np.uint64]
_SIGNED = np.uint64(0x8080808080808080)
_LONGEST = 1 << 16
"""Columns at a time: 2^16 products of 2^14 each stay within 32 bits; libraries wrap above
131071.
"""


def split(words: U64, digits: int) -> Int8[Tensor, "digits m k"]:
    """The lowest signed base-256 digits of words [m, k]: sum of digit j times 256^j is the word
    modulo 256^digits.

    >>> split(np.array([[255]], dtype=np.uint64), 2).flatten().tolist()
    [-1, 1]
    """
    shifted = np.add(words, _SIGNED)
    np.bitwise_xor(shifted, _SIGNED, out=shifted)
    by_digit = shifted.view(np.int8).reshape(*words.shape, 8).transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(by_digit[:digits]))


def product(left: Int8[Tensor, "m k"], right: Int8[Tensor, "n k"]) -> Int32[Tensor, "m n"]:
    """The product left right^T, exact for k up to 2^16."""
    if left.shape[1] > 1 and _fast():  # of one column, the library mistakes the transpose's layout
        return torch._int_mm(left, right.t())
    return (left.to(torch.float64) @ right.to(torch.float64).t()).to(torch.int32)


@cache
def _fast() -> bool:
    """Whether the library's 8-bit product, which is no public promise, is there and right:
    extremes, odd shapes, random digits.
    """
    draw = torch.Generator().manual_seed(1)
    shapes = ((1, 2, 1), (1, 3, 2), (3, 2, 5), (5, 64, 7), (7, 17, 1), (33, 257, 18))
    cases = [
        (
            torch.randint(-128, 128, (m, k), generator=draw),
            torch.randint(-128, 128, (n, k), generator=draw),
        )
        for m, k, n in shapes
    ]
    try:
        return all(
            torch.equal(torch._int_mm(a.to(torch.int8), b.to(torch.int8).t()).long(), a @ b.t())
            for a, b in cases
        ) and all(_extreme(fill) for fill in (-128, 127))
    except (AttributeError, RuntimeError):
        return False


def _extreme(fill: int) -> bool:
    """Whether its longest product of the least digit with this one is right."""
    left = torch.full((16, _LONGEST), -128, dtype=torch.int8)
    right = torch.full((8, _LONGEST), fill, dtype=torch.int8)
    return bool((torch._int_mm(left, right.t()) == -128 * fill * _LONGEST).all())


def times(left: Int8[Tensor, "digits m k"], right: Int8[Tensor, "digits n k"]) -> U64:
    """The product left right^T [m, n] modulo 256^digits (and whatever above that), from both
    operands' digits.

    >>> words = np.array([[3, 2**64 - 1]], dtype=np.uint64)
    >>> times(split(words, 8), split(words, 8)).tolist()
    [[10]]
    """
    digits, m, k = left.shape
    n = right.shape[1]
    total = np.zeros((m, n), dtype=np.uint64)
    for start in range(0, k, _LONGEST):
        part = slice(start, start + _LONGEST)
        stacked = right[:, :, part].reshape(digits * n, -1)
        for i in range(digits):
            row = (
                product(left[i, :, part].contiguous(), stacked[: (digits - i) * n])
                .numpy()
                .astype(np.int64)
            )
            for j in range(digits - i):
                total += row[:, j * n : (j + 1) * n].view(np.uint64) << np.uint64(8 * (i + j))
    return total


def weighed(parts: npt.NDArray[np.int64]) -> U64:
    """The words [m, n] from products with each digit of one operand [m, digits, n]: the sum of part
    j times 256^j.
    """
    shifts = np.arange(parts.shape[1], dtype=np.uint64) * np.uint64(8)
    words: U64 = (parts.view(np.uint64) << shifts[None, :, None]).sum(axis=1, dtype=np.uint64)
    return words


def gram(rows: Int8[Tensor, "digits n k"]) -> U64:
    """The products rows rows^T [n, n], as `times` would, at little over half of its cost: it is
    symmetric.
    """
    digits, n, k = rows.shape
    total = np.zeros((n, n), dtype=np.uint64)
    for start in range(0, k, _LONGEST):
        part = rows[:, :, start : start + _LONGEST].contiguous()
        for i in range((digits + 1) // 2):
            wide = (
                product(part[i], part[i : digits - i].reshape(-1, part.shape[2]))
                .numpy()
                .astype(np.int64)
                .view(np.uint64)
            )
            for j in range(i, digits - i):
                one = wide[:, (j - i) * n : (j - i + 1) * n] << np.uint64(8 * (i + j))
                total += one if i == j else one + one.T
    return total
