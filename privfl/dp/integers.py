"""Noise on integers without floating point: Poisson, Skellam and discrete Gaussian draws from
tables of 128-bit probabilities.

A draw compares random bits with exact integer thresholds, 64 at a time, and 64 more where those
tie. The laws are met to a total variation distance under 2^-100 a draw (what the tables round and
cut), so no low-order bits tell anything (compare Mironov 2012).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from privfl.core import NoiseSource, require
from privfl.dp.noise import words

Integers = npt.NDArray[np.int64]
_UNIT = 1 << 192
"""The weight of the most likely value, in tables."""
_WIDEST = float(1 << 29)
"""The largest Poisson rate with a table of its own; larger ones are sums."""


@lru_cache(maxsize=16)
def _poisson_table(rate: float) -> tuple[int, npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    num, den = Fraction(rate).as_integer_ratio()
    mode = int(rate)
    up, down = [_UNIT], []
    k = mode
    while up[-1]:
        k += 1
        up.append(up[-1] * num // (den * k))
    weight, k = _UNIT, mode
    while weight and k:
        weight = weight * den * k // num
        k -= 1
        down.append(weight)
    return _thresholds(mode - len(down), [*reversed(down), *up])


@lru_cache(maxsize=16)
def _gaussian_table(variance: float) -> tuple[int, npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Weights e^(-k^2 / 2 variance): each is the one before times a ratio that shrinks by e^(-1 /
    variance).
    """
    with localcontext() as context:
        context.prec = 80
        half = (Decimal(-1) / (2 * Decimal(variance))).exp()
        ratio, shrink = int(half * _UNIT), int(half * half * _UNIT)
    side = [_UNIT]
    while side[-1]:
        side.append(side[-1] * ratio // _UNIT)
        ratio = ratio * shrink // _UNIT
    return _thresholds(1 - len(side), [*reversed(side[1:]), *side])


def _thresholds(
    first: int, weights: list[int]
) -> tuple[int, npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The first value, and the cumulated probabilities times 2^128, cut into upper and lower words;
    ends without weight are dropped.
    """
    total = sum(weights)

    def cumulated() -> Iterator[int]:
        reached = 0
        for weight in weights:
            reached += weight
            yield min((reached << 128) // total, (1 << 128) - 1)

    exact = list(cumulated())
    high = np.array([c >> 64 for c in exact], dtype=np.uint64)
    low = np.array([c & ((1 << 64) - 1) for c in exact], dtype=np.uint64)
    return first, high, low


def _draw(
    n: int, table: tuple[int, npt.NDArray[np.uint64], npt.NDArray[np.uint64]], noise: NoiseSource
) -> Integers:
    first, high, low = table
    drawn = words(n, noise)
    index = np.searchsorted(high, drawn, side="left")
    for tie in np.flatnonzero(high[np.minimum(index, len(high) - 1)] == drawn):
        more, k = words(1, noise)[0], index[tie]
        while k < len(high) - 1 and high[k] == drawn[tie] and more >= low[k]:
            k += 1
        index[tie] = k
    return np.minimum(index, len(high) - 1).astype(np.int64) + first


def poisson(n: int, rate: int | float, noise: NoiseSource) -> Integers:
    """N Poisson draws.

    >>> from privfl.core import SeededNoise
    >>> int(poisson(10_000, 4.0, SeededNoise(0)).mean().round())
    4
    """
    require.positive(rate=rate)
    parts = math.ceil(rate / _WIDEST)
    table = _poisson_table(float(rate) / parts)
    total = _draw(n, table, noise)
    for _ in range(parts - 1):
        total += _draw(n, table, noise)
    return total


def skellam(n: int, variance: int | float, noise: NoiseSource) -> Integers:
    """N Skellam draws of mean 0: differences of two Poisson draws. Sums of Skellams are Skellam
    (Agarwal, Kairouz, Liu 2021).

    >>> from privfl.core import SeededNoise
    >>> abs(skellam(100_000, 9.0, SeededNoise(0)).std() - 3) < 0.05
    np.True_
    """
    return poisson(n, variance / 2, noise) - poisson(n, variance / 2, noise)


def discrete_gaussian(n: int, variance: int | float, noise: NoiseSource) -> Integers:
    """N draws of probability proportional to e^(-k^2 / 2 variance) (Canonne, Kamath, Steinke 2020).

    Raises:
        ConfigError: the variance is not in (0, 2^40]: its table would not fit.

    >>> from privfl.core import SeededNoise
    >>> abs(discrete_gaussian(100_000, 9.0, SeededNoise(0)).std() - 3) < 0.05
    np.True_
    """
    require.positive(variance=variance)
    require.within(0, 2**40, variance=variance)
    return _draw(n, _gaussian_table(float(variance)), noise)
