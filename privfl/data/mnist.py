"""MNIST (LeCun, Cortes, Burges 1998), with who wrote each digit from QMNIST (Yadav, Bottou
2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from privfl.core import DataCorrupt, Dataset
from privfl.data import files, idx, scale
from privfl.data.split import Split

MEAN, STD = (0.1307,), (0.3081,)
GROUPS = {"group": ("staff", "student")}
_STUDENT_SERIES = 4
"""NIST's series 4 was written by high-school students, 0 (and 1) by its field staff."""


@dataclass(frozen=True, slots=True)
class Mnist:
    """60,000 + 10,000 digits, 28x28, with the attributes ``writer`` (NIST's number) and ``group``
    (0 staff, 1 student).

    Features [n, 1, 28, 28] are pixels / 255, less the training mean 0.1307, by its standard
    deviation 0.3081. 539 people wrote the training digits, 19 to 131 each, and none of them a test
    digit. Row i of QMNIST's labels is MNIST's image i. Where QMNIST's label files do not lie beside
    MNIST, the attributes are absent.

    Raises:
        DataMissing: the files are not on this machine.
        DataCorrupt: a file is truncated, or not what its name says.
    """

    def __call__(self, folder: Path | None = None) -> Split:
        """Load it from a data folder, or from the usual one."""
        train, test = _part("train", "train", folder), _part("t10k", "test", folder)
        return Split(
            name="mnist",
            train=train,
            test=test,
            kind="image",
            shape=(1, 28, 28),
            classes=10,
            class_names=tuple("0123456789"),
            mean=MEAN,
            std=STD,
            natural="writer" if "writer" in train.attributes else None,
            about=f"{train.n:,} + {test.n:,} handwritten digits, 28x28.",
        )


def _part(part: str, writers: str, folder: Path | None) -> Dataset:
    pixels, y = idx.load_images(
        "mnist",
        f"mnist/{part}-images-idx3-ubyte",
        f"mnist/{part}-labels-idx1-ubyte",
        folder,
        classes=10,
    )
    x = scale.images(pixels[:, None], MEAN, STD)
    beside = files.locate(
        (folder or files.data_folder()) / f"qmnist-writers/qmnist-{writers}-labels-idx2-int"
    )
    attributes = {} if beside is None else _writers(beside, y)
    groups = GROUPS if attributes else {}
    return Dataset(x, torch.from_numpy(y), 10, attributes, groups, scale.span(MEAN, STD))


def _writers(path: Path, y: npt.NDArray[np.int64]) -> dict[str, Tensor]:
    """QMNIST's columns are class, series, writer, and five more; its test file goes on after
    MNIST's 10,000.
    """
    rows = idx.load(path)
    if rows.ndim != 2 or rows.shape[1] != 8 or len(rows) < len(y) or (rows[: len(y), 0] != y).any():
        raise DataCorrupt(
            f"{path} does not describe the {len(y)} MNIST images row by row: delete it and fetch it"
            " again."
        )
    columns = rows[: len(y)].astype(np.int64)
    return {
        "writer": torch.from_numpy(columns[:, 2].copy()),
        "group": torch.from_numpy((columns[:, 1] == _STUDENT_SERIES).astype(np.int64)),
    }
