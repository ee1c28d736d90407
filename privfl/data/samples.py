"""Samples as other libraries hold them: tuples of arrays, torch data sets and loaders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

from privfl.core import ConfigError, DataCorrupt, Dataset
from privfl.data.split import Kind, Split
from privfl.data.spool import Spool

Samples: TypeAlias = Dataset | tuple[Any, Any] | TorchDataset[Any] | DataLoader[Any]
"""One client's samples: privfl's own, features and labels as arrays, or anything that torch's
loaders read.
"""
Batch: TypeAlias = tuple[npt.NDArray[Any], npt.NDArray[np.int64]]
_AT_ONCE = 256
UNTOLD = (
    "what was taken from clients' samples before they came here, as means, spreads, categories and"
    " how many classes there are"
)
"""What nobody knows of samples that are handed over in Python."""


def batches(samples: Any, whose: str) -> Iterator[Batch]:
    """Features (float32, or int64 tokens) and labels (int64) of some samples at a time.

    Raises:
        ConfigError: these are no samples.
        DataCorrupt: features that are neither floats nor tokens, labels that are no classes.
    """
    if isinstance(samples, Dataset):
        yield _batch((samples.x, samples.y), whose)
    elif isinstance(samples, DataLoader):
        for pair in samples:
            yield _batch(pair, whose)
    elif isinstance(samples, TorchDataset):
        yield from _read(samples, whose)
    else:
        yield _batch(samples, whose)


def _read(samples: TorchDataset[Any], whose: str) -> Iterator[Batch]:
    held: list[Any] = []
    for one in _each(samples):
        held.append(one)
        if len(held) == _AT_ONCE:
            yield _stacked(held, whose)
            held = []
    if held:
        yield _stacked(held, whose)


def _each(samples: Any) -> Iterator[Any]:
    """Every sample of a torch data set, in order."""
    if isinstance(samples, IterableDataset):
        yield from samples
    else:
        yield from (samples[i] for i in range(len(samples)))


def _stacked(held: list[Any], whose: str) -> Batch:
    named = next((one for one in held if isinstance(one, Mapping)), None)
    if named is not None:  # zip would pair the names
        raise ConfigError(
            f"{whose}: a sample is a pair of features and label, and here it is a mapping of"
            f" {', '.join(map(repr, named))}: choose two of them."
        )
    try:
        x, y = (np.stack([_array(one) for one in side]) for side in zip(*held, strict=True))
    except (TypeError, ValueError):
        raise ConfigError(
            f"{whose}: a sample is a pair of features and label, all features of one shape."
        ) from None
    return _batch((x, y), whose)


def _array(value: Any) -> npt.NDArray[Any]:
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    return np.asarray(value)


def _batch(pair: Any, whose: str) -> Batch:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ConfigError(
            f"{whose}: samples are a pair (features, labels), a torch Dataset or DataLoader of such"
            f" pairs, or a privfl.core.Dataset, and these are a {type(pair).__module__}."
            f"{type(pair).__qualname__}."
        )
    x, y = _array(pair[0]), _array(pair[1])
    if x.dtype.kind == "f":
        x = x.astype(np.float32, copy=False)
    elif x.dtype == np.uint8 or x.dtype.kind not in "iu":
        raise DataCorrupt(
            f"{whose}: features of type {x.dtype} are neither floats nor tokens: scale pixels to"
            " floats (divide by 255)."
        )
    else:
        x = x.astype(np.int64, copy=False)
    whole = y.dtype.kind in "iub" or (y.dtype.kind == "f" and bool((y == np.floor(y)).all()))
    if not whole or (y.size and y.min() < 0):
        raise DataCorrupt(
            f"{whose}: labels are classes from 0 on, and these are of type {y.dtype}."
        )
    if len(x) != len(y):
        raise DataCorrupt(f"{whose}: {len(x)} samples, but {len(y)} labels.")
    return x, y.astype(np.int64)


def spooled(held: Mapping[Any, Any]) -> tuple[Dataset, dict[Any, Tensor]]:
    """All clients' samples as one data set on disk (`Spool`), and by client the positions [n_i] of
    its own. Each client's samples are read once, some at a time.

    >>> both, places = spooled({0: (np.zeros((2, 3)), [0, 1]), 1: (np.ones((1, 3)), [1])})
    >>> both.x.shape, both.classes, places[1]
    (torch.Size([3, 3]), 2, tensor([2]))
    """
    x, y, places, most = Spool(), Spool(), dict[Any, Tensor](), 0
    for client, samples in held.items():
        start = x.n
        for features, labels in batches(samples, f"client {client!r}"):
            x.add(features)
            y.add(labels)
            most = max(most, int(labels.max()) if labels.size else 0)
        places[client] = torch.arange(start, x.n)
    return Dataset(x.tensor(), y.tensor(), most + 1), places


def dataset_of(samples: Any, whose: str = "test") -> Dataset:
    """One side's samples as a data set; privfl's own as they are.

    Raises:
        ConfigError: these are no samples.
        DataCorrupt: features that are neither floats nor tokens, labels that are no classes.

    >>> dataset_of((np.zeros((2, 3), np.float32), [0, 1])).classes
    2
    """
    if isinstance(samples, Dataset):
        return samples
    return spooled({whose: samples})[0]


def split_of(made: Any, name: str) -> Split:
    """What somebody's own function returned, as a split: a `Split`, a pair of training and test
    samples, or a pair of training samples by client and test samples.

    Raises:
        ConfigError: it is something else.

    >>> clients = {"ward 1": (np.zeros((4, 3)), [0, 1, 0, 1]), "ward 2": (np.ones((2, 3)), [1, 1])}
    >>> split_of((clients, clients["ward 1"]), "wards").train.groups
    {'client': ('ward 1', 'ward 2')}
    """
    if isinstance(made, Split):
        return made
    if not isinstance(made, tuple | list) or len(made) != 2:
        raise ConfigError(
            f"'{name}' gave a {type(made).__name__}: give a privfl.data.Split, a pair (train,"
            " test), or a pair (train by client, test)."
        )
    train, test = made
    natural = None
    if isinstance(train, Mapping):
        whole, places = spooled(train)
        owners = torch.empty(whole.n, dtype=torch.int64)
        for number, index in enumerate(places.values()):
            owners[index] = number
        natural, names = "client", tuple(map(str, places))
        if len(set(names)) < len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise ConfigError(
                f"'{name}' has several clients that are called '{twice}' as text: give each a name"
                " of its own."
            )
        side = replace(whole, attributes={natural: owners}, groups={natural: names})
    else:
        side = dataset_of(train, "train")
    other = dataset_of(test)
    classes = max(side.classes, other.classes)
    train_side = replace(side, classes=classes)
    shape = tuple(train_side.x.shape[1:])
    tokens = not train_side.x.is_floating_point()
    kind: Kind = "text" if tokens else "image" if len(shape) > 1 else "tabular"
    return Split(
        name=name,
        train=train_side,
        test=replace(other, classes=classes),
        kind=kind,
        shape=shape,
        classes=classes,
        natural=natural,
        about=f"{train_side.n + other.n:,} samples of '{name}'.",
        fitted=(),
        untold=UNTOLD,
    )
