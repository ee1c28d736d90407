"""What a strategy is: the lower triangular matrix C of a matrix mechanism, and noise that runs
through its inverse row by row.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from privfl.core import Participation, Vector

Array: TypeAlias = npt.NDArray[np.float64]


@runtime_checkable
class NoiseStream(Protocol):
    """C^-1 Z row by row. It holds past noise, and so do its secrets: see `core.KeepsSecrets`."""

    def next(self, z: Vector) -> Vector:
        """The next row [d] of C^-1 Z, where ``z`` [d] is the next row of Z, independent normals;
        ``z`` may be kept or overwritten.
        """
        ...


@runtime_checkable
class StrategyMatrix(Protocol):
    """C of one run: [rounds, rounds], lower triangular, entries of at least 0.

    A release of row t is g_t + (C^-1 Z)_t, with every sum of g_t the answer to a query of A = B C,
    A the lower triangle of ones. All rows together are one Gaussian mechanism on C G, whoever
    chooses g_t after he saw the rows before (Denisov, McMahan, Rush, Smith, Thakurta 2022).
    """

    @property
    def rounds(self) -> int:
        """How many rows it has."""
        ...

    @property
    def bands(self) -> int:
        """How many diagonals of C are not zero, the main one included: contributions so many rounds
        apart do not meet in C G.
        """
        ...

    def dense(self) -> Array:
        """C itself [rounds, rounds], for tests and short runs."""
        ...

    def column_norms(self) -> Array:
        """The L2 norm of each column [rounds]: how far one contribution of norm 1 moves C G."""
        ...

    def sens(self, most: int, apart: int, rounds: int | None = None) -> float:
        """How far, in L2, all contributions of one client move the first ``rounds`` rows of C G:
        at most ``most`` of norm 1, any two at least ``apart`` rounds from each other. An upper
        bound.
        """
        ...

    def errors(self) -> Array:
        """The variance of each prefix sum of C^-1 Z [rounds], for Z of variance 1."""
        ...

    def stream(self) -> NoiseStream:
        """Fresh noise, before its first row."""
        ...


@runtime_checkable
class Strategy(Protocol):
    """How C is chosen for a run, from how often clients take part in it."""

    __slots__ = ()

    def matrix(self, participation: Participation) -> StrategyMatrix:
        """C for this run. It depends on nothing but the numbers here: not on data, not on chance.

        Raises:
            ConfigError: there is none.
        """
        ...


def rmse(matrix: StrategyMatrix, participation: Participation) -> float:
    """The root of the mean squared error over all prefix sums, for noise of multiplier 1: what
    strategies are compared by.
    """
    sens = matrix.sens(participation.most, participation.apart)
    return float(sens * np.sqrt(matrix.errors().mean()))
