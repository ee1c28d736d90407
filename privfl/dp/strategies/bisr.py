"""The banded inverse square root."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privfl.core import Participation, require
from privfl.dp.strategies.ring import RingStream
from privfl.dp.strategies.square_root import inverse_square_root
from privfl.dp.strategies.toeplitz import ToeplitzMatrix


@dataclass(frozen=True, slots=True)
class Bisr:
    """C^-1 is the first ``bands`` diagonals of A^(-1/2), the rest zero (Kalinin, McKenna, Upadhyay,
    Lampert 2025): no optimiser, noise of ``bands`` - 1 vectors, and the best known rate for several
    participations where the bands are about as many as the rounds between them.

    C^-1 is 1 on its diagonal and -a_j below it, a_j > 0: so c_t = sum of a_j c_(t - j) is never
    negative. Up to the bands c is that of the square root, which falls, and after them c_(t + 1) -
    c_t is the same sum of earlier differences: c never increases. ``bands=1`` is independent noise.

    Raises:
        ConfigError: no bands.

    >>> from privfl.dp.strategies import rmse
    >>> once = Participation(rounds=1024, most=1)
    >>> [round(rmse(Bisr(bands).matrix(once), once), 2) for bands in (1, 4, 16)]
    [22.64, 9.11, 5.1]
    """

    bands: int = 16

    def __post_init__(self) -> None:
        require.at_least(1, bands=self.bands)

    def matrix(self, participation: Participation) -> ToeplitzMatrix:
        """C of so many rounds; it is the same however often clients take part."""
        from scipy.signal import lfilter

        rounds = participation.rounds
        taps = inverse_square_root(min(self.bands, rounds))
        inverted = np.zeros(rounds)
        inverted[: len(taps)] = taps
        impulse = np.zeros(rounds)
        impulse[0] = 1.0
        c = np.maximum(lfilter([1.0], taps, impulse), 0.0)
        return ToeplitzMatrix(
            c, inverted, 1 if len(taps) == 1 else rounds, lambda: RingStream(taps[1:], "z")
        )
