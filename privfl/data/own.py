"""Somebody's own table as a data set: CSV, Parquet and npz files with a column of labels, and one
that says which client a row belongs to.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from privfl.core import ConfigError, DataCorrupt, Dataset, require, unknown
from privfl.data.columns import Coded, Column, FittedColumn, given, missing, words
from privfl.data.sources import CsvSource, NpzSource, ParquetSource, Rows, Source
from privfl.data.split import Split
from privfl.data.spool import Spool


@dataclass(frozen=True, kw_only=True)
class OwnTable(ABC):
    """What `Csv`, `Parquet` and `Npz` have in common.

    ``target`` is the column of labels, ``client_column`` the one whose values are the clients (the
    natural partition; None: rows are dealt out). Columns of numbers are standardised, other ones
    are one-hot, and missing values are the mean or a category of their own, as scikit-learn's
    StandardScaler, SimpleImputer and OneHotEncoder(handle_unknown="ignore") have it.

    What is public is given: ``bounds`` of numbers ([low, high], which become -1 to 1; beyond them a
    value counts as the bound), ``categories`` of others, ``classes`` of labels. What is not is
    taken from the training rows of all clients, said in `Split.fitted`, and refused by a run that
    claims privacy. ``drop`` names columns that are left out, ``features`` those that are used
    (None: all others). Of each client every ``test_every``-th row is a test row, unless ``test`` is
    a file of them.

    Rows are encoded once, to a file without a name, and read where they are used (`Spool`).

    Raises:
        ConfigError: a number out of range, classes that stand there twice, a test file that is
            the one to train on.
    """

    path: str
    target: str
    client_column: str | None = None
    bounds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    categories: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    classes: Sequence[Any] | None = None
    features: Sequence[str] | None = None
    drop: Sequence[str] = ()
    test: str | None = None
    test_every: int = 5

    def __post_init__(self) -> None:
        require.at_least(2, test_every=self.test_every)
        if isinstance(self.classes, str):
            raise ConfigError(f"classes are a list, as in [no, yes], and are '{self.classes}'.")
        if self.test is not None and Path(self.test).resolve() == Path(self.path).resolve():
            raise ConfigError(
                f"test is '{self.test}', whose rows are trained on: leave it out, and of each"
                " client some rows are test rows (test_every)."
            )
        listed = words(np.array(list(self.classes or ()), dtype=object))
        if len(set(listed)) != len(listed):
            raise ConfigError(f"classes are different labels, and are {list(self.classes or ())}.")

    @abstractmethod
    def source(self, path: Path) -> Source:
        """The table in a file."""

    def __call__(self, folder: Path | None = None) -> Split:
        """Read it; ``folder`` is not looked at.

        Raises:
            ConfigError: a column that is not there, or cannot be used.
            DataMissing: there is no such file.
            DataCorrupt: a row has no label or no client, or is cut.
        """
        return _Reading(self).split()


class _Reading:
    """Two passes over a table: what has to be fitted, then the samples."""

    def __init__(self, table: OwnTable) -> None:
        self.table = table
        self.coded: dict[str, Coded] = given(table.bounds, table.categories)
        self.fits: dict[str, FittedColumn] = {}
        self.arrays: set[str] = set()
        self.labels: set[str] = set()
        self.clients: set[str] = set()
        self.columns: tuple[str, ...] = ()

    def split(self) -> Split:
        table = self.table
        for rows, _, held_out in self._passes():
            self._fit(rows, held_out)
        fitted = [f"'{name}'" for name in self.fits]
        self.coded |= {name: fit.coded() for name, fit in self.fits.items()}
        if table.classes is None:
            fitted.append(f"the classes of '{table.target}'")
            classes = _in_order(self.labels)
        else:
            classes = tuple(words(np.array(list(table.classes), dtype=object)))
        if len(classes) < 2:
            raise ConfigError(
                f"target '{table.target}' has the values {list(classes)}, and a task needs two"
                " classes at least."
            )
        if not self.columns:
            raise ConfigError("no column is left to train on: name some in features.")
        clients = tuple(sorted(self.clients))
        parts = {False: _Part(), True: _Part()}
        for rows, first, held_out in self._passes():
            self._encode(rows, first, held_out, classes, clients, parts)
        for what, part in (("train on", parts[False]), ("test with", parts[True])):
            if not part.x.n:
                raise DataCorrupt(f"'{table.path}' leaves no rows to {what}: it is too small.")
        sides = [self._dataset(parts[side], len(classes), clients) for side in (False, True)]
        names, mean, std = self._facts()
        return Split(
            name=Path(table.path).stem,
            train=sides[0],
            test=sides[1],
            kind="tabular",
            shape=tuple(sides[0].x.shape[1:]),
            classes=len(classes),
            class_names=classes,
            feature_names=names,
            mean=mean,
            std=std,
            natural=table.client_column,
            about=f"{sides[0].n + sides[1].n:,} rows of '{Path(table.path).name}'.",
            fitted=tuple(fitted),
        )

    def _passes(self) -> Iterator[tuple[Rows, int, npt.NDArray[np.bool_]]]:
        """Chunks of rows, the number of their first row, and which of them are test rows."""
        table, seen = self.table, Counter[str]()
        for path, tests in ((table.path, False), (table.test, True)):
            first = 1
            for rows in () if path is None else table.source(Path(path)).chunks():
                self._require(rows)
                n = len(rows[table.target])
                held_out = np.full(n, tests)
                if table.test is None:
                    whose = [""] * n
                    if table.client_column is not None:
                        whose = words(rows[table.client_column])
                    for row, client in enumerate(whose):
                        seen[client] += 1
                        held_out[row] = seen[client] % table.test_every == 0
                yield rows, first, held_out
                first += n

    def _require(self, rows: Rows) -> None:
        """Refuse a table that lacks a column."""
        table = self.table
        wanted = [table.target, *table.bounds, *table.categories, *table.drop]
        wanted += [*(table.features or ()), *([table.client_column] if table.client_column else [])]
        for name in wanted:
            if name not in rows:
                raise ConfigError(f"'{table.path}': {unknown('column', name, rows)}")
        for one in (table.target, table.client_column):
            if one is not None and rows[one].ndim != 1:
                raise ConfigError(f"'{table.path}': column '{one}' has several values a row.")
        for name in self.columns:  # of the file before: a file of test rows has them too
            if name not in rows:
                raise ConfigError(f"'{table.test}': {unknown('column', name, rows)}")
        if not self.columns:
            chosen = rows if table.features is None else table.features
            left_out = {table.target, table.client_column, *table.drop}
            self.columns = tuple(name for name in chosen if name not in left_out)

    def _fit(self, rows: Rows, held_out: npt.NDArray[np.bool_]) -> None:
        table = self.table
        for name in self.columns:
            if rows[name].ndim > 1:
                self.arrays.add(name)  # arrays of features are used as they are
            elif name not in self.coded:
                self.fits.setdefault(name, FittedColumn(name)).see(rows[name][~held_out])
        labels = rows[table.target]
        self.labels.update(words(labels[~held_out & ~missing(labels)]))
        if table.client_column is not None:
            owners = rows[table.client_column]
            self.clients.update(words(owners[~missing(owners)]))

    def _encode(
        self,
        rows: Rows,
        first: int,
        held_out: npt.NDArray[np.bool_],
        classes: Sequence[str],
        clients: Sequence[str],
        parts: Mapping[bool, _Part],
    ) -> None:
        table = self.table
        x = self._features(rows, first)
        y = _codes(rows[table.target], classes, table.target, first)
        owners = None
        if table.client_column is not None:
            owners = _codes(rows[table.client_column], clients, table.client_column, first)
        for side, part in parts.items():
            chosen = held_out == side
            part.x.add(x[chosen])
            part.y.add(y[chosen])
            if owners is not None:
                part.owners.add(owners[chosen])

    def _features(self, rows: Rows, first: int) -> npt.NDArray[np.float32]:
        if len(self.columns) == 1 and self.arrays:
            return _plain(self.columns[0], rows[self.columns[0]])
        blocks = [
            _plain(name, rows[name]).reshape(len(rows[name]), -1)
            if name in self.arrays
            else self.coded[name].features(rows[name], first)
            for name in self.columns
        ]
        return np.concatenate(blocks, axis=1)

    def _facts(self) -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
        """Names of features, and what undoes their scaling; nothing where arrays are used."""
        if self.arrays:
            return (), (), ()
        names, mean, std = list[str](), list[float](), list[float]()
        for column in self.columns:
            coded = self.coded[column]
            names += coded.names
            mean += [coded.undone[0]] * len(coded.names)
            std += [coded.undone[1]] * len(coded.names)
        return tuple(names), tuple(mean), tuple(std)

    def _dataset(self, part: _Part, classes: int, clients: tuple[str, ...]) -> Dataset:
        name = self.table.client_column
        owners = {} if name is None else {name: part.owners.tensor()}
        groups = {} if name is None else {name: clients}
        return Dataset(part.x.tensor(), part.y.tensor(), classes, owners, groups)


class _Part:
    """Train or test rows on their way to disk."""

    def __init__(self) -> None:
        self.x, self.y, self.owners = Spool(), Spool(), Spool()


def _plain(name: str, values: Column) -> npt.NDArray[np.float32]:
    """An array of features, as it is.

    Raises:
        DataCorrupt: values that are no finite numbers, or none in a row.
    """
    if not math.prod(values.shape[1:]):
        raise DataCorrupt(f"array '{name}' holds no value in a row: leave it out with drop.")
    if values.dtype.kind not in "iubf" or not np.isfinite(values).all():
        raise DataCorrupt(f"array '{name}' holds values that are no finite numbers.")
    return values.astype(np.float32)


def _in_order(labels: set[str]) -> tuple[str, ...]:
    """Labels sorted, as numbers where all are."""
    try:
        return tuple(sorted(labels, key=float))
    except ValueError:
        return tuple(sorted(labels))


def _codes(column: Column, known: Sequence[str], name: str, first: int) -> npt.NDArray[np.int64]:
    """The position of each value [n] among the known ones.

    Raises:
        DataCorrupt: one is missing, or not among them.
    """
    places, gone = {value: at for at, value in enumerate(known)}, missing(column)
    found = [-1 if gone[row] else places.get(word, -1) for row, word in enumerate(words(column))]
    if -1 in found:
        row = found.index(-1)
        shown = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
        why = (
            "is missing"
            if gone[row]
            else f"is {column[row]!r}, which is none of those known ({shown})"
        )
        raise DataCorrupt(f"row {first + row}: '{name}' {why}: leave the row out, or mend it.")
    return np.array(found, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Csv(OwnTable):
    r"""A CSV file (`OwnTable`), whose first line names the columns; ``delimiter`` stands between
    fields.

    Raises:
        ConfigError: a number out of range, or a delimiter that is not one character.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     _ = file.write("age,sick,ward\n" + "30,no,a\n50,yes,a\n40,no,b\n" * 4)
    ...     file.flush()
    ...     split = Csv(path=file.name, target="sick", client_column="ward")()
    >>> split.train.n, split.class_names, list(split.by_client())
    (11, ('no', 'yes'), ['a', 'b'])
    """

    delimiter: str = ","

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.delimiter) != 1:
            raise ConfigError(f"delimiter is one character, and is {self.delimiter!r}.")

    def source(self, path: Path) -> Source:
        """The table in a file."""
        return CsvSource(path, self.delimiter)


@dataclass(frozen=True, kw_only=True)
class Parquet(OwnTable):
    """A Parquet file (`OwnTable`), read by pyarrow, which the extra ``parquet`` brings."""

    def source(self, path: Path) -> Source:
        """The table in a file."""
        return ParquetSource(path)


@dataclass(frozen=True, kw_only=True)
class Npz(OwnTable):
    """Arrays in an npz file (`OwnTable`), one a column; one of several values a row, images for
    instance, is used as it is.
    """

    def source(self, path: Path) -> Source:
        """The table in a file."""
        return NpzSource(path)
