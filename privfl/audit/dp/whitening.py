"""Noise whose rounds hang together, made independent again: rows of C^-1 Z, times C, are Z."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from privfl.audit.dp.residual import Noise
from privfl.core import DpEvent, Participation, RunNoise
from privfl.dp.mechanisms.correlated import CorrelatedRun
from privfl.dp.strategies import StrategyMatrix

Matrix = npt.NDArray[np.float64]


def matrix_of(run: RunNoise[Any]) -> StrategyMatrix | None:
    """C of a run; None for noise that states no such matrix."""
    return run.matrix if isinstance(run, CorrelatedRun) else None


def whitened(rows: Sequence[Noise], matrix: Matrix) -> list[Noise]:
    """The first rows of noise [t, d], each in units of its own sensitivity, times C: independent
    where the noise is that of C.

    >>> c = np.array([[1.0, 0.0], [0.5, 1.0]])
    >>> z = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> np.allclose(whitened(list(np.linalg.solve(c, z)), c), z)
    True
    """
    t = len(rows)
    return list(matrix[:t, :t] @ np.stack(rows)) if t else []


def attained(matrix: Matrix, participation: Participation, rows: int) -> float:
    """How far one client really moves the first ``rows`` rows of C G: a client that comes as soon
    again as it may, as often as it may, from any round on, and pulls the same way every time. Where
    it is drawn in turns, which are charged one by one, how far one of them does.

    >>> round(attained(np.eye(6), Participation(rounds=6, most=3, apart=2), 6) ** 2, 9)
    3.0
    """
    c = matrix[:rows, :rows]
    most = participation.most if participation.rate >= 1 else 1
    columns = (c[:, at :: participation.apart][:, :most] for at in range(rows))
    return max(float(np.linalg.norm(one.sum(axis=1))) for one in columns)


def movement(matrix: StrategyMatrix, participation: Participation, rows: int) -> float:
    """What a noise multiplier of the first ``rows`` rows is over: how far C says that one client
    moves them, or what one attains where that is farther.
    """
    drawn = participation.rate < 1
    most, apart = (1, 1) if drawn else (participation.most, participation.apart)
    said = matrix.sens(most, apart, rows)
    return max(said, attained(matrix.dense(), participation, rows))


def event_of(run: RunNoise[Any], rows: int, *, hidden: bool) -> tuple[DpEvent, int]:
    """What accounts for the first ``rows`` rows, and how many times it does: a sample for each turn
    where turns are drawn and nobody sees who was (``hidden``).
    """
    drawn = run.sampled(rows) if hidden else None
    return (run.event(rows), 1) if drawn is None else drawn
