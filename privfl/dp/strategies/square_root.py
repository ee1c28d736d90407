"""The Toeplitz square root of the prefix sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privfl.core import Participation
from privfl.dp.strategies.base import Array
from privfl.dp.strategies.ring import RingStream
from privfl.dp.strategies.toeplitz import ToeplitzMatrix


def square_root(rounds: int) -> Array:
    """The first column [T] of A^(1/2), A the lower triangle of ones: binom(2 j, j) / 4^j.

    >>> square_root(4).tolist()
    [1.0, 0.5, 0.375, 0.3125]
    """
    j = np.arange(1, rounds)
    return np.concatenate([[1.0], np.cumprod((2 * j - 1) / (2 * j))])


def inverse_square_root(rounds: int) -> Array:
    """The first column [T] of A^(-1/2).

    >>> inverse_square_root(4).tolist()
    [1.0, -0.5, -0.125, -0.0625]
    """
    j = np.arange(1, rounds)
    return np.concatenate([[1.0], np.cumprod((2 * j - 3) / (2 * j))])


@dataclass(frozen=True, slots=True)
class SquareRoot:
    """C = A^(1/2) (Fichtenberger, Henzinger, Upadhyay 2023; Henzinger, Upadhyay 2025): the least
    error of the worst prefix among Toeplitz strategies at one participation, 1 + ln(T) / pi times
    the noise, but its noise remembers EVERY earlier row: memory of T vectors. A yardstick; BLT
    comes as near with three.

    >>> from privfl.dp.strategies import rmse
    >>> once = Participation(rounds=1024, most=1)
    >>> round(rmse(SquareRoot().matrix(once), once), 3)
    3.11
    """

    def matrix(self, participation: Participation) -> ToeplitzMatrix:
        """A^(1/2) of so many rounds; it is the same however often clients take part."""
        c = square_root(participation.rounds)
        inverted = inverse_square_root(participation.rounds)
        return ToeplitzMatrix(c, inverted, len(c), lambda: RingStream(inverted[1:], "z"))
