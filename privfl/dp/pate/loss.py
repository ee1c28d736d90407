"""What a vote costs given how clear it was: Rényi DP that depends on the data.

Every figure here is a function of the votes themselves, so it is as private as they are. It bounds
the divergence of what this very data set releases from what its neighbours would, in that
direction.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int
from scipy.special import log_ndtr, logsumexp

Array = npt.NDArray[np.float64]


def log_wrong(counts: Int[np.ndarray, "q m"], deviation: int | float) -> Float[np.ndarray, " q"]:
    """Log of a bound on the chance that noise of this deviation in each count elects another class
    than the one with most votes (Papernot et al. 2018, Proposition 7), for each query.

    The leader is the likeliest outcome, so the others have at most 1 - 1/m together.

    >>> round(float(log_wrong(np.array([[240, 10]]), 40.0)[0]), 6)
    -10.640485
    """
    m = counts.shape[1]
    ordered = np.sort(counts, axis=1)
    gaps = ordered[:, -1:] - ordered[:, :-1]
    logs = logsumexp(log_ndtr(-gaps / (math.sqrt(2) * deviation)), axis=1)
    return np.asarray(np.minimum(logs, math.log1p(-1 / m)), dtype=np.float64)


def likely_rdp(log_q: Array, deviation: int | float, orders: Array) -> Array:
    """RDP [q, orders] of mechanisms that have (a, a / deviation^2)-RDP at every order a, and whose
    likeliest outcome fails with chance at most q (Papernot et al. 2018, Theorem 6, with the orders
    mu1, mu2 of Proposition 10); never above a / deviation^2.

    >>> float(likely_rdp(np.array([-10.640485]), 40.0, np.array([8.0]))[0, 0].round(10))
    1.15556e-05
    """
    lq, variance = np.asarray(log_q, dtype=np.float64)[:, None], float(deviation) ** 2
    plain = np.broadcast_to(orders / variance, (len(lq), len(orders)))
    with np.errstate(all="ignore"):  # what lies outside of the theorem's conditions is not used
        mu2 = deviation * np.sqrt(-lq)
        mu1 = mu2 + 1
        e1, e2 = mu1 / variance, mu2 / variance
        most = (mu2 - 1) * e2 - mu2 * (np.log(mu1 / (mu1 - 1)) + np.log(mu2 / (mu2 - 1)))
        inner = (lq + e2) * (mu2 - 1) / mu2
        holds = (lq < 0) & (mu2 > 1) & (orders <= mu1) & (lq <= most) & (inner < 0)
        log_right = np.log1p(-np.exp(lq))
        log_a = log_right - np.log1p(-np.exp(inner))
        log_b = e1 - lq / (mu1 - 1)
        summed = np.logaddexp(log_right + (orders - 1) * log_a, lq + (orders - 1) * log_b)
        bound = np.maximum(summed / (orders - 1), 0.0)
    return np.asarray(np.where(holds, np.fmin(bound, plain), plain), dtype=np.float64)


def passing(most: Array, threshold: int | float, deviation: int | float) -> tuple[Array, Array]:
    """Log of the chance that each largest count plus noise reaches the threshold, and that it does
    not.
    """
    z = (np.asarray(most, dtype=np.float64) - threshold) / deviation
    return np.asarray(log_ndtr(z)), np.asarray(log_ndtr(-z))


def confident_rdp(
    most: Array,
    threshold: int | float,
    deviation: int | float,
    answer: Array,
    orders: Array,
) -> Array:
    """RDP [q, orders] of a noisy check whether the largest count reaches a threshold, followed by
    an answer of RDP ``answer`` [q, orders] where it does: exact in the check.

    One neighbour moves the largest count by at most 1. The moment is convex in the chance that the
    neighbour passes, so the two ends are the worst. It holds whether or not the query came to be
    answered: what was not answered could have been.

    >>> at = np.array([8.0])
    >>> clear = confident_rdp(np.array([250.0]), 200.0, 150.0, np.zeros((1, 1)), at)
    >>> bool(clear[0, 0] < 8.0 / (2 * 150.0**2))
    True
    """
    yes, no = (side[:, None] for side in passing(most, threshold, deviation))
    worst = np.zeros_like(answer)
    for shift in (-1, 1):
        yes_there, no_there = (
            side[:, None] for side in passing(np.asarray(most) + shift, threshold, deviation)
        )
        moment = np.logaddexp(
            orders * yes + (1 - orders) * yes_there + (orders - 1) * answer,
            orders * no + (1 - orders) * no_there,
        )
        worst = np.maximum(worst, moment / (orders - 1))
    return np.asarray(worst, dtype=np.float64)
