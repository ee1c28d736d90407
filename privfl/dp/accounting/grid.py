"""Distributions of a privacy loss on a grid, whole arrays at a time: dp-accounting makes, composes
and reads the same ones from point to point in Python, which takes ten times as long.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from privfl.dp.accounting.binomial import Array

_CUT = 1e-15
"""The probability that a composition gives up to infinity."""
_ROUNDS_OFF = 2.0**-51
"""The probability by which float64 may miss for each loss of a composition, which infinity takes:
ten times what transforms are seen to miss by. A tail as small as that is noise of either sign.
"""
_ORDERS = 20


def connected(gap: float, low: int, deltas: Array) -> Any:
    """The distribution whose hockey-stick divergences at the points ``gap * (low + i)`` are these
    [n], n > 1, and larger ones in between (Doroshenko et al. 2022, algorithm 1).
    """
    from dp_accounting.pld import pld_pmf

    falling = np.minimum.accumulate(np.clip(deltas, 0.0, 1.0))
    steps, rise = np.diff(falling), math.expm1(gap)
    masses = np.empty_like(falling)
    masses[0] = 1 - falling[0] + steps[0] / rise
    masses[1:-1] = (steps[1:] - steps[:-1] * math.exp(gap)) / rise
    masses[-1] = steps[-1] / math.expm1(-gap)
    return pld_pmf.DensePLDPmf(gap, low, np.maximum(masses, 0.0), float(falling[-1]), True)


def repeated(losses: Any, times: int) -> Any:
    """The distribution of so many losses together."""
    from dp_accounting.pld import pld_pmf

    if times == 1 or not isinstance(losses, pld_pmf.DensePLDPmf):
        return losses if times == 1 else losses.self_compose(times)
    from scipy import fft

    first, last = _bounds(losses._probs, times)
    size = last - first + 1
    n = fft.next_fast_len(max(size, losses.size), real=True)
    # the transform wraps around, and what lies outside of the bounds is next to nothing
    wrapped = fft.irfft(fft.rfft(losses._probs, n) ** times, n)
    infinite = _CUT - math.expm1(times * math.log1p(-losses._infinity_mass))
    infinite = min(infinite + times * _ROUNDS_OFF, 1.0)
    low = losses._lower_loss * times + first
    masses = np.roll(wrapped, -first)[:size]
    return pld_pmf.DensePLDPmf(losses._discretization, low, masses, infinite, True)


def _bounds(masses: Array, times: int) -> tuple[int, int]:
    """The first and the last point of a composition that has a mass of 1e-15 at most beside them
    (Chernoff's bound at twenty orders).
    """
    first, last = 0, (len(masses) - 1) * times
    rest = math.log(2 / _CUT)
    for sign in (1, -1):
        tilt = np.exp(sign * np.arange(len(masses)) / len(masses))
        tilted = masses
        for k in range(1, _ORDERS + 1):
            tilted = tilted * tilt
            moment = float(tilted.sum())
            if moment <= 0:
                continue
            bound = (times * math.log(moment) + rest) * len(masses) / (sign * k)
            if sign > 0:
                last = min(last, math.ceil(bound))
            else:
                first = max(first, math.floor(bound))
    return first, last


def joined(one: Any, other: Any) -> Any:
    """The distribution of two losses together."""
    from dp_accounting.pld import pld_pmf

    if not all(isinstance(each, pld_pmf.DensePLDPmf) for each in (one, other)):
        return pld_pmf.compose_pmfs(one, other, _CUT)
    from scipy import fft

    size = one.size + other.size - 1
    n = fft.next_fast_len(size, real=True)
    masses = fft.irfft(fft.rfft(one._probs, n) * fft.rfft(other._probs, n), n)[:size]
    first = int(np.searchsorted(np.cumsum(masses), _CUT / 2, side="right"))
    after = np.cumsum(masses[::-1])
    last = size - int(np.searchsorted(after, _CUT / 2, side="right"))
    if first >= last:
        return pld_pmf.compose_pmfs(one, other, _CUT)
    kept = masses[first:last].copy()
    kept[0] += masses[:first].sum()  # what is cut below counts as the least loss that is left
    a, b = one._infinity_mass, other._infinity_mass
    infinite = a + b - a * b + max(float(masses[last:].sum()), 0.0) + 2 * _ROUNDS_OFF
    low = one._lower_loss + other._lower_loss + first
    return pld_pmf.DensePLDPmf(one._discretization, low, kept, infinite, True)


def least_epsilon(losses: Any, delta: float) -> float:
    """The least epsilon >= 0 at which the divergence is at most ``delta``."""
    dense = losses.to_dense_pmf()
    if dense._infinity_mass > delta:
        return math.inf
    at = ((np.arange(dense.size) + dense._lower_loss) * dense._discretization)[::-1]
    mass = dense._probs[::-1]
    above = dense._infinity_mass + np.append(0.0, np.cumsum(mass))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        tilted = np.append(0.0, np.cumsum(mass * np.exp(-at)))
        reached = np.log((above - delta) / tilted)
        # epsilon lies between the losses that are summed so far and the next one below
        ends = (above[:-1] > delta) & (tilted[:-1] > 0) & (reached[:-1] >= at)
    steep = (above[1:] >= delta) & (tilted[1:] == 0)  # losses so large that exp(-loss) is 0
    last = int(np.argmax(ends)) if ends.any() else dense.size
    if steep[:last].any():
        return max(0.0, float(at[int(np.argmax(steep))]))
    return 0.0 if above[last] <= tilted[last] + delta else float(reached[last])
