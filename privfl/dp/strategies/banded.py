"""BandMF: C with few diagonals, whose entries are fitted to the run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import expit

from privfl.core import Participation, require
from privfl.dp.strategies.base import Array
from privfl.dp.strategies.ring import RingStream
from privfl.dp.strategies.sensitivity import shifted_sum
from privfl.dp.strategies.square_root import square_root
from privfl.dp.strategies.toeplitz import ToeplitzMatrix, inverse


@dataclass(frozen=True, slots=True)
class Banded:
    """C has ``bands`` diagonals (Choquette-Choo et al. 2023, "(Amplified) banded matrix
    factorization", here Toeplitz as by McKenna 2024), fitted to the least mean squared error of all
    prefixes. Its noise keeps ``bands`` - 1 vectors.

    At most as many bands are used as there are rounds between two participations of a client: then
    these do not meet, and where cohorts are drawn in turns (`CyclicPoisson`) each is a sampled
    Gaussian of its own, which is amplified.

    Raises:
        ConfigError: no bands.

    >>> from privfl.dp.strategies import rmse
    >>> run = Participation(rounds=100, most=10, apart=10)
    >>> 22.4 / rmse(Banded(10).matrix(run), run) > 2.4
    True
    """

    bands: int = 16

    def __post_init__(self) -> None:
        require.at_least(1, bands=self.bands)

    def matrix(self, participation: Participation) -> ToeplitzMatrix:
        """C fitted to this run, the same every time."""
        c = np.zeros(participation.rounds)
        taps = _fitted(min(self.bands, participation.rounds, participation.apart), participation)
        c[: len(taps)] = taps
        return ToeplitzMatrix(c, inverse(c), len(taps), lambda: RingStream(-taps[1:], "x"))


@lru_cache(maxsize=64)
def _fitted(bands: int, run: Participation) -> Array:
    """The diagonals: each a share, a sigmoid of a free number, of the one before."""
    from scipy.optimize import minimize

    if bands == 1:
        return np.ones(1)
    start = square_root(bands)
    ratios = start[1:] / start[:-1]
    best = minimize(
        lambda free: _loss(free, run),
        np.log(ratios / (1 - ratios)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 300},
    )
    return _diagonals(best.x)


def _diagonals(free: Array) -> Array:
    return np.concatenate([[1.0], np.cumprod(expit(free))])


def _loss(free: Array, run: Participation) -> tuple[float, Array]:
    """The log of mean error times squared sensitivity, and its gradient."""
    from scipy.signal import lfilter

    taps, rounds = _diagonals(free), run.rounds
    c = np.zeros(rounds)
    c[: len(taps)] = taps
    # the prefix sums s of C^-1 solve C s = 1; each s_i is in the errors of all prefixes from i on
    sums = lfilter([1.0], taps, np.ones(rounds))
    counts = np.arange(rounds, 0, -1.0)
    error = float((counts * sums**2).sum())
    adjoint = lfilter([1.0], taps, (2 * counts * sums)[::-1])[::-1]
    of_error = np.array([-(adjoint[j:] * sums[: rounds - j]).sum() for j in range(len(taps))])
    total = shifted_sum(c, run.most, run.apart)
    square = float((total**2).sum())
    of_square = np.array(
        [
            2 * total[j :: run.apart][: run.most].sum()  # where copies of diagonal j have come to
            for j in range(len(taps))
        ]
    )
    of_taps = of_error / error + of_square / square
    of_logs = np.cumsum((of_taps * taps)[::-1])[::-1]  # each ratio scales all diagonals after it
    return float(np.log(error) + np.log(square)), of_logs[1:] * (1 - expit(free))
