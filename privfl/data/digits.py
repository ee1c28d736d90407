"""Optical digits (Alpaydin, Kaynak 1998; UCI, CC BY 4.0), those of scikit-learn's ``load_digits``:
the embedded default, nothing to download.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from privfl.core import Dataset
from privfl.data import scale
from privfl.data.split import Split

MEAN, STD = (0.3053,), (0.3761,)
_TEST_EVERY = 5
_SCANS = Path(__file__).with_name("digits.npz")


@dataclass(frozen=True, slots=True)
class Digits:
    """1,797 scans of handwritten digits, 8x8 pixels of 0..16: 1,442 to train and 355 to test.

    Every fifth scan of each digit is a test scan, so the split never changes. Features [n, 1, 8, 8]
    are pixels / 16, less the mean 0.3053, by the standard deviation 0.3761 of all scans.

    >>> split = Digits()()
    >>> split.train.n, split.test.n, split.shape
    (1442, 355, (1, 8, 8))
    """

    def __call__(self, folder: Path | None = None) -> Split:
        """Load it; the folder is not looked at."""
        with np.load(_SCANS) as scans:
            pixels, labels = scans["images"][:, None], scans["target"].astype(np.int64)
        x, y = scale.images(pixels, MEAN, STD, top=16.0), torch.from_numpy(labels)
        samples = Dataset(x, y, classes=10, span=scale.span(MEAN, STD))
        seen_before = (y[:, None] == torch.arange(10)).cumsum(0).gather(1, y[:, None]).squeeze(
            1
        ) - 1  # how many of its digit
        held_out = seen_before % _TEST_EVERY == _TEST_EVERY - 1
        return Split(
            name="digits",
            train=samples.take((~held_out).nonzero().squeeze(1)),
            test=samples.take(held_out.nonzero().squeeze(1)),
            kind="image",
            shape=(1, 8, 8),
            classes=10,
            class_names=tuple("0123456789"),
            mean=MEAN,
            std=STD,
            about="1,797 scans of handwritten digits, 8x8, embedded.",
        )
