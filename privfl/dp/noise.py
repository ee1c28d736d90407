"""Random numbers for privacy noise, from a CSPRNG: bits, uniforms, normals."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from jaxtyping import Float
from torch import Tensor

from privfl.core import NoiseSource

_DIRECT = 1 << 12
_BLOCK = 1 << 16
_MASK = (1 << 31) - 1
_FEW = 1 << 13
"""Of 2^31: so many numbers at either end, which make radii beyond 5 and under 0.003, are drawn to
2^-84 and not to 2^-31.
"""


def keystream(n: int, noise: NoiseSource) -> bytes:
    """The next n bytes of a noise source; many at once are AES-256-CTR under a fresh key from it,
    which is forgotten at once.

    A megabyte then costs a tenth of what the operating system's own generator takes; to tell the
    two apart is to break AES.
    """
    if n <= _DIRECT:
        return noise.random_bytes(n)
    return (
        Cipher(algorithms.AES(noise.random_bytes(32)), modes.CTR(bytes(16)))
        .encryptor()
        .update(bytes(n))
    )


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


def write_normals(
    out: Float[Tensor, " n"], deviation: int | float, noise: NoiseSource
) -> Float[Tensor, " n"]:
    """Fill a vector with N(0, deviation^2) (Box, Muller 1958). An accelerator computes its own from
    words that are drawn here: of a seed other numbers than on the CPU, in vectors of over 2^17.

    Radii come from 31 bits, and from 84 where they are large, or so small that float32 could not
    tell them apart; angles have 32. The result is in floating point: an adversary who reads the
    last bits of a release can learn more than the ideal Gaussian tells (Mironov 2012). The discrete
    mechanisms have no such gap.
    """
    if out.dtype not in (torch.float32, torch.float64):
        return out.copy_(write_normals(torch.empty(len(out)), deviation, noise))
    if out.device.type == "cpu":
        _write_here(out.detach().numpy(), deviation, noise)
    else:
        _write_there(out.detach(), deviation, noise)
    return out


def _write_here(
    written: npt.NDArray[np.floating], deviation: int | float, noise: NoiseSource
) -> None:
    double = written.dtype == np.float64
    for start, raw, few, refined in _draws(len(written), noise):
        # float32 takes the place of the words that it is made from
        values = raw.astype(np.float64) if double else raw.view(np.float32)
        if not double:
            np.copyto(values, raw, casting="unsafe")
        m = len(raw) // 2
        radius, angle = values[:m], values[m:]
        radius *= values.dtype.type(2.0**-31)
        with np.errstate(divide="ignore"):  # a zero is one of the few
            np.log(radius, out=radius)
        radius *= values.dtype.type(-2 * deviation**2)
        np.sqrt(radius, out=radius)
        radius[few] = refined * deviation
        angle *= values.dtype.type(math.pi * 2.0**-31)
        first, second = written[2 * start : 2 * start + m], written[2 * start + m : 2 * (start + m)]
        _turn(angle, first)  # one sine more than asked for at the end of an odd length
        first *= radius
        np.multiply(angle[: len(second)], radius[: len(second)], out=second)


def _write_there(out: Float[Tensor, " n"], deviation: int | float, noise: NoiseSource) -> None:
    for start, raw, few, refined in _draws(len(out), noise):
        m, values = len(raw) // 2, torch.from_numpy(raw).to(out.device).to(out.dtype)
        radius, angle = values[:m], values[m:]
        radius.mul_(2.0**-31).log_().mul_(-2 * deviation**2).sqrt_()
        if len(few):
            exact = torch.from_numpy(refined * deviation).to(out.dtype).to(out.device)
            radius.index_copy_(0, torch.from_numpy(few).to(out.device), exact)
        angle.mul_(math.pi * 2.0**-31)
        first, second = out[2 * start : 2 * start + m], out[2 * start + m : 2 * (start + m)]
        torch.mul(angle.cos(), radius, out=first)
        torch.mul(angle[: len(second)].sin(), radius[: len(second)], out=second)


def _draws(
    n: int, noise: NoiseSource
) -> Iterator[tuple[int, npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
    """What n normals are made of, in blocks of one size, which stay in the cache: the number of
    pairs before a block, its words (for radii [m], of 31 bits, then for angles [m], to be used or
    written over before the next block), which radii are told apart by more bits, and these.
    """
    pairs = (n + 1) // 2
    size = math.ceil(pairs / math.ceil(pairs / _BLOCK)) if pairs else 1
    stream = _Blocks(8 * size, 8 * pairs, noise)
    none = np.zeros(0, dtype=np.int64), np.zeros(0)
    for start in range(0, pairs, size):
        m = min(size, pairs - start)
        raw = np.frombuffer(stream.next(8 * m), dtype="<i4")
        drawn = np.bitwise_and(raw[:m], _MASK, out=raw[:m])
        if drawn.min() < _FEW or drawn.max() > _MASK - _FEW:
            few = np.flatnonzero((drawn < _FEW) | (drawn > _MASK - _FEW))
            yield start, raw, few, _refined(drawn[few], noise)
        else:
            yield start, raw, *none


def _turn(angle: npt.NDArray[np.floating], cosine: npt.NDArray[np.floating]) -> None:
    """Write cosines, and sines in the angles' place: numpy takes a quarter of torch's time in
    float32, and ten times as much in float64.
    """
    if angle.dtype == np.float32:
        np.cos(angle, out=cosine)
        np.sin(angle, out=angle)
    else:
        there = torch.from_numpy(angle)
        torch.cos(there, out=torch.from_numpy(cosine))
        there.sin_()


def _refined(drawn: npt.NDArray[np.int32], noise: NoiseSource) -> npt.NDArray[np.float64]:
    """Radii of numbers at both ends, with 53 more bits below the point: the tail then ends at 10.8,
    and no radius is a round number.
    """
    radii: npt.NDArray[np.float64] = np.sqrt(
        -2 * np.log((drawn + uniforms(len(drawn), noise)) * 2.0**-31)
    )
    return radii


class _Blocks:
    """One keystream (AES-128-CTR under a fresh key) in blocks, each written over what became of the
    one before.

    Keystream on top of bytes that do not depend on it is as uniform as alone.
    """

    def __init__(self, block: int, total: int, noise: NoiseSource) -> None:
        self.noise = noise
        self.buffer = np.zeros(block + 16, dtype=np.uint8).data
        self.stream = (
            Cipher(algorithms.AES(noise.random_bytes(16)), modes.CTR(bytes(16))).encryptor()
            if total > _DIRECT
            else None
        )

    def next(self, n: int) -> memoryview:
        """The next n bytes, to be used and overwritten before the call after."""
        here = self.buffer
        if self.stream is None:
            here[:n] = self.noise.random_bytes(n)
        else:
            self.stream.update_into(here[:n], here)
        return here[:n]


def exponentials(n: int, noise: NoiseSource) -> Float[Tensor, " n"]:
    """N standard exponentials in float64."""
    return torch.from_numpy(uniforms(n, noise)).log_().neg_()
