"""Tables in files, some rows at a time."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from privfl.core import ConfigError, DataCorrupt, DataMissing

Rows: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""Columns by name, some rows of them: text, numbers, or objects with None."""
ROWS_AT_ONCE = 4096


class Source(Protocol):
    """A table that can be read more than once."""

    def chunks(self) -> Iterator[Rows]:
        """Its rows in their order, at most `ROWS_AT_ONCE` at a time.

        Raises:
            DataMissing: there is no such file.
            DataCorrupt: it is cut, or something else.
        """
        ...


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Errors of files and parsers as sentences."""
    try:
        yield
    except (DataCorrupt, DataMissing):
        raise
    except OSError as error:
        raise DataMissing(f"cannot read '{path}': {error.strerror or error}.") from None
    except (
        csv.Error,
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        OverflowError,
        RuntimeError,  # a zip with a password, or of a kind that Python does not read
        EOFError,
    ) as error:
        raise DataCorrupt(f"'{path}' is no whole {what}: {error}.") from None


@dataclass(frozen=True, slots=True)
class CsvSource:
    """A file of comma-separated values, quoted where they need it, whose first line has names."""

    path: Path
    delimiter: str = ","

    def chunks(self) -> Iterator[Rows]:
        """Its rows.

        Raises:
            DataCorrupt: it has no first line of names, or a line of another length.
        """
        with (
            _reading(self.path, "CSV file"),
            self.path.open(encoding="utf-8-sig", newline="") as file,
        ):
            lines = csv.reader(_as_text(self.path, file), delimiter=self.delimiter, strict=True)
            names = next(lines, [])
            twice = {name for name in names if names.count(name) > 1}
            if not names or twice:
                why = f"'{min(twice)}' stands there twice" if twice else "it has none"
                raise DataCorrupt(f"'{self.path}' needs a first line of column names: {why}.")
            held: list[list[str]] = []
            for line in lines:
                if not line:
                    continue
                if len(line) != len(names):
                    raise DataCorrupt(
                        f"'{self.path}', line {lines.line_num}: {len(line)} fields where"
                        f" {len(names)} belong."
                    )
                held.append(line)
                if len(held) == ROWS_AT_ONCE:
                    yield _columns(names, held)
                    held = []
            if held:
                yield _columns(names, held)


def _as_text(path: Path, lines: Iterable[str]) -> Iterator[str]:
    """Lines without a NUL, which no text has: Python reads it as a letter of a field.

    Raises:
        DataCorrupt: a line has one.
    """
    for number, line in enumerate(lines, start=1):
        if "\0" in line:
            raise DataCorrupt(
                f"'{path}', line {number}: it holds a NUL byte, which no text does: the file is"
                " damaged, or is not in UTF-8 (UTF-16 perhaps). Save it as UTF-8."
            )
        yield line


def _columns(names: list[str], held: list[list[str]]) -> Rows:
    columns = zip(*held, strict=True)
    return {name: np.array(one, dtype=object) for name, one in zip(names, columns, strict=True)}


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """A Parquet file; needs the extra ``parquet``."""

    path: Path

    def chunks(self) -> Iterator[Rows]:
        """Its rows.

        Raises:
            ConfigError: pyarrow is not installed.
            DataCorrupt: it is no whole Parquet file.
        """
        try:
            from pyarrow import ArrowInvalid
            from pyarrow.parquet import ParquetFile
        except ImportError:
            raise ConfigError(
                f"'{self.path}' is read by pyarrow, which is not installed: pip install"
                " 'privfl[parquet]'."
            ) from None
        try:
            with _reading(self.path, "Parquet file"), self.path.open("rb") as file:
                for batch in ParquetFile(file).iter_batches(ROWS_AT_ONCE):
                    yield {
                        name: np.array(column.to_pylist(), dtype=object)
                        for name, column in zip(batch.schema.names, batch.columns, strict=True)
                    }
        except ArrowInvalid as error:
            raise DataCorrupt(f"'{self.path}' is no whole Parquet file: {error}.") from None


@dataclass(frozen=True, slots=True)
class NpzSource:
    """Arrays of one length in a ``.npz`` file, without pickled objects; read row by row, so none of
    them is in memory as a whole.
    """

    path: Path

    def chunks(self) -> Iterator[Rows]:
        """Its rows.

        Raises:
            DataCorrupt: arrays of several lengths, or none of rows.
        """
        with _reading(self.path, "npz file"), zipfile.ZipFile(self.path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            files = {name.removesuffix(".npy"): archive.open(name) for name in names}
            heads = {name: _head(self.path, name, file) for name, file in files.items()}
            lengths = {shape[0] for shape, _ in heads.values()}
            if len(lengths) != 1:
                raise DataCorrupt(f"'{self.path}' holds arrays of several lengths: {lengths}.")
            left = lengths.pop()
            while left:
                now = min(left, ROWS_AT_ONCE)
                yield {name: _rows(file, now, *heads[name]) for name, file in files.items()}
                left -= now


def _head(path: Path, name: str, file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array of which the file is at the beginning."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
    shape, by_column, dtype = (read or np.lib.format.read_array_header_2_0)(file)
    if dtype.hasobject or not shape or (by_column and len(shape) > 1):
        raise DataCorrupt(
            f"'{path}': array '{name}' holds Python objects, one value, or lies column by column:"
            " save plain arrays of rows, as np.savez does of np.ascontiguousarray(...)."
        )
    return tuple(shape), dtype


def _rows(file: Any, n: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    size = n * int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    data = file.read(size)
    if len(data) != size:
        raise ValueError("an array ends before its last row")
    return np.frombuffer(data, dtype).reshape(n, *shape[1:])
