"""CIFAR-10 (Krizhevsky 2009) in its binary layout: records of one label byte and 3,072 bytes,
channel after channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from privfl.core import DataCorrupt, Dataset
from privfl.data import files, scale
from privfl.data.split import Split

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FOLDER = "cifar-10-batches-bin"
_RECORD = 1 + 3 * 32 * 32
_BATCHES = 5


@dataclass(frozen=True, slots=True)
class Cifar10:
    """Colour pictures of 10 classes, 32x32: 10,000 to test, and 10,000 to train for each training
    batch that is there.

    Reads whichever of the five ``data_batch_*.bin`` lie in the folder, in their order, and says how
    many in ``Split.about``. Features [n, 3, 32, 32] are pixels / 255, less the channel means
    (0.4914, 0.4822, 0.4465), by the standard deviations (0.2470, 0.2435, 0.2616) of the 50,000
    official training images.

    Raises:
        DataMissing: the test batch or all training batches are not on this machine.
        DataCorrupt: a batch is truncated, or holds a label over 9.
    """

    def __call__(self, folder: Path | None = None) -> Split:
        """Load it from a data folder, or from the usual one."""
        base = folder or files.data_folder()
        found = [
            files.locate(base / _FOLDER / f"data_batch_{i}.bin") for i in range(1, _BATCHES + 1)
        ]
        batches = [path for path in found if path is not None] or [
            files.find("cifar10", f"{_FOLDER}/data_batch_1.bin", folder)
        ]
        train, test = (
            _read(batches),
            _read([files.find("cifar10", f"{_FOLDER}/test_batch.bin", folder)]),
        )
        return Split(
            name="cifar10",
            train=train,
            test=test,
            kind="image",
            shape=(3, 32, 32),
            classes=10,
            class_names=CLASSES,
            mean=MEAN,
            std=STD,
            about=(
                f"{train.n:,} + {test.n:,} colour pictures, 32x32, from {len(batches)} of"
                f" {_BATCHES} training batches."
            ),
        )


def _read(batches: list[Path]) -> Dataset:
    records: npt.NDArray[np.uint8] = np.concatenate([_records(path) for path in batches])
    x = scale.images(records[:, 1:].reshape(-1, 3, 32, 32), MEAN, STD)
    y = torch.from_numpy(records[:, 0].astype(np.int64))
    return Dataset(x, y, 10, span=scale.span(MEAN, STD))


def _records(path: Path) -> npt.NDArray[np.uint8]:
    body = files.read(path)
    if not body or len(body) % _RECORD:
        raise DataCorrupt(
            f"{path} has {len(body)} bytes, which is no whole number of records of {_RECORD}:"
            " delete it and fetch it again."
        )
    records = np.frombuffer(body, dtype=np.uint8).reshape(-1, _RECORD)
    if records[:, 0].max() > 9:
        raise DataCorrupt(
            f"{path} holds the label {records[:, 0].max()}, and there are 10 classes."
        )
    return records
