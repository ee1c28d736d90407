"""Adult, the census income table (Becker, Kohavi 1996; UCI)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from privfl.core import DataCorrupt, Dataset
from privfl.data import files, table
from privfl.data.split import Split

NUMERIC = ("age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week")
CATEGORICAL = (
    "workclass",
    "education",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "native_country",
)
COLUMNS = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education_num",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
    "native_country",
    "income",
)
CLASSES = ("<=50K", ">50K")


@dataclass(frozen=True, slots=True)
class Adult:
    """32,561 + 16,281 people of the 1994 census; the label is whether the income is over 50,000
    dollars a year (24 % are).

    Features [n, 108]: 6 numbers, standardised by the training rows and cut to 10 standard
    deviations, then 8 categories, one-hot. A missing field (``?``: work class, occupation, country)
    is a category of its own. All 8 categories are attributes too, ``sex`` and ``race`` among them,
    with their names in ``Dataset.groups``; they stay in the features.

    Raises:
        DataMissing: the files are not on this machine.
        DataCorrupt: a file is truncated, or not what its name says.
    """

    def __call__(self, folder: Path | None = None) -> Split:
        """Load it from a data folder, or from the usual one."""
        train, test = (
            table.read(files.find("adult", f"adult/adult.{part}", folder), COLUMNS)
            for part in ("data", "test")
        )
        made = table.features(train, test, NUMERIC, CATEGORICAL, missing_is_a_category=True)
        attributes = {name: table.attribute(train, test, name) for name in CATEGORICAL}
        groups = {name: names for name, (names, _, _) in attributes.items()}
        train_facts = {name: values for name, (_, values, _) in attributes.items()}
        test_facts = {name: values for name, (_, _, values) in attributes.items()}
        return Split(
            name="adult",
            train=Dataset(made.train, _labels(train), 2, train_facts, groups),
            test=Dataset(made.test, _labels(test), 2, test_facts, groups),
            kind="tabular",
            shape=(len(made.names),),
            classes=2,
            class_names=CLASSES,
            feature_names=made.names,
            mean=made.mean,
            std=made.std,
            about=f"{train.n:,} + {test.n:,} people of a census, {len(made.names)} features.",
        )


def _labels(rows: table.Table) -> Tensor:
    """The test file ends each label with a full stop."""
    y = table.codes(np.char.rstrip(rows.columns["income"], "."), CLASSES)
    if (y < 0).any():
        raise DataCorrupt(
            f"{rows.path}: an income that is neither <=50K nor >50K: delete it and fetch it again."
        )
    return torch.from_numpy(y)
