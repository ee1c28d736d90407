"""From the columns of somebody's own table to features: what is public is used as it is given, what
is not is taken from the training rows, and said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from privfl.core import ConfigError, DataCorrupt
from privfl.data.table import FAR

MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none", "<na>"})
"""What stands for a missing value, in small letters."""
MOST = 1000
"""A column of text with more values than this is a name, and no category."""
_LARGEST = 1e100
Column = npt.NDArray[Any]


def missing(column: Column) -> npt.NDArray[np.bool_]:
    """Which values of a column [n] are missing.

    >>> missing(np.array(["a", "", None, "NaN"], dtype=object)).tolist()
    [False, True, True, True]
    """
    if column.dtype.kind == "f":
        return np.isnan(column)
    if column.dtype.kind in "iub":
        return np.zeros(len(column), dtype=np.bool_)
    return np.array([_gone(one) for one in column.tolist()], dtype=np.bool_)


def _gone(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in MISSING
    return value is None or bool(value != value)  # noqa: PLR0124  NaN is not itself


def words(column: Column) -> list[str]:
    """The values of a column as text, whole numbers without a fraction.

    >>> words(np.array([1.0, 2.5])), words(np.array([" b"], dtype=object))
    (['1', '2.5'], ['b'])
    """
    return [
        str(int(one)) if isinstance(one, float) and one.is_integer() else str(one).strip()
        for one in column.tolist()
    ]


def numbers(name: str, column: Column, first: int) -> npt.NDArray[np.float64]:
    """The values of a column [n] as numbers, NaN where they are missing; ``first`` is the number of
    its first row, for messages.

    Raises:
        DataCorrupt: a value is no number.
    """
    if column.dtype.kind in "iubf":
        return _moderate(name, column.astype(np.float64))
    gone = missing(column)
    found = np.full(len(column), math.nan)
    for row in np.flatnonzero(~gone).tolist():
        value = _number(column[row])
        if value is None:
            raise DataCorrupt(
                f"row {first + row}, column '{name}': {column[row]!r} is no number; name the column"
                " in categories, or mend the row."
            )
        found[row] = value
    return _moderate(name, found)


def _moderate(name: str, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The values, if their squares can be summed: an infinite one would be the whole column."""
    beyond = values[np.abs(values) > _LARGEST]
    if len(beyond):
        raise DataCorrupt(
            f"column '{name}' holds {beyond[0]:g}, which is too large to compute with: mend the"
            " row."
        )
    return values


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _infinite(value: Any) -> bool:
    try:
        return math.isinf(float(value))
    except (TypeError, ValueError):
        return False
    except OverflowError:
        return True


@dataclass(slots=True)
class FittedColumn:
    """What the training rows say of a column that nothing public was given for: whether it is of
    numbers, their mean and spread (Welford's sums), or its values.
    """

    name: str
    numeric: bool = True
    infinite: str = ""
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    values: set[str] = field(default_factory=set)

    def see(self, column: Column) -> None:
        """Take in some rows.

        Raises:
            ConfigError: text with more than 1000 different values.
            DataCorrupt: an array of numbers has one that is too large to compute with.
        """
        there = column[~missing(column)]
        if len(self.values) <= MOST:
            self.values.update(words(there))
        if self.numeric and there.dtype.kind not in "iubf":
            infinite = np.array([_infinite(one) for one in there.tolist()], dtype=np.bool_)
            if infinite.any():
                self.infinite, there = str(there[infinite][0]), there[~infinite]
            parsed = [_number(one) for one in there.tolist()]
            self.numeric = None not in parsed and not any(isinstance(o, bool) for o in there)
        elif there.dtype.kind == "b":
            self.numeric = False
        if self.numeric and len(there):
            chunk = numbers(self.name, there, 0)
            n, middle = len(chunk), float(chunk.mean())
            total, apart = self.count + n, middle - self.mean
            self.squares += float(((chunk - middle) ** 2).sum()) + apart**2 * self.count * n / total
            self.mean += apart * n / total
            self.count = total
        if not self.numeric and len(self.values) > MOST:
            raise ConfigError(
                f"column '{self.name}' is text with more than {MOST} different values, which is a"
                f" name and no category: leave it out with drop: [{self.name}]."
            )

    def coded(self) -> Numeric | Category:
        """How the column becomes features.

        Raises:
            DataCorrupt: a value among its numbers is infinite.
        """
        if self.numeric and self.infinite:
            raise DataCorrupt(
                f"column '{self.name}' holds '{self.infinite}' among numbers, which have no mean"
                " then: mend the row."
            )
        if not self.numeric:
            return Category(self.name, tuple(sorted(self.values)), gap=True)
        spread = math.sqrt(self.squares / self.count) if self.count else 0.0
        return Numeric(self.name, self.mean, spread, FAR)


