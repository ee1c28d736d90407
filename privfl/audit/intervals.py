"""Figures with their intervals: of proportions, of means over clusters, of areas under a curve."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

Floats: TypeAlias = npt.NDArray[np.float64]
FEW = 10
"""Under so many clusters a bootstrap has too few of them to draw from, and Student's t is used."""
_Z = float(ndtri(0.975))


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its 95 % interval; NaN ends where there is none. NaN itself says that there
    were too few samples to measure it.

    >>> str(Figure(0.5, 0.4, 0.6)), str(Figure(float("nan")))
    ('0.500 [0.400, 0.600]', 'too few samples')
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")

    def __str__(self) -> str:
        if not np.isfinite(self.value):
            return "too few samples"
        return f"{self.value:.3f}" + (
            f" [{self.low:.3f}, {self.high:.3f}]" if np.isfinite(self.low) else ""
        )

    def holds(self, value: float) -> bool:
        """Whether a value lies in the interval."""
        return self.low <= value <= self.high


def proportion(hits: int, of: int, confidence: float = 0.95) -> Figure:
    """A proportion with its exact interval (Clopper, Pearson 1934).

    >>> str(proportion(0, 100))
    '0.000 [0.000, 0.036]'
    """
    from scipy.stats import beta

    if of == 0:
        return Figure(float("nan"))
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, of - hits + 1))
    high = 1.0 if hits == of else float(beta.ppf(1 - tail, hits + 1, of - hits))
    return Figure(hits / of, low, high)


def clustered_mean(values: Floats, weights: Floats, *, seed: int = 0, draws: int = 1000) -> Figure:
    """The weighted mean of one value a cluster, with clusters resampled: what hangs together in a
    cluster is drawn together.

    The bootstrap's quantiles are stretched for the number of clusters (Hesterberg 2015, section
    3.4); under ten clusters the interval is Student's.

    >>> str(clustered_mean(np.array([0.0, 1.0]), np.ones(2)))
    '0.500 [-5.853, 6.853]'
    """
    from scipy.stats import t

    k = len(values)
    if k == 0:
        return Figure(float("nan"))
    value = float(weights @ values / weights.sum())
    if k == 1:
        return Figure(value, -math.inf, math.inf)
    if k < FEW:
        off = weights * (values - value)
        deviation = math.sqrt(float(off @ off) * k / (k - 1)) / float(weights.sum())
        reach = float(t.ppf(0.975, k - 1)) * deviation
        return Figure(value, value - reach, value + reach)
    drawn = multiplicities(k, seed, draws)
    low, high = stretched((drawn @ (weights * values)) / (drawn @ weights), value, k)
    return Figure(value, low, high)


def clustered_share(values: Floats, weights: Floats, units: int, *, seed: int = 0) -> Figure:
    """The weighted mean of one share a cluster, with clusters resampled, and with an interval no
    narrower than that of so many independent units: shares that are all alike have no spread, and
    are not certain for that. Of one cluster alone it is that of the units.

    Where weights are very unequal, or units of one cluster alone hang together, it holds the truth
    less often than in 95 % of cases.

    >>> str(clustered_share(np.ones(4), np.ones(4), 24))
    '1.000 [0.858, 1.000]'
    """
    told = clustered_mean(values, weights, seed=seed)
    apart = proportion(round(told.value * units), units)
    if len(values) == 1:
        return apart
    low, high = min(told.low, apart.low), max(told.high, apart.high)
    return Figure(told.value, max(0.0, min(low, told.value)), min(1.0, max(high, told.value)))


def multiplicities(k: int, seed: int, draws: int) -> Floats:
    """How often each of k clusters is drawn, in each of so many draws [draws, k]."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(k, np.full(k, 1 / k), size=draws)
    return drawn.astype(np.float64)


def stretched(drawn: Floats, value: float, k: int) -> tuple[float, float]:
    """The ends of a bootstrap interval over k clusters: its quantiles, as much farther from the
    value as Student's t with k - 1 degrees of freedom and the unbiased variance ask for.
    """
    from scipy.stats import t

    factor = math.sqrt(k / (k - 1)) * float(t.ppf(0.975, k - 1))
    below, above = ndtr(-factor), ndtr(factor)
    low, high = np.quantile(drawn, [float(below), float(above)])
    return min(float(low), value), max(float(high), value)


def auc_figure(value: float, inside: float, outside: float) -> Figure:
    """An area under the ROC curve of so many independent members and non-members, with its score
    interval (Newcombe 2006, method 5, with Hanley and McNeil's variance): at .5 it is the test of
    Mann and Whitney, and it has a width at 1 too.

    >>> str(auc_figure(1.0, 10, 10))
    '1.000 [0.800, 1.000]'
    """
    from scipy.optimize import brentq

    among = (inside + outside) / 2

    def deviation(theta: float) -> float:
        extra = (among - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return math.sqrt(theta * (1 - theta) * (1 + extra) / (inside * outside))

    def off(theta: float) -> float:
        return abs(value - theta) - _Z * deviation(theta)

    low = 0.0 if value <= 1e-9 else float(brentq(off, 0.0, value - 1e-9))
    high = 1.0 if value >= 1 - 1e-9 else float(brentq(off, value + 1e-9, 1.0))
    return Figure(value, low, high)
