"""What a data set is once it is loaded: training data, test data, and the facts of the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from privfl.core import Dataset

Kind: TypeAlias = Literal["image", "tabular", "text"]


@dataclass(frozen=True, slots=True)
class Split:
    """Training and test samples of one task, and what a model, an attack or a report must know
    about it.

    ``shape`` is one sample's, without the batch: (1, 28, 28), (108,), (80,). ``mean`` and ``std``
    undo the scaling: one number a channel (images, back to pixels in [0, 1]) or a feature (tables,
    back to the file's units); empty for text. ``natural`` names the attribute whose values are
    natural clients, where there is one. ``about`` is a sentence for people on what was read.

    >>> samples = Dataset(torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]), classes=2)
    >>> split = Split(
    ...     "toy",
    ...     samples,
    ...     samples,
    ...     kind="image",
    ...     shape=(1, 4, 4),
    ...     classes=2,
    ...     mean=(0.5,),
    ...     std=(0.25,),
    ... )
    >>> split.original(samples.x).mean()
    tensor(0.5000)
    """

    name: str
    train: Dataset
    test: Dataset
    kind: Kind
    shape: tuple[int, ...]
    classes: int
    class_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    vocabulary: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    natural: str | None = None
    about: str = ""

    def original(self, x: Tensor) -> Tensor:
        """Samples [n, ...] in their original units: pixels in [0, 1], years, dollars. Text is as it
        was.
        """
        if not self.mean:
            return x
        per = (1, -1, *[1] * (len(self.shape) - 1))
        mean, std = (
            torch.tensor(value, dtype=x.dtype, device=x.device).view(per)
            for value in (self.mean, self.std)
        )
        return x * std + mean
