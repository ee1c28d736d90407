"""Tables of text fields, and the features that train: numbers standardised by the training rows,
categories one-hot.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from privfl.core import DataCorrupt
from privfl.data import files

Column: TypeAlias = npt.NDArray[Any]
"""Text [n]. (Run-time checks cannot tell NumPy string types of different widths to be one.)"""
MISSING = "?"
FAR = 10.0
"""Standardised numbers are cut to this many standard deviations: one absurd field must not be the
whole gradient.
"""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of text by name, all of one length, and the file that they came from."""

    path: Path
    columns: Mapping[str, Column]

    @property
    def n(self) -> int:
        """How many rows."""
        return len(next(iter(self.columns.values())))

    def take(self, rows: npt.NDArray[np.bool_]) -> Table:
        """The rows where the mask is set."""
        return Table(self.path, {name: column[rows] for name, column in self.columns.items()})

    def replaced(self, **columns: Column) -> Table:
        """With other columns under these names."""
        return Table(self.path, {**self.columns, **columns})

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """A column as numbers, NaN where it is missing.

        Raises:
            DataCorrupt: a field is not a number.
        """
        column = self.columns[name]
        try:
            return np.where(column == MISSING, "nan", column).astype(np.float64)
        except ValueError as fault:
            raise DataCorrupt(
                f"{self.path}: column '{name}' holds something that is not a number ({fault})."
            ) from fault


def read(path: Path, names: Sequence[str]) -> Table:
    """The rows of a comma-separated file without quotes; blank lines and lines that begin with
    ``|`` are none.

    Raises:
        DataCorrupt: no rows, or a row with another number of fields, as where a download was cut.
    """
    rows = [
        line.split(",")
        for line in files.read_text(path).splitlines()
        if line.strip() and not line.startswith("|")
    ]
    if not rows:
        raise DataCorrupt(f"{path} has no rows: delete it and fetch it again.")
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise DataCorrupt(
                f"{path}: row {number + 1} has {len(row)} fields where {len(names)} belong: delete"
                " it and fetch it again."
            )
    columns = zip(*rows, strict=True)
    return Table(
        path,
        {
            name: np.char.strip(np.array(column))
            for name, column in zip(names, columns, strict=True)
        },
    )


def joined(tables: Sequence[Table]) -> Table:
    """Tables of the same columns, one under the other."""
    return Table(
        tables[0].path.parent,
        {
            name: np.concatenate([table.columns[name] for table in tables])
            for name in tables[0].columns
        },
    )


def codes(column: Column, categories: Sequence[str]) -> npt.NDArray[np.int64]:
    """The position of each value among the sorted categories, -1 where it is none of them."""
    known = np.array(categories)
    place = np.searchsorted(known, column).clip(max=len(known) - 1)
    return np.where(known[place] == column, place, -1).astype(np.int64)


def attribute(train: Table, test: Table, name: str) -> tuple[tuple[str, ...], Tensor, Tensor]:
    """The values of a column in either table, sorted, and which of them each row has."""
    values = tuple(map(str, np.unique(np.concatenate([train.columns[name], test.columns[name]]))))
    of_train, of_test = (
        torch.from_numpy(codes(table.columns[name], values)) for table in (train, test)
    )
    return values, of_train, of_test


@dataclass(frozen=True, slots=True)
class Features:
    """Features of both tables [n, d] float32, what each is called, and what undoes the
    standardisation.
    """

    train: Tensor
    test: Tensor
    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def features(
    train: Table,
    test: Table,
    numeric: Sequence[str],
    categorical: Sequence[str],
    *,
    missing_is_a_category: bool,
    logarithmic: Collection[str] = (),
) -> Features:
    """Numbers less the training rows' mean, by their standard deviation, cut to 10 of them;
    categories of the training rows one-hot.

    A missing number becomes the mean, 0. A missing category is one more category, or a row of
    zeros; so is a category that no training row has. Columns in ``logarithmic`` are log(1 + value)
    first. A number that never varies in training stays 0.
    """
    blocks: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = []
    names: list[str] = []
    mean: list[float] = []
    std: list[float] = []
    for name in numeric:
        columns = [
            np.log1p(table.numbers(name)) if name in logarithmic else table.numbers(name)
            for table in (train, test)
        ]
        present = columns[0][~np.isnan(columns[0])]
        middle, spread = (
            (float(present.mean()), float(present.std())) if len(present) else (0.0, 0.0)
        )
        scaled = [
            (
                np.nan_to_num((column - middle) / spread).clip(-FAR, FAR)
                if spread
                else np.zeros(len(column))
            )
            for column in columns
        ]
        blocks.append(
            (scaled[0][:, None].astype(np.float32), scaled[1][:, None].astype(np.float32))
        )
        names.append(f"log(1+{name})" if name in logarithmic else name)
        mean.append(middle)
        std.append(spread or 1.0)
    for name in categorical:
        values = [
            str(value)
            for value in np.unique(train.columns[name])
            if missing_is_a_category or value != MISSING
        ]
        hot = [
            codes(table.columns[name], values)[:, None] == np.arange(len(values))
            for table in (train, test)
        ]
        blocks.append((hot[0].astype(np.float32), hot[1].astype(np.float32)))
        names.extend(f"{name}={value}" for value in values)
        mean.extend([0.0] * len(values))
        std.extend([1.0] * len(values))
    sides = [
        torch.from_numpy(np.concatenate([block[side] for block in blocks], axis=1))
        for side in (0, 1)
    ]
    return Features(sides[0], sides[1], tuple(names), tuple(mean), tuple(std))