@dataclass(frozen=True, slots=True)
class Numeric:
    """A column of numbers, less ``middle``, by ``spread``, cut to ``most`` of it; one that is
    missing is the middle, 0, and so is one that never varies.
    """

    name: str
    middle: float
    spread: float
    most: float

    @classmethod
    def within(cls, name: str, bounds: Sequence[float]) -> Numeric:
        """By public bounds: from -1 at the lower to 1 at the upper one.

        Raises:
            ConfigError: they are no two numbers, the lower first.

        >>> Numeric.within("age", [0, 100]).features(np.array([25.0, 300.0]), 0).tolist()
        [[-0.5], [1.0]]
        """
        if len(bounds) != 2 or not -math.inf < bounds[0] < bounds[1] < math.inf:
            raise ConfigError(
                f"bounds of '{name}' are two numbers, the lower first, as in {{{name}: [0, 100]}},"
                f" and are {list(bounds)}."
            )
        low, high = bounds
        return cls(name, (low + high) / 2, (high - low) / 2, 1.0)

    @property
    def names(self) -> tuple[str, ...]:
        """What its features are called."""
        return (self.name,)

    @property
    def undone(self) -> tuple[float, float]:
        """What is added and multiplied to have the file's units back."""
        return self.middle, self.spread or 1.0

    def features(self, column: Column, first: int) -> npt.NDArray[np.float32]:
        """Its features [n, 1]."""
        values = numbers(self.name, column, first)
        if not self.spread:
            return np.zeros((len(values), 1), np.float32)
        scaled = np.nan_to_num((values - self.middle) / self.spread).clip(-self.most, self.most)
        return scaled[:, None].astype(np.float32)


@dataclass(frozen=True, slots=True)
class Category:
    """A column of categories, one-hot; any other value is a row of zeros, and so is a missing one
    unless there is a ``gap`` for it, a category of its own.
    """

    name: str
    values: tuple[str, ...]
    gap: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What its features are called."""
        gap = (f"{self.name}=missing",) if self.gap else ()
        return (*(f"{self.name}={value}" for value in self.values), *gap)

    @property
    def undone(self) -> tuple[float, float]:
        """Nothing is."""
        return 0.0, 1.0

    def features(self, column: Column, first: int) -> npt.NDArray[np.float32]:
        """Its features [n, values]."""
        made = np.zeros((len(column), len(self.names)), np.float32)
        places = {value: at for at, value in enumerate(self.values)}
        gone = missing(column)
        for row, word in enumerate(words(column)):
            at = None if gone[row] else places.get(word)
            if at is not None:
                made[row, at] = 1.0
        if self.gap:
            made[:, -1] = gone
        return made


Coded = Numeric | Category


def given(
    bounds: Mapping[str, Sequence[float]], categories: Mapping[str, Sequence[Any]]
) -> dict[str, Coded]:
    """The columns of which all is public.

    Raises:
        ConfigError: a column that has both, bounds that are none, or categories that say nothing.
    """
    made: dict[str, Coded] = {name: Numeric.within(name, two) for name, two in bounds.items()}
    for name, values in categories.items():
        listed = tuple(words(np.array(list(values), dtype=object)))
        if name in made or len(set(listed)) != len(listed) or not listed:
            raise ConfigError(
                f"categories of '{name}' are its different values, as in {{{name}: [yes, no]}}, and"
                f" a column that has them has no bounds: they are {list(values)}."
            )
        made[name] = Category(name, listed)
    return made
