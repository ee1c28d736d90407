"""Real data: parsed from the original files, split among clients, fetched with checksums."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from privfl.core import ConfigError, unknown
from privfl.data.adult import Adult
from privfl.data.aligned import Holding, aligned, column_of, dealt_columns
from privfl.data.cifar10 import Cifar10
from privfl.data.digits import Digits
from privfl.data.fashion_mnist import FashionMnist
from privfl.data.fetch import Progress, fetch, present
from privfl.data.files import data_folder
from privfl.data.heart_disease import HeartDisease
from privfl.data.mnist import Mnist
from privfl.data.nsl_kdd import NslKdd
from privfl.data.origins import ORIGINS, Origin, Remote
from privfl.data.own import Csv, Npz, Parquet
from privfl.data.partition import IID, Dirichlet, Natural, Partitioner, Shards, label_counts
from privfl.data.samples import UNTOLD, Samples, dataset_of, split_of, spooled
from privfl.data.saved import FILES, HuggingFace
from privfl.data.seats import ATS, InstaHide
from privfl.data.shakespeare import Shakespeare
from privfl.data.split import ByClient, Split
from privfl.data.users import within_bounds

__all__ = [
    "ATS",
    "DATASETS",
    "FILES",
    "IID",
    "ORIGINS",
    "PARTITIONERS",
    "UNTOLD",
    "Adult",
    "ByClient",
    "Cifar10",
    "Csv",
    "Digits",
    "Dirichlet",
    "FashionMnist",
    "HeartDisease",
    "Holding",
    "HuggingFace",
    "InstaHide",
    "Mnist",
    "Natural",
    "Npz",
    "NslKdd",
    "Origin",
    "Parquet",
    "Partitioner",
    "Progress",
    "Remote",
    "Samples",
    "Shakespeare",
    "Shards",
    "Split",
    "aligned",
    "column_of",
    "data_folder",
    "dataset_of",
    "dealt_columns",
    "fetch",
    "label_counts",
    "load",
    "present",
    "split_of",
    "spooled",
    "within_bounds",
]

DATASETS: Mapping[str, Callable[..., Callable[..., Split]]] = {
    "adult": Adult,
    "cifar10": Cifar10,
    "digits": Digits,
    "fashion_mnist": FashionMnist,
    "heart_disease": HeartDisease,
    "mnist": Mnist,
    "nsl_kdd": NslKdd,
    "shakespeare": Shakespeare,
}
PARTITIONERS: Mapping[str, Callable[..., Partitioner]] = {
    "dirichlet": Dirichlet,
    "iid": IID,
    "natural": Natural,
    "shards": Shards,
}


def load(name: str, folder: Path | None = None, **options: Any) -> Split:
    """A data set by name, with its options (the fields of its class), from a folder or from
    `data_folder`; `FILES` are somebody's own, and have a ``path``.

    Raises:
        ConfigError: an unknown data set or option.
        DataMissing: it is not on this machine.
        DataCorrupt: a file of it is truncated, or not what its name says.

    >>> load("digits").train.n
    1442
    """
    made: Mapping[str, Callable[..., Callable[..., Split]]] = {**DATASETS, **FILES}
    if name not in made:
        raise ConfigError(unknown("data set", name, made))
    description = made[name]
    fields = dataclasses.fields(description)  # type: ignore[arg-type]
    known = {field.name for field in fields}
    for option in options:
        if option not in known:
            raise ConfigError(
                f"data set '{name}': {unknown('option', option, known)}"
                if known
                else f"data set '{name}': unknown option '{option}'; it has none."
            )
    for field in fields:
        needed = field.default is MISSING and field.default_factory is MISSING
        if needed and field.name not in options:
            raise ConfigError(f"data set '{name}' needs the option '{field.name}'.")
    return description(**options)(folder)
