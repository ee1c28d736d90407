"""Logistic regression on rows of norm at most 1, with a ridge and a linear term, to its exact
minimum.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

from privfl.core import BadUpdate, ConfigError

Array = npt.NDArray[np.float64]
CURVATURE = 0.25
"""The most that the logistic loss is curved, c."""
_STEPS = 200
_UNIT = 2.0**-53
_SUMMED = 44
"""Roundings of one term of a sum by halves, at most: its own, those of a block, and the levels."""


def in_the_ball(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows cut to norm 1 where they are longer, each by itself.

    Raises:
        BadUpdate: a row holds NaN or infinite values.

    >>> in_the_ball(np.array([[3.0, 4.0], [0.0, 0.5]])).round(6).tolist()
    [[0.6, 0.8], [0.0, 0.5]]
    """
    rows = np.asarray(x, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1)
    if not np.isfinite(lengths).all():
        raise BadUpdate(
            f"row {int(np.flatnonzero(~np.isfinite(lengths))[0])} holds NaN or infinite values."
        )
    return np.asarray(rows / np.maximum(lengths * (1 + 1e-12), 1.0)[:, None])


def signs(y: npt.NDArray[np.int64]) -> Array:
    """Labels 0 and 1 [n] as -1 and 1.

    Raises:
        BadUpdate: another label.
    """
    if not np.isin(y, (0, 1)).all():
        raise BadUpdate(f"labels are 0 or 1, and one is {y[~np.isin(y, (0, 1))][0]}.")
    return 2.0 * np.asarray(y, dtype=np.float64) - 1.0


def gradient(
    w: Float[np.ndarray, " d"],
    x: Float[np.ndarray, "n d"],
    s: Float[np.ndarray, " n"],
    ridge: float,
    b: Float[np.ndarray, " d"],
) -> Float[np.ndarray, " d"]:
    """Of the sum of log(1 + e^(-s x.w)), plus ridge |w|^2 / 2 + b.w."""
    pulls = np.ascontiguousarray((x * (s * expit(-s * (x @ w)))[:, None]).T)
    return np.asarray(-pulls.sum(axis=1) + ridge * w + b)


def rounding(n: int, w: Float[np.ndarray, " d"], ridge: float, b: Float[np.ndarray, " d"]) -> float:
    """How far `gradient` of n rows lies from the real one at most, in norm: numpy sums by halves,
    over blocks of 128; the loss's slope is rounded after x.w is, and changes by a quarter of that.
    """
    d, far = len(w), float(np.linalg.norm(w))
    of_a_row = _SUMMED + d * far / 4
    beside = 4 * (ridge * far + float(np.linalg.norm(b)) + n)
    return _UNIT * (n * of_a_row + beside)


def minimiser(
    x: Float[np.ndarray, "n d"],
    s: Float[np.ndarray, " n"],
    ridge: float,
    b: Float[np.ndarray, " d"],
    tolerance: float,
) -> Float[np.ndarray, " d"]:
    """Where the sum of log(1 + e^(-s x.w)), plus ridge |w|^2 / 2 + b.w, has a gradient of norm at
    most ``tolerance`` (half of it as computed, half for rounding): within tolerance / ridge of its
    only minimum. By damped Newton steps.

    Raises:
        ConfigError: it is not reached, for the tolerance is beyond float64.

    >>> float(minimiser(np.ones((1, 1)), np.ones(1), 0.5, np.zeros(1), 1e-9).round(6)[0])
    0.674832
    """

    def value(w: Array) -> float:
        return float(np.logaddexp(0, -s * (x @ w)).sum() + ridge * (w @ w) / 2 + b @ w)

    w = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        slope = gradient(w, x, s, ridge, b)
        if float(np.linalg.norm(slope)) <= tolerance / 2:
            if rounding(len(x), w, ridge, b) > tolerance / 2:
                break
            return w
        p = expit(x @ w)
        hessian = (x * (p * (1 - p))[:, None]).T @ x
        hessian[np.diag_indices_from(hessian)] += ridge
        step = cho_solve(cho_factor(hessian), slope)
        here, falls, size = value(w), float(slope @ step), 1.0
        while size > 1e-8 and value(w - size * step) > here - 1e-4 * size * falls + 1e-12 * abs(
            here
        ):
            size /= 2
        w = w - size * step
    raise ConfigError(
        f"the minimum was not reached to a gradient of {tolerance:g}, so nothing may leave: raise"
        " the tolerance, or the ridge."
    )
