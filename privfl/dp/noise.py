"""Random numbers for privacy noise, from a CSPRNG: uniforms, normals, and any distribution on integers without floating point."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from jaxtyping import Float
from torch import Tensor

from privfl.core import NoiseSource

_DIRECT = 1 << 12


def keystream(n: int, noise: NoiseSource) -> bytes:
    """The next n bytes of a noise source; many at once are AES-256-CTR under a fresh key from it, which is forgotten at once.

    A megabyte costs what the operating system's own generator takes for a tenth of it; to tell the two apart is to break AES.
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


def normals(n: int, noise: NoiseSource) -> Float[Tensor, " n"]:
    """N standard normals in float64 (Box, Muller 1958).

    They are floating-point numbers: an adversary who reads the last bits of a release can learn more than the ideal Gaussian tells
    (Mironov 2012). The discrete mechanisms have no such gap.

    >>> from privfl.core import SeededNoise
    >>> abs(normals(100_000, SeededNoise(0)).std().item() - 1) < 0.01
    True
    """
    half = (n + 1) // 2
    drawn = torch.from_numpy(uniforms(2 * half, noise))
    radius = drawn[:half].log_().mul_(-2).sqrt_()
    angle = drawn[half:].mul_(2 * torch.pi)
    result = torch.empty(2 * half, dtype=torch.float64)
    torch.mul(radius, angle.cos(), out=result[:half])
    torch.mul(radius, angle.sin_(), out=result[half:])
    return result[:n]


def exponentials(n: int, noise: NoiseSource) -> Float[Tensor, " n"]:
    """N standard exponentials in float64."""
    return torch.from_numpy(uniforms(n, noise)).log_().neg_()
