"""What a machine needs at least for a piece of work: reading its data, copying them, making the
keystream that hides them, multiplying them. A benchmark measures these in turn with ours, so that a
row of peer ``floor`` says how far ours is from what cannot be avoided.
"""

from __future__ import annotations

from collections.abc import Callable

import gmpy2
import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

from benchmarks.harness import Row, cost

_RUN = 1 << 17
"""Bytes of keystream at a time, which stay in cache."""
_BLOCK = 4096
"""Columns of an inner product at a time, which stay in cache."""


def floor(case: str, metric: str, what: str, ours: float, seconds: float) -> Row:
    """Ours beside a floor that was measured in the same run; there is no target, because a floor
    is what nothing reaches that does the whole work.
    """
    return cost(case, "floor", f"{metric}: {what}", ours, seconds)


def read(values: Tensor) -> Callable[[], object]:
    """Every value read once."""
    return lambda: torch.linalg.vector_norm(values, dim=-1)


def copied(values: Tensor) -> Callable[[], object]:
    """Every value copied once, into memory that is there already."""
    kept = torch.empty_like(values)
    return lambda: kept.copy_(values)


def keystream(size: int) -> Callable[[], None]:
    """So many bytes of AES-128 in counter mode, made in cache and used for nothing: as GCM has it,
    whose kernels are the faster ones although they hash beside it.
    """
    zeros, out = bytes(_RUN), np.empty(_RUN + 16, dtype=np.uint8)

    def run() -> None:
        stream = Cipher(algorithms.AES(bytes(16)), modes.GCM(bytes(12))).encryptor()
        for start in range(0, size, _RUN):
            stream.update_into(zeros[: size - start], out)

    return run


def inner_products(rows: Tensor) -> Callable[[], object]:
    """All inner products of rows [n, d], by blocks of columns and without looking at any result."""
    values = rows.numpy()
    columns = range(0, values.shape[1], _BLOCK)

    def run() -> object:
        total = np.zeros((len(values), len(values)), dtype=np.float32)
        for start in columns:
            block = values[:, start : start + _BLOCK]
            total += block @ block.T
        return total

    return run


def transforms(blocks: int, length: int) -> Callable[[], None]:
    """The transforms of one ring product in each block: two forward and one back, complex, of this
    length.
    """
    one = np.random.default_rng(0).normal(size=length) + 0j

    def run() -> None:
        for _ in range(blocks):
            np.fft.ifft(np.fft.fft(one) * np.fft.fft(one))

    return run


def modular_products(modulus: int, count: int) -> Callable[[], None]:
    """So many products modulo this number, one after the other."""
    n, x = gmpy2.mpz(modulus), gmpy2.mpz(modulus) * 2 // 3

    def run() -> None:
        y = x
        for _ in range(count):
            y = gmpy2.f_mod(y * x, n)

    return run
