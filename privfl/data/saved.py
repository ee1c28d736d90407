"""Data sets that Hugging Face's ``datasets`` has saved to disk, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    """A folder that ``Dataset.save_to_disk`` has written; needs the extra ``datasets``."""

    path: Path

    def chunks(self) -> Iterator[Rows]:
        """Its rows: class labels by their names, images as pixels [c, h, w] from 0 to 1, sequences
        as arrays, all else as it is.

        Raises:
            ConfigError: datasets is not installed, or there are several parts in the folder.
            DataMissing: there is no such folder. Nothing is downloaded.
            DataCorrupt: it holds no whole data set, or rows whose arrays have several shapes.
        """
        _DATASETS.require()
        if not self.path.is_dir():
            raise DataMissing(
                f"there is no folder '{self.path}', and nothing is downloaded: save a data set"
                f" there by datasets.load_dataset(...).save_to_disk('{self.path}')."
            )
        try:
            held = _DATASETS.load_from_disk(str(self.path))
        except (OSError, ValueError, KeyError) as error:
            raise DataCorrupt(f"'{self.path}' holds no data set of datasets: {error}") from None
        if isinstance(held, dict):
            parts = [self.path / name for name in held]
            raise ConfigError(
                f"'{self.path}' holds the parts {', '.join(held)}: name one in path and one in"
                f" test, as in path: {parts[0]}, test: {parts[-1]}."
            )
        for batch in held.iter(batch_size=_AT_ONCE):
            yield {name: self._column(name, held.features[name], batch[name]) for name in batch}

    def _column(self, name: str, feature: Any, values: Sequence[Any]) -> npt.NDArray[Any]:
        if isinstance(feature, _DATASETS.ClassLabel):
            named = [None if one is None or one < 0 else feature.int2str(one) for one in values]
            return np.array(named, dtype=object)
        if isinstance(feature, _DATASETS.Image):
            return self._stacked(name, [_pixels(image) for image in values])
        if isinstance(feature, _DATASETS.Value):
            return np.array(values, dtype=object)
        return self._stacked(name, values)

    def _stacked(self, name: str, values: Sequence[Any]) -> npt.NDArray[Any]:
        try:
            return np.stack([np.asarray(one, dtype=np.float32) for one in values])
        except (TypeError, ValueError):
            raise DataCorrupt(
                f"'{self.path}': the arrays of column '{name}' have several shapes, or hold no"
                " numbers: make them alike, or leave the column out with drop."
            ) from None


def _pixels(image: Any) -> npt.NDArray[np.float32]:
    """An image [c, h, w], from 0 to 1."""
    pixels = np.asarray(image)
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
        return SavedSource(path)


FILES: Mapping[str, type[OwnTable]] = {
    "csv": Csv,
    "parquet": Parquet,
    "npz": Npz,
    "huggingface": HuggingFace,
}
