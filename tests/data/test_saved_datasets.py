"""Data sets that Hugging Face's datasets saved to disk, by the real library where it is there."""

import sys

import numpy as np
import pytest
import torch

from privfl import Federation
from privfl.core import ConfigError, DataCorrupt, DataMissing
from privfl.data import load


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of two parts: images, numbers with gaps, wards, and a class label."""
    datasets = pytest.importorskip("datasets")
    pixels = np.random.default_rng(0).integers(256, size=(40, 4, 5, 3), dtype=np.uint8)
    columns = {
        "scan": list(pixels),
        "age": [None if i % 7 == 3 else float(i) for i in range(40)],
        "code": [[i / 40, 1.0] for i in range(40)],
        "ward": [f"St. {'ABCD'[i % 4]}" for i in range(40)],
        "sick": [i % 2 for i in range(40)],
    }
    features = datasets.Features(
        {
            "scan": datasets.Image(),
            "age": datasets.Value("float32"),
            "code": datasets.Sequence(datasets.Value("float32")),
            "ward": datasets.Value("string"),
            "sick": datasets.ClassLabel(names=["no", "yes"]),
        }
    )
    made = datasets.Dataset.from_dict(columns, features=features)
    folder = tmp_path_factory.mktemp("hub") / "wards"
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(folder)
    return folder, pixels


def own(folder, **options):
    paths = {"path": f"{folder / 'train'}", "test": f"{folder / 'test'}"}
    return {**paths, "target": "sick", "client_column": "ward", **options}


def test_a_saved_data_set_is_a_table_with_its_class_names(saved):
    split = load("huggingface", **own(saved[0], drop=["scan"]))
    assert split.class_names == ("no", "yes")
    assert list(split.by_client()) == ["St. A", "St. B", "St. C", "St. D"]
    assert split.train.n == split.test.n == 40
    ages = split.train.x[:, 0]
    assert torch.equal(ages == 0, torch.arange(40) % 7 == 3), "a missing one is the mean"
    assert torch.allclose(split.train.x[:, 1], torch.arange(40) / 40)


def test_images_are_pixels_from_0_to_1_with_channels_first(saved):
    folder, pixels = saved
    split = load("huggingface", **own(folder, features=["scan"]))
    assert split.shape == (3, 4, 5)
    want = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    assert torch.allclose(split.train.x, want)


def test_a_config_names_a_saved_data_set(saved):
    data = {"name": "huggingface", **own(saved[0], drop=["scan"])}
    run = Federation.from_config({"data": data, "rounds": 1, "executor": "sequential"}).run()
    assert len(run.history) == 1
    assert run.summary["clients"] == 4


def test_what_is_no_part_of_a_saved_data_set_is_refused(saved, tmp_path):
    folder, _ = saved
    with pytest.raises(ConfigError, match=r"holds the parts train, test: name one in path"):
        load("huggingface", **{**own(folder), "path": str(folder)})
    with pytest.raises(DataMissing, match="nothing is downloaded"):
        load("huggingface", path="mnist", target="label")
    with pytest.raises(DataCorrupt, match="holds no data set of datasets"):
        load("huggingface", path=str(tmp_path), target="label")


def test_without_datasets_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"datasets is not installed: pip .*\[datasets\]"):
        load("huggingface", path="wards/train", target="sick")
