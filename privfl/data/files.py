"""Where data sets lie on this machine, and reading their files: gzipped or not, whole or refused by
name.
"""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

from privfl.core import DataCorrupt, DataMissing


def data_folder() -> Path:
    """``$PRIVFL_DATA`` where it is set, otherwise ``privfl`` in the user's cache
    (``$XDG_CACHE_HOME``, or ``~/.cache``).
    """
    if chosen := os.environ.get("PRIVFL_DATA"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache).expanduser() if cache else Path.home() / ".cache") / "privfl"


def locate(path: Path) -> Path | None:
    """The file, or the same with ``.gz`` added, whichever is there; None where neither is."""
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file():
            return candidate
    return None


def find(dataset: str, file: str, folder: Path | None = None, way_out: str = "") -> Path:
    """The path of a data set's file, plain or gzipped.

    Args:
        dataset: whose file it is, for the error.
        file: relative to the data folder, without ``.gz``.
        folder: the data folder; `data_folder` where it is None.
        way_out: how to get a file that `fetch` does not bring.

    Raises:
        DataMissing: it is not there.
    """
    base = folder or data_folder()
    found = locate(base / file)
    if found is None:
        way = way_out or f"run 'privfl data fetch {dataset}'"
        raise DataMissing(
            f"data set '{dataset}' is not on this machine: no {file} (or {file}.gz) in {base};"
            f" {way}, or set PRIVFL_DATA to the folder that has it."
        )
    return found


def read(path: Path) -> bytes:
    """All bytes of a file, decompressed where its name ends in ``.gz``.

    Raises:
        DataCorrupt: the gzip stream is cut short, or fails its own check sum.
    """
    raw = path.read_bytes()
    if path.suffix != ".gz":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as fault:
        raise DataCorrupt(
            f"{path} is not a whole gzip file ({fault}): delete it and fetch it again."
        ) from fault


def read_text(path: Path) -> str:
    """A text file, decompressed where need be.

    Raises:
        DataCorrupt: it is not text.
    """
    try:
        return read(path).decode("utf-8")
    except UnicodeDecodeError as fault:
        raise DataCorrupt(f"{path} is not text ({fault}): delete it and fetch it again.") from fault
