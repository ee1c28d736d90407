"""The idx format of MNIST's files: two zero bytes, an element type, the number of dimensions, their
sizes, then big-endian data.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from privfl.core import DataCorrupt
from privfl.data import files

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def parse(body: bytes, path: Path) -> npt.NDArray[np.generic]:
    """The array in an idx file's bytes: a read-only view of them, in the file's byte order.

    Raises:
        DataCorrupt: the header is not idx, or the length is not what it announces.

    >>> parse(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4]), Path("labels")).tolist()
    [5, 0, 4]
    """
    if len(body) < 4 or body[:2] != b"\0\0" or body[2] not in _TYPES or body[3] == 0:
        raise DataCorrupt(f"{path} is not an idx file: it begins with {body[:4]!r}.")
    start = 4 + 4 * body[3]
    if len(body) < start:
        raise DataCorrupt(f"{path} ends inside its idx header.")
    shape = struct.unpack_from(f">{body[3]}I", body, 4)
    kind = np.dtype(_TYPES[body[2]])
    size = start + kind.itemsize * int(np.prod(shape, dtype=object))
    if len(body) != size:
        raise DataCorrupt(
            f"{path} has {len(body)} bytes, and its idx header announces {size}: delete it and"
            " fetch it again."
        )
    return np.frombuffer(body, dtype=kind, offset=start).reshape(shape)


def load(path: Path) -> npt.NDArray[np.generic]:
    """The array in an idx file, gzipped or not.

    Raises:
        DataCorrupt: it is truncated or something else.
    """
    return parse(files.read(path), path)


def load_images(
    dataset: str, images: str, labels: str, folder: Path | None, classes: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Pixels [n, 28, 28] and labels [n] of a pair of files.

    Raises:
        DataMissing: one of them is absent.
        DataCorrupt: one of them is not what its name says, or they do not match.
    """
    where, beside = files.find(dataset, images, folder), files.find(dataset, labels, folder)
    pixels, y = load(where), load(beside)
    if pixels.ndim != 3 or pixels.dtype != np.uint8:
        raise DataCorrupt(
            f"{where} does not hold images of one byte a pixel: {pixels.ndim} dimensions of"
            f" {pixels.dtype}."
        )
    if y.shape != pixels.shape[:1] or y.dtype != np.uint8:
        raise DataCorrupt(
            f"{beside} does not hold one label for each of the {len(pixels)} images in {where}."
        )
    whole = y.astype(np.int64)
    if len(whole) and whole.max() >= classes:
        raise DataCorrupt(
            f"{beside} holds the label {whole.max()}, and there are {classes} classes."
        )
    return pixels.astype(np.uint8, copy=False), whole
