"""The part of the training data on which runs are compared, so that nobody chooses on the test
set.
"""

from __future__ import annotations

import dataclasses

import torch

from privfl.core import ConfigError, Dataset, Seeds
from privfl.data import Split


def set_aside(split: Split, share: float, seeds: Seeds) -> tuple[Split, Dataset | None]:
    """A data set without the validation samples, and these: drawn by the run's seed from all
    training data before they are dealt out. None where the share is 0.

    Raises:
        ConfigError: the share is less than one sample, or leaves none to train on.
    """
    if share == 0:
        return split, None
    n = split.train.n
    count = round(share * n)
    if not 0 < count < n:
        raise ConfigError(
            f"data.validation is {share:g}, which is {count} of {n} training samples: leave some of"
            " both kinds."
        )
    shuffled = torch.randperm(n, generator=seeds.generator("validation"))
    kept = split.train.take(shuffled[count:].sort().values)
    return dataclasses.replace(split, train=kept), split.train.take(shuffled[:count])
