"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): clothes in MNIST's format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from privfl.core import Dataset
from privfl.data import idx, scale
from privfl.data.split import Split

MEAN, STD = (0.2860,), (0.3530,)
CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


@dataclass(frozen=True, slots=True)
class FashionMnist:
    """60,000 + 10,000 pictures of clothes in 10 classes, 28x28 grey.

    Features [n, 1, 28, 28] are pixels / 255, less the training mean 0.2860, by its standard
    deviation 0.3530.

    Raises:
        DataMissing: the files are not on this machine.
        DataCorrupt: a file is truncated, or not what its name says.
    """

    def __call__(self, folder: Path | None = None) -> Split:
        """Load it from a data folder, or from the usual one."""
        train, test = _part("train", folder), _part("t10k", folder)
        return Split(
            name="fashion_mnist",
            train=train,
            test=test,
            kind="image",
            shape=(1, 28, 28),
            classes=10,
            class_names=CLASSES,
            mean=MEAN,
            std=STD,
            about=f"{train.n:,} + {test.n:,} pictures of clothes, 28x28 grey.",
        )


def _part(part: str, folder: Path | None) -> Dataset:
    images, labels = (
        f"fashion-mnist/{part}-images-idx3-ubyte",
        f"fashion-mnist/{part}-labels-idx1-ubyte",
    )
    pixels, y = idx.load_images("fashion_mnist", images, labels, folder, classes=10)
    x = scale.images(pixels[:, None], MEAN, STD)
    return Dataset(x, torch.from_numpy(y), 10, span=scale.span(MEAN, STD))
