"""What a data set is once it is loaded: training data, test data, and the facts of the task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from privfl.core import ConfigError, Dataset

Kind: TypeAlias = Literal["image", "tabular", "text"]


@dataclass(frozen=True, slots=True)
class Split:
    """Training and test samples of one task, and what a model, an attack or a report must know
    about it.

    ``shape`` is one sample's, without the batch: (1, 28, 28), (108,), (80,). ``mean`` and ``std``
    undo the scaling: one number a channel (images, back to pixels in [0, 1]) or a feature (tables,
    back to the file's units); empty for text. ``natural`` names the attribute whose values are
    natural clients, where there is one. ``about`` is a sentence for people on what was read,
    ``fitted`` what was taken from the training samples for want of something public (None: what a
    data set of its kind takes), ``untold`` what a loader that is not privfl's may have taken.

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
    fitted: tuple[str, ...] | None = None
    untold: str = ""

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

    def by_client(self) -> Mapping[str, Dataset]:
        """The training samples of each natural client, by its name; each is read when it is asked
        for.

        Raises:
            ConfigError: there are no natural clients.
        """
        if self.natural is None:
            raise ConfigError(
                f"data set '{self.name}' does not say whose a sample is: name a client_column, or"
                " deal it out by a partition."
            )
        owners = self.train.attributes[self.natural]
        names, known = self.train.groups.get(self.natural, ()), owners
        if not names:
            values, index = np.unique(owners.numpy(), return_inverse=True)
            names, known = tuple(map(str, values.tolist())), torch.from_numpy(index)
        sizes = torch.bincount(known, minlength=len(names)).tolist()
        places = torch.split(known.argsort(stable=True), sizes)
        return ByClient(self.train, dict(zip(names, places, strict=True)), self.fitted)


@dataclass(frozen=True, slots=True, eq=False)
class ByClient(Mapping[str, Dataset]):
    """Clients' samples by name, each taken when it is asked for; clients without any are none.
    ``fitted`` is what their split took from them (`Split`).

    >>> samples = Dataset(torch.zeros(3, 1), torch.tensor([0, 1, 0]), classes=2)
    >>> ByClient(samples, {"a": torch.tensor([0, 2])})["a"].n
    2
    """

    samples: Dataset
    places: Mapping[str, Tensor]
    fitted: tuple[str, ...] | None = None

    def __getitem__(self, name: str) -> Dataset:
        return self.samples.take(self.places[name])

    def __iter__(self) -> Iterator[str]:
        return (name for name, places in self.places.items() if len(places))

    def __len__(self) -> int:
        return sum(1 for _ in self)
