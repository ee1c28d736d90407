"""Lower triangular Toeplitz strategies: one number for each diagonal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from privfl.core import ConfigError
from privfl.dp.strategies import sensitivity
from privfl.dp.strategies.base import Array, NoiseStream


def inverse(coefficients: Array) -> Array:
    """The first column [T] of the inverse of a lower triangular Toeplitz matrix with this first
    column [T].

    >>> inverse(np.array([1.0, 0.5, 0.0])).tolist()
    [1.0, -0.5, 0.25]
    """
    from scipy.signal import lfilter

    impulse = np.zeros(len(coefficients))
    impulse[0] = 1.0
    last = int(np.flatnonzero(coefficients)[-1])
    return np.asarray(lfilter([1.0], coefficients[: last + 1], impulse))


def prefix_errors(inverted: Array) -> Array:
    """The variance of each prefix sum [T] of noise with this first column [T] of C^-1."""
    return np.asarray(np.cumsum(np.cumsum(inverted) ** 2))


@dataclass(frozen=True, eq=False)
class ToeplitzMatrix:
    """C with ``coefficients`` [T] as its first column: not negative, not increasing.

    ``inverted`` [T] is the first column of C^-1, ``bands`` how many diagonals of C are not zero,
    ``streams`` makes the noise.

    Raises:
        ConfigError: a coefficient is negative, or larger than the one before: the sensitivity is
            not known exactly then.
    """

    coefficients: Array
    inverted: Array
    bands: int
    streams: Callable[[], NoiseStream] = field(repr=False)

    def __post_init__(self) -> None:
        c = self.coefficients
        if c.min() < 0 or (np.diff(c) > 1e-12).any():
            raise ConfigError(
                "the diagonals of a Toeplitz strategy must not be negative nor increase, or its"
                " sensitivity is not known."
            )

    @property
    def rounds(self) -> int:
        """How many rows it has."""
        return len(self.coefficients)

    def dense(self) -> Array:
        """C itself [T, T]."""
        t = np.arange(self.rounds)
        apart = t[:, None] - t[None, :]
        return np.where(apart >= 0, self.coefficients[np.maximum(apart, 0)], 0.0)

    def column_norms(self) -> Array:
        """The norm of each column [T]: the first is the longest."""
        return np.asarray(np.sqrt(np.cumsum(self.coefficients**2))[::-1])

    def sens(self, most: int, apart: int, rounds: int | None = None) -> float:
        """`sensitivity.toeplitz` of the first ``rounds`` rows: exact."""
        return sensitivity.toeplitz(self.coefficients[:rounds], most, apart)

    def errors(self) -> Array:
        """`prefix_errors`."""
        return prefix_errors(self.inverted)

    def stream(self) -> NoiseStream:
        """Fresh noise, before its first row."""
        return self.streams()
