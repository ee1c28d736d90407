"""A fixed wavelet scattering of images: features that no data was used to choose (Bruna,
Mallat 2013; Tramèr, Boneh 2021).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ORIENTATIONS = 8
GROUPS = 27
_SIDE = 7
"""Taps of a wavelet, at its own resolution: the coarser scale is filtered on images of half the
size.
"""


def wavelets() -> Tensor:
    """Morlet wavelets of one scale in 8 orientations, their real parts and then their imaginary
    parts [16, 1, 7, 7].
    """
    at = torch.arange(_SIDE) - _SIDE // 2
    y, x = torch.meshgrid(at.float(), at.float(), indexing="ij")
    sigma, frequency, slant = 0.8, 3 * math.pi / 4, 4 / ORIENTATIONS
    kernels = []
    for turn in range(ORIENTATIONS):
        theta = math.pi * turn / ORIENTATIONS
        along, across = (
            x * math.cos(theta) + y * math.sin(theta),
            -x * math.sin(theta) + y * math.cos(theta),
        )
        envelope = torch.exp(-(along**2 + (slant * across) ** 2) / (2 * sigma**2))
        wave = torch.polar(envelope, frequency * along)
        wave = wave - envelope * (wave.sum() / envelope.sum())  # no response to a constant
        kernels.append(wave / wave.abs().sum())
    stacked = torch.stack(kernels)
    return torch.cat([stacked.real, stacked.imag])[:, None]


def _modulus(maps: Tensor, filters: Tensor) -> Tensor:
    """|map * wavelet| for each map [n, c, h, w] and each orientation: [n, 8 c, h, w]."""
    n, c, h, w = maps.shape
    found = F.conv2d(maps.reshape(n * c, 1, h, w), filters, padding=_SIDE // 2)
    return torch.hypot(*found.chunk(2, dim=1)).view(n, c * ORIENTATIONS, h, w)


@torch.no_grad()
def scattering(images: Tensor, block: int = 500) -> Tensor:
    """Averages, first- and second-order coefficients at two scales [n, 81 c, h / 4, w / 4] of
    images [n, c, h, w], one colour after the other.

    Each image is normalised by itself in 27 groups of channels, which needs no statistics of the
    data, so nothing is spent on it.
    """
    filters, out = wavelets(), []
    for part in torch.split(images, block):
        colours = [_coefficients(colour, filters) for colour in part.split(1, dim=1)]
        out.append(F.group_norm(torch.cat(colours, dim=1), GROUPS))
    return torch.cat(out)


def _coefficients(grey: Tensor, filters: Tensor) -> Tensor:
    """The 81 maps [n, 81, h / 4, w / 4] of one colour [n, 1, h, w]."""
    first, half = _modulus(grey, filters), F.avg_pool2d(grey, 2)
    second, coarse = _modulus(F.avg_pool2d(first, 2), filters), _modulus(half, filters)
    maps = [
        F.avg_pool2d(grey, 4),
        F.avg_pool2d(first, 4),
        F.avg_pool2d(coarse, 2),
        F.avg_pool2d(second, 2),
    ]
    return torch.cat(maps, dim=1)
