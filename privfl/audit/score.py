"""The scorer of labels and pictures: attacks hand in claims, and the truth is held against them.
`privfl.audit.ranking` scores who ranks members above others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from privfl.audit.intervals import Figure, proportion
from privfl.audit.ranking import Membership, membership, null_membership

__all__ = [
    "EXACT",
    "Figure",
    "Membership",
    "Pictures",
    "decibels",
    "joined",
    "membership",
    "null_membership",
    "pictures",
    "prior",
    "proportion",
    "ssim",
]

EXACT = 140.0
"""The PSNR in dB of what is the same to the bit, or nearly: no figure is higher at a peak of 1."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Reconstructions beside their originals [n, ...] in original units, matched; PSNR in dB and
    SSIM of each.
    """

    found: Tensor
    true: Tensor
    psnr: Float[Tensor, " n"]
    ssim: Float[Tensor, " n"]

    @property
    def over_20(self) -> Figure:
        """The share of samples above 20 dB."""
        return proportion(int((self.psnr > 20).sum()), len(self.psnr))


def joined(parts: Sequence[Pictures]) -> Pictures:
    """Pictures of several rows together."""
    return Pictures(
        torch.cat([part.found for part in parts]),
        torch.cat([part.true for part in parts]),
        torch.cat([part.psnr for part in parts]),
        torch.cat([part.ssim for part in parts]),
    )


def pictures(found: Tensor, true: Tensor, peak: float = 1.0) -> Pictures:
    """Match reconstructions [m, ...] to originals [n, ...] (Hungarian, on squared error), then
    score each original.
    """
    matched, psnr = _matched(found, true, peak)
    return Pictures(matched, true, psnr, ssim(matched, true, peak))


def decibels(found: Tensor, true: Tensor, peak: float = 1.0) -> Float[Tensor, " n"]:
    """The PSNR of each original alone, as `pictures` matches and scores it.

    >>> true = torch.eye(4).view(4, 1, 2, 2)
    >>> decibels(true.flip(0) + 0.1, true)
    tensor([20., 20., 20., 20.])
    """
    return _matched(found, true, peak)[1]


def _matched(found: Tensor, true: Tensor, peak: float) -> tuple[Tensor, Float[Tensor, " n"]]:
    """For each original the reconstruction that is matched to it, and its PSNR."""
    from scipy.optimize import linear_sum_assignment

    k = len(true)
    if len(found) < k:  # an attack that found fewer says its last one again
        found = torch.cat([found, found[-1:].expand(k - len(found), *found.shape[1:])])
    if len(found) > 1:
        errors = torch.cdist(true.flatten(1).double(), found.flatten(1).double()).square()
        found = found[torch.from_numpy(linear_sum_assignment(errors.numpy())[1])]
    mse = (found - true).flatten(1).double().square().mean(dim=1).clamp(min=10 ** (-EXACT / 10))
    return found, (10 * torch.log10(peak**2 / mse)).float()


def ssim(a: Tensor, b: Tensor, peak: float = 1.0) -> Float[Tensor, " n"]:
    """Structural similarity (Wang, Bovik, Sheikh, Simoncelli 2004) of images [n, c, h, w] in
    uniform windows of up to 7 pixels; cosine of what is no image.
    """
    if a.ndim != 4:
        return functional.cosine_similarity(a.flatten(1), b.flatten(1), dim=1).float()
    window = min(7, a.shape[-1], a.shape[-2])

    def mean(x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, window, stride=1)

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    index = ((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    return index.flatten(1).mean(dim=1).float()


def prior(auxiliary: Tensor, true: Tensor, peak: float = 1.0) -> Pictures:
    """The baseline without any view: the mean auxiliary sample of [m, ...], claimed for every
    original [n, ...].
    """
    return pictures(
        auxiliary.mean(dim=0, keepdim=True).expand(len(true), *true.shape[1:]), true, peak
    )
