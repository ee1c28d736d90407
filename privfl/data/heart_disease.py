"""Heart Disease (Janosi, Steinbrunn, Pfisterer, Detrano 1988; UCI): four hospitals, four natural
clients.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from privfl.core import DataCorrupt, Dataset
from privfl.data import files, table
from privfl.data.split import Split

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
"""Cleveland Clinic; Hungarian Institute of Cardiology, Budapest; university hospitals of Zurich and
Basel; V.A. Long Beach.
"""
NUMERIC = ("age", "trestbps", "chol", "thalach", "oldpeak", "ca")
CATEGORICAL = ("sex", "cp", "fbs", "restecg", "exang", "slope", "thal")
COLUMNS = (
    "age",
    "sex",
    "cp",
    "trestbps",
    "chol",
    "fbs",
    "restecg",
    "thalach",
    "exang",
    "oldpeak",
    "slope",
    "ca",
    "thal",
    "num",
)
_NEVER_ZERO = ("trestbps", "chol")
_TEST_EVERY = 3


@dataclass(frozen=True, slots=True)
class HeartDisease:
    """920 patients of four hospitals (303, 294, 123, 200 rows); the label is any heart disease
    (``num`` > 0). Attribute ``hospital``.

    In each hospital's file every third row (the 3rd, 6th, ...) is a test row: 614 to train, 306 to
    test, and the files' order by age or outcome spreads over both. Features [n, 25]: 6 numbers,
    standardised by the training rows of all hospitals together, then 7 categories, one-hot. A
    missing number becomes the mean, a missing category a row of zeros; blood pressure 0 and
    cholesterol 0 stand for missing too (all of Switzerland's cholesterol). ``sex`` (female, male)
    is an attribute as well.

    Raises:
        DataMissing: the files are not on this machine.
        DataCorrupt: a file is truncated, or not what its name says.
    """

    def __call__(self, folder: Path | None = None) -> Split:
        """Load it from a data folder, or from the usual one."""
        wards = [
            table.read(
                files.find("heart_disease", f"heart-disease/processed.{name}.data", folder), COLUMNS
            )
            for name in HOSPITALS
        ]
        rows = _tidied(table.joined(wards))
        hospital = np.repeat(np.arange(len(wards)), [ward.n for ward in wards])
        held_out = np.concatenate(
            [np.arange(ward.n) % _TEST_EVERY == _TEST_EVERY - 1 for ward in wards]
        )
        sick, male = rows.numbers("num") > 0, rows.numbers("sex") > 0
        if np.isnan(rows.numbers("num")).any() or np.isnan(rows.numbers("sex")).any():
            raise DataCorrupt(
                f"{rows.path}: a patient without an outcome or a sex: delete the files and fetch"
                " them again."
            )
        made = table.features(
            rows.take(~held_out),
            rows.take(held_out),
            NUMERIC,
            CATEGORICAL,
            missing_is_a_category=False,
        )

        def part(x: torch.Tensor, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Dataset:
            facts = {
                "hospital": torch.from_numpy(hospital[chosen]),
                "sex": torch.from_numpy(male[chosen].astype(np.int64)),
            }
            groups = {"hospital": HOSPITALS, "sex": ("female", "male")}
            return Dataset(x, torch.from_numpy(sick[chosen].astype(np.int64)), 2, facts, groups)

        return Split(
            name="heart_disease",
            train=part(made.train, ~held_out),
            test=part(made.test, held_out),
            kind="tabular",
            shape=(len(made.names),),
            classes=2,
            class_names=("healthy", "sick"),
            feature_names=made.names,
            mean=made.mean,
            std=made.std,
            natural="hospital",
            about=f"{rows.n} patients of four hospitals, {len(made.names)} features.",
        )


def _tidied(rows: table.Table) -> table.Table:
    """The hospitals write 1 as ``1`` or ``1.0``, and some missing numbers as 0."""
    changed = {}
    for name in CATEGORICAL:
        plain = np.array([f"{value:g}" for value in rows.numbers(name)])
        changed[name] = np.where(plain == "nan", table.MISSING, plain)
    for name in _NEVER_ZERO:
        changed[name] = np.where(rows.numbers(name) == 0, table.MISSING, rows.columns[name])
    return rows.replaced(**changed)
