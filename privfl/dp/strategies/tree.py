"""Tree aggregation: noise on the nodes of a binary tree over the rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from privfl.core import KeepsSecrets, Participation, Vector
from privfl.dp.strategies.base import Array


def _level(row: int) -> int:
    """The level of the node that row completes: trailing zeros of its number from 1."""
    return ((row + 1) & -(row + 1)).bit_length() - 1


@dataclass(frozen=True, slots=True)
class TreeMatrix:
    """Row t of C sums the block of 2^v rounds that ends with round t, v the number of trailing
    zeros of t + 1: the nodes that a prefix is made of, one for each bit.
    """

    rounds: int

    @property
    def bands(self) -> int:
        """As wide as the largest block."""
        return int(1 << (self.rounds.bit_length() - 1))

    def dense(self) -> Array:
        """C itself [T, T]."""
        c = np.zeros((self.rounds, self.rounds))
        for t in range(self.rounds):
            c[t, t + 1 - (1 << _level(t)) : t + 1] = 1.0
        return c

    def column_norms(self) -> Array:
        """The norm of each column [T]: the root of how many blocks hold the round."""
        counts = np.zeros(self.rounds)
        for t in range(self.rounds):
            counts[t + 1 - (1 << _level(t)) : t + 1] += 1
        return np.sqrt(counts)

    def sens(self, most: int, apart: int, rounds: int | None = None) -> float:
        """At most: a block of 2^v rounds holds at most ceil(2^v / apart) participations of one
        client, and the squares of counts that add up to ``most`` on a level sum to at most ``most``
        times the largest.
        """
        n = self.rounds if rounds is None else rounds
        times = min(most, math.ceil(n / apart))
        in_block = [min(times, math.ceil((1 << v) / apart)) for v in range(n.bit_length())]
        return math.sqrt(times * sum(in_block))

    def errors(self) -> Array:
        """The number of ones in each prefix's length [T]."""
        return np.array([float((t + 1).bit_count()) for t in range(self.rounds)])

    def stream(self) -> TreeStream:
        """Fresh noise, before its first row."""
        return TreeStream()


class TreeStream(KeepsSecrets):
    """Row t is the noise of the block that it completes, less that of the blocks in it."""

    __slots__ = ("_levels", "_rows")

    def __init__(self) -> None:
        self._levels: dict[int, Vector] = {}
        self._rows = 0

    def next(self, z: Vector) -> Vector:
        """The next row of C^-1 Z."""
        level, x = _level(self._rows), z
        for below in range(level):
            x = x - self._levels.pop(below)
        self._levels[level] = z
        self._rows += 1
        return x


@dataclass(frozen=True, slots=True)
class Tree:
    """Binary tree aggregation (Dwork, Naor, Pitassi, Rothblum 2010; Kairouz et al. 2021, DP-FTRL):
    every prefix is a sum of at most log2(T) + 1 noisy blocks. Its noise keeps as many vectors. Kept
    as a yardstick: BLT has less error with less memory.

    >>> Tree().matrix(Participation(rounds=4, most=1)).dense().astype(int).tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [1, 1, 1, 1]]
    """

    def matrix(self, participation: Participation) -> TreeMatrix:
        """C of so many rounds; it is the same however often clients take part."""
        return TreeMatrix(participation.rounds)
