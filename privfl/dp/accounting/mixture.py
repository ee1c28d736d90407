"""The Poisson-sampled Gaussian where one of those who are protected owns several contributions: a
mixture of Gaussians.

Each of k contributions is drawn by a coin of its own with chance q, and those drawn move the sum by
one clip each at most. So a release lies between P, which is N(j, z^2) with the chance of j heads
out of k, and N(0, z^2), and no two worlds lie farther apart: given the coins of all others, it is
a mixture of Gaussians whose means are at most as long as the number of heads, and the one with
these lengths in one direction dominates it (Choquette-Choo, Ganesh, Steinke, Thakurta 2024,
"Privacy amplification for matrix mechanisms", Corollary 4.7; Ganesh 2024, "Tight group-level DP
guarantees for DP-SGD with sampling via mixture of Gaussians mechanisms"; Schuchardt et al. 2024).
k equal contributions attain it. What holds of k holds of fewer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import gammaln, log_ndtr, ndtr, xlog1py, xlogy

from privfl.dp.accounting.binomial import Array
from privfl.dp.accounting.grid import connected
from privfl.dp.accounting.sampled_gaussian import blocks, grid, log_moment

_TAIL = 1e-20
"""The probability that is given up to infinity."""
_MOST_POINTS = 200_000
"""Where an order's integral has more points than that, the bound without sampling is taken."""
_MOST_GRID = 3_000_000
_NEWTON = 4


def log_ratio(x: Array, q: float, z: float, k: int) -> Array:
    """Log of P / N(0, z^2) at points [n], rising in x.

    >>> log_ratio(np.array([0.5]), q=1.0, z=1.0, k=1)
    array([0.])
    """
    j, weights = _heads(q, k)
    found = np.empty_like(x)
    for part in blocks(len(x), len(j)):
        found[part] = _log_sum((j * x[part, None] - j * j / 2) / (z * z) + weights)
    return found


def rdp(orders: Array, q: float, z: float, k: int) -> Array:
    """RDP at each order, of whichever direction is more: by quadrature, and k times as far without
    sampling where that takes too many points (a mixture is never farther than its farthest part).

    >>> rdp(np.array([2.0]), q=1.0, z=4.0, k=2)
    array([0.25])
    """
    plain = orders * k * k / (2 * z * z)
    if q == 1:
        return plain
    result = plain.copy()
    step = min(0.3 * z * z, 0.4 * z)
    for low, high in ((0, 16), (16, 128), (128, math.inf)):
        near = (orders > low) & (orders <= high) & (orders * k <= step * _MOST_POINTS)
        if not near.any():
            continue
        most = float(orders[near].max()) * k
        x, log_weight = grid(z, -most * q, most)
        ratio = log_ratio(x, q, z, k)
        risen = np.expm1(np.minimum(ratio, 600.0))
        chosen = np.flatnonzero(near)
        for part in blocks(len(chosen), len(x)):
            a = orders[chosen[part], None]
            ways = [log_moment(c * ratio, c * risen, log_weight) for c in (a, 1 - a)]
            result[chosen[part]] = np.maximum(*ways) / (a[:, 0] - 1)
    return np.minimum(result, plain)


def loss_distributions(q: float, z: float, k: int, gap: float) -> tuple[Any, Any] | None:
    """The distribution of the privacy loss of both directions (P against N(0), and back) on a grid
    of this gap, pessimistic, from the exact hockey-stick divergences at its points (Doroshenko et
    al. 2022, connect the dots). None where the grid would have millions of points.
    """
    least = math.floor(k * math.log1p(-q) / gap)
    far = _far(q, z, k)
    top = math.ceil(float(log_ratio(np.array([far]), q, z, k)[0]) / gap)
    if top - least > _MOST_GRID:
        return None
    at = np.arange(least, top + 1, dtype=np.float64) * np.float64(gap)
    x = _inverse(at, q, z, k, far)
    j, weights = _heads(q, k)
    heads = np.exp(weights)
    away, back = np.zeros_like(x), np.zeros_like(x)
    for part in blocks(len(x), len(j)):
        away[part] = ndtr((j - x[part, None]) / z) @ heads
        back[part] = ndtr((x[part, None] - j) / z) @ heads
    deltas = away - np.exp(at + log_ndtr(-x / z))
    reverse = ndtr(x / z) - np.exp(-at) * back
    below = at <= k * math.log1p(-q)
    deltas[below] = -np.expm1(at[below])  # P exceeds so small a share of N(0) everywhere
    reverse[below] = 0.0
    return connected(gap, least, deltas), connected(gap, -top, reverse[::-1])


def _log_sum(logs: Array) -> Array:
    """Log of the sum of exponentials over the last axis."""
    top = logs.max(axis=-1, keepdims=True)
    return np.asarray(np.log(np.exp(logs - top).sum(axis=-1)) + top[..., 0], dtype=np.float64)


def _heads(q: float, k: int) -> tuple[Array, Array]:
    """How many heads there can be [k + 1], and the log of their chances."""
    j = np.arange(k + 1, dtype=np.float64)
    ways = gammaln(k + 1) - gammaln(j + 1) - gammaln(k - j + 1)
    return j, np.asarray(ways + xlogy(j, q) + xlog1py(k - j, -q), dtype=np.float64)


def _far(q: float, z: float, k: int) -> float:
    """A point above which P has so little mass that infinity takes it."""
    j, weights = _heads(q, k)
    low, high = 0.0, k + 10 * z
    while high - low > 1e-3 * z:
        middle = (low + high) / 2
        rest = _log_sum(weights + log_ndtr((j - middle) / z))
        low, high = (middle, high) if rest > math.log(_TAIL) else (low, middle)
    return high


def _inverse(at: Array, q: float, z: float, k: int, far: float) -> Array:
    """The points [n] where the log ratio has these values, which lie above its infimum; -40 z at
    those that do not.
    """
    lowest = -40 * z
    known = np.linspace(lowest, far, 8192)
    ratios = log_ratio(known, q, z, k)
    x = np.interp(at, ratios, known)
    j, weights = _heads(q, k)
    for _ in range(_NEWTON):
        for part in blocks(len(x), len(j)):
            logs = (j * x[part, None] - j * j / 2) / (z * z) + weights
            total = _log_sum(logs)
            slope = (np.exp(logs - total[:, None]) @ j) / (z * z)
            with np.errstate(divide="ignore", invalid="ignore"):
                step = np.where(slope > 1e-12, (at[part] - total) / slope, 0.0)
            x[part] = np.clip(x[part] + np.clip(step, -z, z), lowest, far)
    return x
