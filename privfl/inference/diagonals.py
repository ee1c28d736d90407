"""A matrix as the diagonals that an encrypted product needs (Halevi, Shoup 2014, section 4.3)."""

from __future__ import annotations

import numpy as np

from privfl.inference.circuit import PackedMap
from privfl.inference.network import Affine, Matrix


def diagonals(stage: PackedMap, weight: Matrix, slots: int) -> list[Matrix | None]:
    """The vectors [slots] that rotations of the packed input are multiplied by, ``rows`` of them,
    None where one is zero.

    Product number g baby + b is with the input rotated by b, and the sum over b is rotated by
    g baby afterwards, so its diagonal is rotated back by as much here.

    >>> stage = PackedMap(inputs=4, outputs=2)
    >>> weight = np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    >>> [list(map(float, diagonal[:4])) for diagonal in diagonals(stage, weight, slots=8)]
    [[1.0, 6.0, 3.0, 8.0], [2.0, 7.0, 4.0, 5.0]]
    """
    whole = np.zeros((stage.rows, stage.period))
    whole[: weight.shape[0], : weight.shape[1]] = weight
    at = np.arange(stage.period)
    found: list[Matrix | None] = []
    for number in range(stage.rows):
        diagonal = whole[at % stage.rows, (at + number) % stage.period]
        if diagonal.any():
            back = number // stage.baby * stage.baby
            found.append(np.tile(np.roll(diagonal, back), slots // stage.period))
        else:
            found.append(None)
    return found


def packed_bias(stage: PackedMap, affine: Affine, slots: int) -> Matrix:
    """The bias [slots], repeating with the outputs' period, zero where there is no output."""
    period = np.zeros(stage.rows)
    period[: len(affine.bias)] = affine.bias
    return np.tile(period, slots // stage.rows)


def packed_input(stage: PackedMap, values: Matrix, slots: int) -> Matrix:
    """One sample's values [inputs], repeating with the input's period [slots]."""
    period = np.zeros(stage.period)
    period[: len(values)] = values
    return np.tile(period, slots // stage.period)
