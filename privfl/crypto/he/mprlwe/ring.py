"""Arithmetic in Z_q[X] / (X^N + 1) with N = 4096 and q = 2^96: three 32-bit limbs a coefficient,
products by floating-point FFT.

A product of a polynomial with a small one (ternary keys and their sums) is computed limb by limb in
complex128 with the right-angle convolution: folding X^(N/2) = i makes a negacyclic product of N
reals one cyclic product of N/2 complex numbers. Every limb product is an integer below 2^48, and
the FFT's error is below 0.1, so rounding is exact; docs/mp-rlwe.md has the bound.

Coefficients lie in memory as 0, N/2, 1, N/2 + 1, ...: a row of N reals then IS its folded row of
N/2 complex numbers.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

N = 4096
LIMBS = 3
BLOCK = 8
"""Polynomials worked on at once: their transforms stay in the cache."""
_MASK = np.int64(0xFFFFFFFF)
_TWIST = torch.exp(1j * math.pi / N * torch.arange(N // 2, dtype=torch.float64))
_UNTWIST = _TWIST.conj().resolve_conj()
_ROUND = 1.5 * 2.0**52
"""Added to a double below 2^51, it leaves the nearest integer in the low bits."""
SHIFT = int(np.float64(_ROUND).view(np.int64))
"""What rounding by `_ROUND` adds to the bits."""

Words: TypeAlias = npt.NDArray[np.uint32]
"""Limbs [3, k, N], the lowest first, or one limb of them [k, N]."""
Small: TypeAlias = npt.NDArray[np.int8]
"""Small signed coefficients [k, N]."""


def spectrum(coefficients: npt.NDArray[Any]) -> torch.Tensor:
    """The folded transform of polynomials [..., N], complex [..., N / 2]."""
    folded = torch.from_numpy(coefficients.astype(np.float64).view(np.complex128))
    transform: torch.Tensor = torch.fft.fft(folded * _TWIST)
    return transform


def product(left: torch.Tensor, right: torch.Tensor) -> npt.NDArray[np.int64]:
    """The exact integer coefficients [..., N] of a product of two spectra, not reduced."""
    whole = shifted_product(left, right)
    whole -= SHIFT
    return whole


def shifted_product(left: torch.Tensor, right: torch.Tensor) -> npt.NDArray[np.int64]:
    """`product` with `SHIFT` added to every number, for who adds something to them all anyway."""
    folded = torch.fft.ifft(left * right)
    folded *= _UNTWIST
    values = torch.view_as_real(folded).flatten(-2)
    values += _ROUND
    return values.view(torch.int64).numpy()


def carried(
    low: npt.NDArray[np.int64], middle: npt.NDArray[np.int64], high: npt.NDArray[np.int64]
) -> Words:
    """Limbs mod 2^96 of low + 2^32 middle + 2^64 high, all signed; carries travel upwards."""
    out = np.empty((LIMBS, *low.shape), dtype=np.uint32)
    out[0] = low & _MASK
    middle = middle + (low >> 32)
    out[1] = middle & _MASK
    out[2] = (high + (middle >> 32)) & _MASK
    return out


def top(
    low: npt.NDArray[np.int64], middle: npt.NDArray[np.int64], high: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint32]:
    """The highest limb of the same number, rounded to it: 32 bits [k, N]."""
    carry = middle + (low >> 32)
    carry += 1 << 31
    carry >>= 32
    carry += high
    return carry.astype(np.uint32)  # conversion to 32 bits wraps


def summed(terms: list[Words]) -> Words:
    """The sum mod 2^96 of polynomials [3, k, N]."""
    if len(terms) == 1:
        return terms[0]
    low, middle, high = (terms[0][limb].astype(np.uint64) for limb in range(LIMBS))
    for term in terms[1:]:
        low += term[0]
        middle += term[1]
        high += term[2]
    middle += low >> np.uint64(32)
    high += middle >> np.uint64(32)
    return np.stack([low.astype(np.uint32), middle.astype(np.uint32), high.astype(np.uint32)])


def times(polynomials: Words, small: torch.Tensor, noise: Words | None = None) -> Words:
    """Each polynomial [3, k, N] times the small one with this spectrum, plus noise [3, k, N], mod
    2^96.
    """
    out = np.empty_like(polynomials)
    for start in range(0, polynomials.shape[1], BLOCK):
        block = slice(start, start + BLOCK)
        done = product(spectrum(polynomials[:, block]), small)
        if noise is not None:
            done += noise[:, block]
        out[:, block] = carried(done[0], done[1], done[2])
    return out
