"""Exact linear algebra: what follows from known combinations of unknown values.

Ranks are computed modulo the prime 2^61 - 1, where no rounding can pass for knowledge (floats lie).
A combination that exists over the rationals exists modulo a prime unless it divides a determinant,
so a rank can only be too small, with probability about 2^-61 times its size for weights that nobody
chose against this prime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TypeAlias

PRIME = (1 << 61) - 1
Combination: TypeAlias = Mapping[int, Fraction]
"""A linear combination of unknown values: the coefficient of each, by its number; others are 0."""


def residue(number: Fraction) -> int:
    """A rational modulo `PRIME`.

    >>> residue(Fraction(1, 3)) * 3 % PRIME
    1
    """
    return number.numerator * pow(number.denominator, -1, PRIME) % PRIME


class RowSpace:
    """All that follows from known combinations, modulo `PRIME`: rows in reduced echelon form.

    >>> span = RowSpace()
    >>> span.add({0: Fraction(1), 1: Fraction(1)}), span.add({0: Fraction(2), 1: Fraction(2)})
    (True, False)
    >>> span.solved(), span.add({1: Fraction(1, 7)}), span.solved()
    ([], True, [0, 1])
    """

    def __init__(self) -> None:
        self._rows: dict[int, dict[int, int]] = {}  # by pivot, where each row is 1 and all others 0

    @property
    def rank(self) -> int:
        """How many independent combinations are known."""
        return len(self._rows)

    def add(self, known: Combination) -> bool:
        """Learn a combination; whether it was new."""
        row = self._reduced(known)
        if not row:
            return False
        pivot = min(row)
        inverse = pow(row[pivot], -1, PRIME)
        row = {column: value * inverse % PRIME for column, value in row.items()}
        for other in self._rows.values():
            if pivot in other:
                _subtract(other, other[pivot], row)
        self._rows[pivot] = row
        return True

    def holds(self, asked: Combination) -> bool:
        """Whether a combination follows from what is known."""
        return not self._reduced(asked)

    def solved(self) -> list[int]:
        """The unknowns whose value follows, by number."""
        return sorted(pivot for pivot, row in self._rows.items() if len(row) == 1)

    def _reduced(self, known: Combination) -> dict[int, int]:
        row = {column: residue(value) for column, value in known.items()}
        row = {column: value for column, value in row.items() if value}
        for pivot in [column for column in row if column in self._rows]:
            _subtract(row, row[pivot], self._rows[pivot])
        return row


def _subtract(row: dict[int, int], times: int, other: Mapping[int, int]) -> None:
    for column, value in other.items():
        left = (row.get(column, 0) - times * value) % PRIME
        if left:
            row[column] = left
        else:
            row.pop(column, None)


def multipliers(
    known: Sequence[Combination], unknowns: Sequence[int]
) -> Mapping[int, Mapping[int, Fraction]]:
    """By unknown the exact multiplier of each known combination (by position, zeros left out) with
    which they add up to that unknown alone; unknowns that do not follow are left out.

    >>> half = Fraction(1, 2)
    >>> multipliers([{0: half, 1: half}, {1: Fraction(3)}], [0, 1])
    {0: {0: Fraction(2, 1), 1: Fraction(-1, 3)}, 1: {1: Fraction(1, 3)}}
    """
    span = RowSpace()
    new = [position for position, one in enumerate(known) if span.add(one)]
    rows: dict[int, tuple[dict[int, Fraction], dict[int, Fraction]]] = {}
    for position in new:
        row, made = dict(known[position]), {position: Fraction(1)}
        for pivot in [column for column in row if column in rows]:
            times = row[pivot]
            _less(row, times, rows[pivot][0])
            _less(made, times, rows[pivot][1])
        row = {column: value for column, value in row.items() if value}
        pivot = min(row)
        scale = 1 / row[pivot]
        row = {column: value * scale for column, value in row.items()}
        made = {column: value * scale for column, value in made.items()}
        for other, by in rows.values():
            if other.get(pivot):
                times = other[pivot]
                _less(other, times, row)
                _less(by, times, made)
        rows[pivot] = (row, made)
    return {
        unknown: dict(sorted(rows[unknown][1].items()))
        for unknown in unknowns
        if unknown in rows and len(rows[unknown][0]) == 1
    }


def _less(row: dict[int, Fraction], times: Fraction, other: Mapping[int, Fraction]) -> None:
    for column, value in other.items():
        left = row.get(column, Fraction(0)) - times * value
        if left:
            row[column] = left
        else:
            row.pop(column, None)
