"""The scorer: the one place that holds the ground truth. Attacks hand in claims; figures with
intervals come out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment
from scipy.stats import beta
from torch import Tensor
from torch.nn import functional

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its 95 % interval; NaN ends where there is none.

    >>> str(Figure(0.5, 0.4, 0.6))
    '0.500 [0.400, 0.600]'
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")

    def __str__(self) -> str:
        return f"{self.value:.3f}" + (
            f" [{self.low:.3f}, {self.high:.3f}]" if np.isfinite(self.low) else ""
        )

    def holds(self, value: float) -> bool:
        """Whether a value lies in the interval."""
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Membership:
    """How well scores tell members: AUC, balanced accuracy at the best threshold, true positives at
    1 % and 0.1 % false ones, the ROC.
    """

    auc: Figure
    balanced: float
    at_hundredth: Figure
    at_thousandth: Figure
    false_positives: Float[Tensor, " t"]
    true_positives: Float[Tensor, " t"]


def proportion(hits: int, of: int, confidence: float = 0.95) -> Figure:
    """A proportion with its exact interval (Clopper, Pearson 1934).

    >>> str(proportion(0, 100))
    '0.000 [0.000, 0.036]'
    """
    if of == 0:
        return Figure(float("nan"))
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, of - hits + 1))
    high = 1.0 if hits == of else float(beta.ppf(1 - tail, hits + 1, of - hits))
    return Figure(hits / of, low, high)


def membership(
    scores: Float[Tensor, " n"], members: Bool[Tensor, " n"], *, seed: int = 0, draws: int = 200
) -> Membership:
    """Figures of scores against the truth; the AUC's interval by bootstrap over samples, rates' by
    Clopper and Pearson.
    """
    inside, outside = scores[members].double().numpy(), scores[~members].double().numpy()
    rng = np.random.default_rng(seed)
    value = _auc(inside, outside)
    drawn = [
        _auc(
            inside[rng.integers(0, len(inside), len(inside))],
            outside[rng.integers(0, len(outside), len(outside))],
        )
        for _ in range(draws)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    thresholds = np.unique(np.concatenate([inside, outside]))[::-1]
    tpr = np.searchsorted(np.sort(-inside), -thresholds, side="right") / len(inside)
    fpr = np.searchsorted(np.sort(-outside), -thresholds, side="right") / len(outside)
    return Membership(
        auc=Figure(value, float(low), float(high)),
        balanced=float(np.max((tpr + 1 - fpr) / 2)),
        at_hundredth=_at(0.01, fpr, tpr, len(inside)),
        at_thousandth=_at(0.001, fpr, tpr, len(inside)),
        false_positives=torch.from_numpy(np.append(0.0, fpr)).float(),
        true_positives=torch.from_numpy(np.append(0.0, tpr)).float(),
    )


def null_membership(
    scores: Float[Tensor, " n"], members: Bool[Tensor, " n"], *, seed: int = 0
) -> Membership:
    """The control: the same scores against memberships dealt out at random, which must score
    chance.
    """
    order = torch.randperm(len(members), generator=torch.Generator().manual_seed(seed + 7919))
    return membership(scores, members[order], seed=seed)


def _auc(inside: Floats, outside: Floats) -> float:
    """The chance that a member scores above a non-member, ties by half."""
    ordered = np.sort(outside)
    below, upto = (
        np.searchsorted(ordered, inside, side="left"),
        np.searchsorted(ordered, inside, side="right"),
    )
    return float((below + upto).mean() / (2 * len(outside)))


def _at(rate: float, fpr: Floats, tpr: Floats, n: int) -> Figure:
    allowed = tpr[fpr <= rate]
    return proportion(round(float(allowed.max()) * n) if len(allowed) else 0, n)


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


def pictures(found: Tensor, true: Tensor, peak: float = 1.0) -> Pictures:
    """Match reconstructions [m, ...] to originals [n, ...] (Hungarian, on squared error), then
    score each original.
    """
    k = len(true)
    if len(found) < k:  # an attack that found fewer says its last one again
        found = torch.cat([found, found[-1:].expand(k - len(found), *found.shape[1:])])
    errors = torch.cdist(true.flatten(1).double(), found.flatten(1).double()).square()
    _, chosen = linear_sum_assignment(errors.numpy())
    matched = found[torch.from_numpy(chosen)]
    mse = (matched - true).flatten(1).double().square().mean(dim=1).clamp(min=1e-14)
    return Pictures(
        matched, true, (10 * torch.log10(peak**2 / mse)).float(), ssim(matched, true, peak)
    )


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
