"""How far one client moves C G who takes part at most k times, any two of them at least b rounds
apart.

With G the contributions of norm at most 1, by round, and X = C^T C, the square is at most the
largest sum of |X_ij| over pairs of rounds i, j in which the client takes part (Choquette-Choo,
McMahan, Rush, Thakurta 2023, section 3).
"""

from __future__ import annotations

import numpy as np

from privfl.core import ConfigError
from privfl.dp.strategies.base import Array


def best_sum(values: Array, most: int, apart: int) -> Array:
    """The largest sum of at most ``most`` entries of each row of ``values`` [..., T], any two at
    least ``apart`` positions from each other; entries of at least 0.

    >>> float(best_sum(np.array([5.0, 2.0, 2.0, 36.0]), most=2, apart=2))
    41.0
    """
    rounds = values.shape[-1]
    best = np.zeros((*values.shape[:-1], rounds + apart))
    for _ in range(min(most, -(-rounds // apart))):
        taken = values + best[..., apart:]
        best = np.zeros_like(best)
        best[..., :rounds] = np.maximum.accumulate(taken[..., ::-1], axis=-1)[..., ::-1]
    return np.asarray(best[..., 0])


def banded(c: Array, most: int, apart: int) -> float:
    """Exactly, where contributions ``apart`` rounds apart do not meet: X_ij = 0 for |i - j| >=
    ``apart`` (Choquette-Choo et al. 2023, "(Amplified) banded matrix factorization", Theorem 2).

    Raises:
        ConfigError: they do meet.

    >>> round(banded(np.diag([0.0, 3.0, 0.0, 1.0, 2.0]), most=5, apart=2) ** 2, 9)
    13.0
    """
    gram = c.T @ c
    if np.abs(np.triu(gram, apart)).max(initial=0.0) > 1e-12 * np.abs(gram).max(initial=0.0):
        raise ConfigError(
            f"contributions {apart} rounds apart meet in this matrix, so it is not banded: use"
            " sens_of, an upper bound."
        )
    return float(np.sqrt(best_sum(np.diag(gram).copy(), most, apart)))


def sens_of(c: Array, most: int, apart: int) -> float:
    """Of any matrix, an upper bound: the best set for each row of |X|, then for what the rows came
    to. Exact for one participation.

    >>> sens_of(np.eye(4), most=4, apart=1)
    2.0
    """
    if most == 1:
        return float(np.sqrt((c**2).sum(axis=0).max()))
    gram = np.abs(c.T @ c)
    return float(np.sqrt(best_sum(best_sum(gram, most, apart), most, apart)))


def toeplitz(coefficients: Array, most: int, apart: int) -> float:
    """Exactly, of a lower triangular Toeplitz matrix whose first column [T] is not negative and
    does not increase: the client that comes in rounds 0, b, 2b, ... is the worst (Kalinin, Lampert
    2024, Theorem 2).

    >>> round(toeplitz(np.ones(4), most=2, apart=2) ** 2, 9)
    10.0
    """
    return float(np.linalg.norm(shifted_sum(coefficients, most, apart)))


def shifted_sum(coefficients: Array, most: int, apart: int) -> Array:
    """The sum of ``most`` copies of a first column [T], each ``apart`` rows below the one
    before.
    """
    total = coefficients.copy()
    for shift in range(apart, min(most * apart, len(coefficients)), apart):
        total[shift:] += coefficients[:-shift]
    return total
