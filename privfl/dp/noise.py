"""Random numbers for privacy noise, from a CSPRNG: bits, uniforms, normals."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from jaxtyping import Float
from torch import Tensor

from privfl.core import NoiseSource

_DIRECT = 1 << 12
_BLOCK = 1 << 15
_TAIL = 1 << 12
"""Of 2^32: radii beyond 5.3 have their uniform number drawn to 2^-85 and not to 2^-32."""


def keystream(n: int, noise: NoiseSource) -> bytes:
    """The next n bytes of a noise source; many at once are AES-256-CTR under a fresh key from it, which is forgotten at once.

    A megabyte then costs a tenth of what the operating system's own generator takes; to tell the two apart is to break AES.
    """
    if n <= _DIRECT:
        return noise.random_bytes(n)
    return Cipher(algorithms.AES(noise.random_bytes(32)), modes.CTR(bytes(16))).encryptor().update(bytes(n))


def words(n: int, noise: NoiseSource) -> npt.NDArray[np.uint64]:
    """N uniform 64-bit words."""
    return np.frombuffer(keystream(8 * n, noise), dtype="<u8")


def uniforms(n: int, noise: NoiseSource) -> npt.NDArray[np.float64]:
    """N numbers uniform on the multiples of 2^-53 in (0, 1]: never 0, so a logarithm is safe."""
    return ((words(n, noise) >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53


def normals(n: int, noise: NoiseSource, dtype: torch.dtype = torch.float64) -> Float[Tensor, " n"]:
    """N standard normals.

    >>> from privfl.core import SeededNoise
    >>> abs(normals(100_000, SeededNoise(0)).std().item() - 1) < 0.01
    True
    """
    return write_normals(torch.empty(n, dtype=dtype), 1.0, noise)


def write_normals(out: Float[Tensor, " n"], deviation: int | float, noise: NoiseSource) -> Float[Tensor, " n"]:
    """Fill a vector on the CPU with N(0, deviation^2) (Box, Muller 1958).

    Radii are computed in float64 from 32 bits, and from 85 in the tail; angles have 32. The result is in
    floating point: an adversary who reads the last bits of a release can learn more than the ideal Gaussian tells (Mironov 2012). The
    discrete mechanisms have no such gap.
    """
    n = out.shape[0]
    pairs = (n + 1) // 2
    stream = _Blocks(8 * min(pairs, _BLOCK), 8 * pairs, noise)
    whole = torch.tensor(2 * 32 * math.log(2) * deviation**2, dtype=torch.float64)
    for start in range(0, pairs, _BLOCK):  # a block stays in the cache from its bytes to its normals
        m = min(_BLOCK, pairs - start)
        raw = torch.from_numpy(np.frombuffer(stream.next(8 * m), dtype="<i4"))
        drawn = raw[:m].to(torch.float64).add_(2**31 + 0.5)
        if drawn.min() < _TAIL:
            _refine(drawn, noise)
        # -2 log(u) deviation^2 with u = drawn / 2^32
        radius = torch.add(whole, drawn.log_(), alpha=-2 * deviation**2).sqrt_().to(out.dtype)
        angle = raw[m:].to(out.dtype).mul_(torch.pi * 2.0**-31)
        torch.mul(angle.cos(), radius, out=out[2 * start : 2 * start + m])
        rest = out[2 * start + m : 2 * (start + m)]
        odd = rest.shape[0] - m  # -1 where the last pair gives one normal only
        torch.mul(angle.sin_()[: odd or None], radius[: odd or None], out=rest)
    return out


def _refine(drawn: Float[Tensor, " m"], noise: NoiseSource) -> None:
    """Give the smallest numbers, which make the largest radii, 53 more bits below the point: the tail then ends at 10.8."""
    small = torch.nonzero(drawn < _TAIL).flatten()
    drawn[small] = drawn[small].floor_().add_(torch.from_numpy(uniforms(len(small), noise)))


class _Blocks:
    """One keystream in blocks, each written over the one before: keystream on top of older, independent keystream is as uniform."""

    def __init__(self, block: int, total: int, noise: NoiseSource) -> None:
        self.noise = noise
        self.buffer = bytearray(block + 16)
        self.stream = Cipher(algorithms.AES(noise.random_bytes(32)), modes.CTR(bytes(16))).encryptor() if total > _DIRECT else None

    def next(self, n: int) -> memoryview:
        """The next n bytes, to be used and overwritten before the call after."""
        here = memoryview(self.buffer)
        if self.stream is None:
            here[:n] = self.noise.random_bytes(n)
        else:
            self.stream.update_into(here[:n], here)
        return here[:n]


def exponentials(n: int, noise: NoiseSource) -> Float[Tensor, " n"]:
    """N standard exponentials in float64."""
    return torch.from_numpy(uniforms(n, noise)).log_().neg_()
