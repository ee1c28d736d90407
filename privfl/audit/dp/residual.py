"""Tests of noise whose every value is known: what left less what the mechanism was given IS the
noise.

All are one-sided where more noise than claimed is no lie. N values in vectors of d: noise that is
f times what is claimed shows at |f^2 - 1| sqrt(N / 2) deviations, correlation r between rounds at
r sqrt(d), and r between each round and the next at r sqrt(N).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, ndtr, ndtri

from privfl.audit.dp.evidence import Test
from privfl.core import DpEvent, Sensitivity

Noise = npt.NDArray[np.float64]
FEW = 32
"""Vectors shorter than this are not correlated with each other: two numbers always are."""
SEEN = 0.95
"""The chance with which a least lie is seen."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What noise is claimed to be: its family, and its scale: the deviation of a Gaussian, or that
    of a Laplace distribution in the usual parameter b.
    """

    family: str
    scale: float


def claimed(event: DpEvent | None, far: Sensitivity, d: int) -> Shape | None:
    """The noise on a vector [d] that one neighbour moves by ``far``, as an event claims it; None
    where this audit does not know the event.

    >>> claimed(DpEvent("gaussian", {"noise_multiplier": 2.0}), Sensitivity(0.5), 10)
    Shape(family='gaussian', scale=1.0)
    """
    if event is None:
        return None
    numbers = event.parameters
    if event.mechanism == "gaussian":
        return Shape("gaussian", float(numbers["noise_multiplier"] * far.l2))
    if event.mechanism in ("discrete_gaussian", "skellam"):
        return Shape("gaussian", math.sqrt(numbers["variance"]) / numbers["l2"] * float(far.l2))
    if event.mechanism == "laplace":
        return Shape("laplace", numbers["scale"] * min(float(far.l1), math.sqrt(d) * far.l2))
    return None


def variance_test(noise: Sequence[Noise], shape: str, about: str) -> Test:
    """Whether noise, in units of its claimed scale, varies less than is claimed: sums of squares of
    Gaussians, and of the absolute values of Laplace draws, are chi-squared.
    """
    from scipy.stats import chi2

    values = np.concatenate(noise)
    if shape == "laplace":
        total, degrees, power = float(2 * np.abs(values).sum()), 2 * len(values), 1.0
    else:
        total, degrees, power = float(np.square(values).sum()), len(values), 2.0
    factor = (total / degrees) ** (1 / power)

    def least(level: float) -> str:
        seen = (chi2.ppf(level, degrees) / chi2.ppf(SEEN, degrees)) ** (1 / power)
        return f"noise x {seen:.3f}"

    return Test(
        "noise variance",
        about,
        f"{factor:.4f} of the claimed deviation in {len(values):,} values",
        float(chi2.cdf(total, degrees)),
        least,
    )


def mean_test(noise: Sequence[Noise], shape: str, about: str) -> Test:
    """Whether noise, in units of its claimed scale, is centred at zero: in units of its own
    deviation, so that more of it than claimed is no bias.
    """
    values = np.concatenate(noise)
    deviation = max(float(np.sqrt(np.square(values).mean())), 1e-300)
    z = float(values.sum() / math.sqrt(len(values)) / deviation)

    def least(level: float) -> str:
        return f"a bias of {_far(level / 2) / math.sqrt(len(values)):.3g} deviations"

    seen = f"{z / math.sqrt(len(values)):+.2g} deviations"
    return Test("noise mean", about, seen, float(2 * ndtr(-abs(z))), least)


def repeat_test(noise: Sequence[Noise], about: str) -> Test | None:
    """Whether any two vectors of noise are alike: the largest of all pairwise correlations, each of
    which has a known distribution for Gaussian noise. None where there are too few.
    """
    d = min(map(len, noise), default=0)
    if len(noise) < 2 or d < FEW:
        return None
    rows = np.stack(
        [vector[:d] / max(float(np.linalg.norm(vector[:d])), 1e-300) for vector in noise]
    )
    alike = np.abs(rows @ rows.T)[np.triu_indices(len(rows), 1)]
    most, pairs = min(float(alike.max()), 1.0), len(alike)

    def least(level: float) -> str:
        return f"correlation {min(_far(level / 2 / pairs) / math.sqrt(d), 1):.3f} of two rounds"

    return Test(
        "noise repeated",
        about,
        f"largest correlation {most:.3f} of {pairs:,} pairs of {d:,} values",
        min(1.0, pairs * float(_as_alike(most, d))),
        least,
    )


def drift_test(runs: Sequence[Sequence[Noise]], about: str) -> Test | None:
    """Whether each round's noise hangs on that of the round before, over all plays together. None
    where there are too few.
    """
    pairs = [(a, b) for run in runs for a, b in pairwise(run) if len(a) == len(b)]
    if not pairs or sum(len(a) for a, _ in pairs) < FEW:
        return None
    one, next_one = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
    n = len(one)
    scale = float(np.linalg.norm(one) * np.linalg.norm(next_one))
    r = float(one @ next_one) / max(scale, 1e-300)

    def least(level: float) -> str:
        return f"correlation {min(_far(level / 2) / math.sqrt(n), 1):.3f} from round to round"

    seen = f"{r:+.4f} in {n:,} values"
    return Test("noise correlated", about, seen, float(_as_alike(min(abs(r), 1.0), n)), least)


def aligned_test(noise: Sequence[Noise], given: Sequence[Noise], about: str) -> Test | None:
    """Whether noise hangs on what it was added to. None where that was always zero."""
    scores = []
    for drawn, vector in zip(noise, given, strict=True):
        length = float(np.linalg.norm(vector))
        if length > 0:
            deviation = max(float(np.sqrt(np.square(drawn).mean())), 1e-300)
            scores.append(float(drawn @ vector) / length / deviation)
    if not scores or min(map(len, noise)) < FEW:
        return None
    z = sum(scores) / math.sqrt(len(scores))

    def least(level: float) -> str:
        far = _far(level / 2) / math.sqrt(len(scores))
        return f"a part of {far:.2g} deviations along the vector"

    return Test("noise aligned", about, f"z = {z:+.2f}", float(2 * ndtr(-abs(z))), least)


def _as_alike(r: float, d: int) -> float:
    """The chance that two independent Gaussian vectors [d] correlate by r or more either way."""
    return float(betainc((d - 1) / 2, 0.5, max(1 - r * r, 0.0)))


def _far(level: float) -> float:
    """How many deviations a shift must have to be seen with chance SEEN at a level."""
    return float(-ndtri(level) + ndtri(SEEN))
