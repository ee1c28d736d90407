"""Data sets that Hugging Face's ``datasets`` has saved to disk, as tables."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from privfl.core import ConfigError, DataCorrupt, DataMissing, Library
from privfl.data.own import Csv, Npz, OwnTable, Parquet
from privfl.data.sources import ROWS_AT_ONCE, Rows, Source

_DATASETS = Library("datasets", "datasets")
_AT_ONCE = ROWS_AT_ONCE // 16
"""Rows that are read at a time; images among them are decoded one by one."""


@dataclass(frozen=True, slots=True)
class SavedSource:
    """A folder that ``Dataset.save_to_disk`` has written; needs the extra ``datasets``. Columns
    that are not ``used`` are not decoded.
    """

    path: Path
    used: Callable[[str], bool] = lambda name: True

    def chunks(self) -> Iterator[Rows]:
        """Its rows: class labels by their names, images as pixels [c, h, w] from 0 to 1, sequences
        as arrays, all else as it is. Only what the folder holds is read: no code in it runs, and
        of an image that names a file or an address instead of holding its bytes nothing is fetched.

        Raises:
            ConfigError: datasets or Pillow is not installed, or there are several parts in the
                folder.
            DataMissing: there is no such folder. Nothing is downloaded.
            DataCorrupt: it holds no whole data set.
        """
        held = self._held()
        decoded = _Decoded(self.path, held.features)
        unread = {name for name in held.features if not self.used(name)}
        for batch in held.with_format("arrow").iter(batch_size=_AT_ONCE):
            yield decoded.rows(batch, unread)

    def _held(self) -> Any:
        _DATASETS.require()
        if not self.path.is_dir():
            raise DataMissing(
                f"there is no folder '{self.path}', and nothing is downloaded: save a data set"
                f" there by datasets.load_dataset(...).save_to_disk('{self.path}')."
            )
        try:
            held = _DATASETS.load_from_disk(str(self.path))
            if not isinstance(held, dict):
                held.data.table.validate(full=True)  # a bad offset would be read outside of memory
        except Exception as error:  # what datasets says of files that are not its own has no base
            said = (str(error).splitlines() or ["-"])[0]
            raise DataCorrupt(
                f"'{self.path}' holds no data set of datasets that can be read, or no rows:"
                f" {type(error).__name__}: {said}"
            ) from None
        if isinstance(held, dict):
            parts = [str(self.path / name) for name in held]
            if len(parts) < 2:
                way = f"name it, path: {parts[0]}" if parts else "it is empty"
            else:
                way = f"name one in path and one in test, as in path: {parts[0]}, test: {parts[-1]}"
            raise ConfigError(f"'{self.path}' holds the parts {', '.join(held) or 'none'}: {way}.")
        return held


@dataclass(frozen=True, slots=True)
class _Decoded:
    """What rows of a folder hold."""

    path: Path
    features: Mapping[str, Any]

    def rows(self, batch: Any, unread: Container[str]) -> Rows:
        """Some of them, column by column; one that nobody uses stands there without its values."""
        return {
            name: np.full(len(batch), None, dtype=object)
            if name in unread
            else self._column(name, feature, batch.column(name).to_pylist())
            for name, feature in self.features.items()
        }

    def _column(self, name: str, feature: Any, values: Sequence[Any]) -> npt.NDArray[Any]:
        if isinstance(feature, _DATASETS.ClassLabel):
            return np.array([self._class(name, feature, one) for one in values], dtype=object)
        if isinstance(feature, _DATASETS.Image):
            return self._stacked(name, [self._pixels(name, feature, one) for one in values])
        if isinstance(feature, _DATASETS.Value):
            made = np.empty(len(values), dtype=object)
            made[:] = values
            return made
        return self._stacked(name, values)

    def _class(self, name: str, feature: Any, value: int | None) -> str | None:
        """The name of a class; -1 stands for none."""
        if value is None or value == -1:
            return None
        known = feature.num_classes
        if not 0 <= value < known:
            raise DataCorrupt(
                f"'{self.path}': column '{name}' holds the label {value}, and its {known} classes"
                f" go from 0 to {known - 1}: mend the row."
            )
        return str(feature.int2str(value))

    def _stacked(self, name: str, values: Sequence[Any]) -> npt.NDArray[Any]:
        try:
            return np.stack([np.asarray(one, dtype=np.float32) for one in values])
        except (TypeError, ValueError):
            raise DataCorrupt(
                f"'{self.path}': the arrays of column '{name}' have several shapes, or hold no"
                " numbers: make them alike, or leave the column out with drop."
            ) from None

    def _pixels(self, name: str, feature: Any, value: Any) -> npt.NDArray[np.float32]:
        """An image [c, h, w], from 0 to 1."""
        held = (value or {}).get("bytes")
        where = f"'{self.path}': column '{name}'"
        if held is None:
            why = "is missing" if value is None else f"lies elsewhere ('{value.get('path')}')"
            raise DataCorrupt(
                f"{where} holds an image that {why}, and nothing is fetched: leave its row out, or"
                " save the data set by save_to_disk, which takes images in."
            )
        if importlib.util.find_spec("PIL") is None:
            raise ConfigError(
                f"{where} holds images, which Pillow reads: pip install 'privfl[datasets]'."
            )
        try:
            image = feature.decode_example({"bytes": held, "path": None})
            if image.mode in ("P", "PA"):  # the numbers of colours, which its palette has
                image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        except Exception as error:  # decoders of hostile bytes have no error in common
            raise DataCorrupt(f"{where} holds an image that cannot be read: {error}") from None
        pixels = np.asarray(image)
        if image.mode in ("I", "F"):
            raise DataCorrupt(
                f"{where} holds images of 32 bits a pixel, whose brightest nobody knows: save them"
                " with 8 or 16 bits, or as arrays of numbers."
            )
        top = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "iu" else 1.0
        channels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        return (channels / top).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class HuggingFace(OwnTable):
    """A data set that Hugging Face's ``datasets`` has saved to disk (`OwnTable`), which the extra
    ``datasets`` brings. ``path`` is the folder of one part, as ``digits/train``, ``test`` that of
    another one; nothing is downloaded.

    >>> HuggingFace(path="digits/train", test="digits/test", target="label").test_every
    5
    """

    def source(self, path: Path) -> Source:
        """The table in a folder."""
        return SavedSource(path, self._used)

    def _used(self, name: str) -> bool:
        if name in (self.target, self.client_column):
            return True
        return name not in self.drop and (self.features is None or name in self.features)


FILES: Mapping[str, type[OwnTable]] = {
    "csv": Csv,
    "parquet": Parquet,
    "npz": Npz,
    "huggingface": HuggingFace,
}
