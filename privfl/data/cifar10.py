"""CIFAR-10 (Krizhevsky 2009) in its binary layout: records of one label byte and 3,072 bytes,
channel after channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from privfl.core import ConfigError, DataCorrupt, DataMissing, Dataset
from privfl.data import cifar10_features, files, scale
from privfl.data.split import Split

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FOLDER = "cifar-10-batches-bin"
_RECORD = 1 + 3 * 32 * 32
_BATCHES = 5
_Records: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Cifar10:
    """Colour pictures of 10 classes, 32x32: 10,000 to test, and 10,000 to train for each training
    batch that is there.

    Reads whichever of the five ``data_batch_*.bin`` lie in the folder, in their order, and says how
    many in ``Split.about``. Features [n, 3, 32, 32] are pixels / 255, less the channel means
    (0.4914, 0.4822, 0.4465), by the standard deviations (0.2470, 0.2435, 0.2616) of the 50,000
    official training images.

    ``features`` adds the attribute ``feature`` for semantic backdoors (`attacks.Semantic`):
    ``positions`` has the cars of Bagdasaryan et al. (2020), 30 green ones, 21 with racing stripes,
    12 before a striped wall, by their positions in the official training set; those that they
    measure with move to the end of the test set. It needs all five batches in the official order,
    and checks that a car is at every position (hashes of the pictures are not shipped: no official
    copy was at hand to make them from). ``colour`` is a stand-in for any part of the pictures in
    any order: cars that are green in the middle by colour, in the two batches of one development
    copy 14 to train and 9 to test with, about 4 of 5 of them green by eye.

    Raises:
        ConfigError: an unknown choice.
        DataMissing: the test batch or all training batches are not on this machine; or, for
            positions, one of the five.
        DataCorrupt: a batch is truncated, or holds a label over 9; or, for positions, the pictures
            are not in the official order.
    """

    features: str = "none"

    def __post_init__(self) -> None:
        known = ("none", "positions", "colour")
        if self.features not in known:
            raise ConfigError(
                f"data set 'cifar10': features is one of {', '.join(known)}, and is"
                f" '{self.features}'."
            )

    def __call__(self, folder: Path | None = None) -> Split:
        """Load it from a data folder, or from the usual one."""
        base = folder or files.data_folder()
        found = [
            files.locate(base / _FOLDER / f"data_batch_{i}.bin") for i in range(1, _BATCHES + 1)
        ]
        batches = [path for path in found if path is not None] or [
            files.find("cifar10", f"{_FOLDER}/data_batch_1.bin", folder)
        ]
        records = _whole(batches)
        held_out = _whole([files.find("cifar10", f"{_FOLDER}/test_batch.bin", folder)])
        train, test = self._marked(records, held_out)
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

    def _marked(self, train: _Records, test: _Records) -> tuple[Dataset, Dataset]:
        """Training and test set, with the features that are asked for."""
        if self.features == "none":
            return _samples(train), _samples(test)
        if self.features == "colour":
            two = cifar10_features.FEATURES[:2]
            first, second = (
                cifar10_features.by_colour(part[:, 0], part[:, 1:].reshape(-1, 3, 32, 32))
                for part in (train, test)
            )
            return _samples(train, first, two), _samples(test, second, two)
        if len(train) < cifar10_features.OFFICIAL:
            raise DataMissing(
                f"data set 'cifar10': features 'positions' count in the official {_BATCHES}"
                f" batches, and {len(train):,} pictures are here: run 'privfl data fetch cifar10',"
                " or set features to 'colour', a stand-in."
            )
        found = cifar10_features.by_position(train[:, 0])
        if found is None:
            raise DataCorrupt(
                "data set 'cifar10': features 'positions' count in the official order, and these"
                " pictures are in another one: fetch the official files, or set features to"
                " 'colour', a stand-in."
            )
        which, moved = found
        names = cifar10_features.FEATURES
        after = np.concatenate([np.zeros(len(test), dtype=np.int64), which[moved]])
        asked = np.concatenate([test, train[moved]])
        return _samples(train[~moved], which[~moved], names), _samples(asked, after, names)


def _samples(
    records: _Records,
    which: npt.NDArray[np.int64] | None = None,
    names: tuple[str, ...] = (),
) -> Dataset:
    x = scale.images(records[:, 1:].reshape(-1, 3, 32, 32), MEAN, STD)
    y = torch.from_numpy(records[:, 0].astype(np.int64))
    attributes = {} if which is None else {"feature": torch.from_numpy(which)}
    groups = {} if which is None else {"feature": names}
    return Dataset(x, y, 10, attributes, groups, scale.span(MEAN, STD))


def _whole(batches: list[Path]) -> _Records:
    records: _Records = np.concatenate([_records(path) for path in batches])
    return records


def _records(path: Path) -> _Records:
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
