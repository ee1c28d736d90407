"""Data sets that Hugging Face's datasets saved to disk, by the real library where it is there."""

import io
import json
import shutil
import socket
import sys

import numpy as np
import pytest
import torch

from privfl import Federation
from privfl.core import ConfigError, DataCorrupt, DataMissing
from privfl.data import load
from privfl.data.samples import dataset_of


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


ROWS = 12


@pytest.fixture
def made(tmp_path):
    """Saves columns as a part, a class label `sick` among them, and says where."""
    datasets = pytest.importorskip("datasets")

    def save(columns, features=None, name="part", before=lambda it: it):
        sick = {"sick": [i % 2 for i in range(ROWS)]}
        label = {"sick": datasets.ClassLabel(names=["no", "yes"])}
        known = datasets.Features({**features, **label}) if features else None
        whole = before(datasets.Dataset.from_dict({**columns, **sick}, features=known))
        whole.save_to_disk(tmp_path / name)
        return tmp_path / name

    return save


def png(mode="L", colours=20, cut=None):
    from PIL import Image

    picture = Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5) % colours)
    if mode == "P":
        picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    held = io.BytesIO()
    picture.convert(mode).save(held, "TIFF" if mode == "F" else "PNG")
    return held.getvalue()[:cut]


def rewritten(folder, column, values):
    """The arrow file with another column in it, as no `save_to_disk` would write it."""
    pa = pytest.importorskip("pyarrow")
    (file,) = folder.glob("*.arrow")
    table = pa.ipc.open_stream(file.read_bytes()).read_all()
    at = table.schema.get_field_index(column)
    other = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.types[at]))
    with pa.OSFile(str(file), "wb") as out, pa.ipc.new_stream(out, other.schema) as writer:
        writer.write_table(other)


@pytest.mark.parametrize("where", ["hf://datasets/a/b/scan.png", "http://example.invalid/scan.png"])
def test_an_image_that_is_an_address_is_refused_and_the_network_left_alone(
    made, where, monkeypatch
):
    datasets = pytest.importorskip("datasets")
    folder = made({"scan": [{"bytes": png(), "path": None}] * ROWS}, {"scan": datasets.Image()})
    rewritten(folder, "scan", [{"bytes": None, "path": where}] * ROWS)
    asked = []

    def lookup(*where, **_):
        asked.append(where)
        raise socket.gaierror("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(DataCorrupt, match=r"lies elsewhere .* and nothing is fetched"):
        load("huggingface", path=str(folder), target="sick")
    assert not asked


def test_an_image_is_read_from_no_other_file_of_the_machine(made, tmp_path):
    datasets = pytest.importorskip("datasets")
    (tmp_path / "mine.png").write_bytes(png())
    folder = made({"scan": [{"bytes": png(), "path": None}] * ROWS}, {"scan": datasets.Image()})
    elsewhere = {"bytes": None, "path": str(tmp_path / "mine.png")}
    rewritten(folder, "scan", [elsewhere] * ROWS)
    with pytest.raises(DataCorrupt, match="lies elsewhere"):
        load("huggingface", path=str(folder), target="sick")


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (lambda: None, "holds an image that is missing"),
        (lambda: b"no image", "cannot be read"),
        (lambda: png(cut=50), "cannot be read"),
        (lambda: png("F"), "32 bits a pixel"),
    ],
    ids=["missing", "garbage", "cut", "floats"],
)
def test_an_image_that_is_none_is_one_sentence(made, image, why):
    datasets = pytest.importorskip("datasets")
    held = image()
    first = None if held is None else {"bytes": held, "path": None}
    scans = [first] + [{"bytes": png(), "path": None}] * (ROWS - 1)
    folder = made(
        {"scan": scans, "age": [1.0] * ROWS},
        {"scan": datasets.Image(), "age": datasets.Value("float32")},
    )
    with pytest.raises(DataCorrupt, match=why):
        load("huggingface", path=str(folder), target="sick")
    assert load("huggingface", path=str(folder), target="sick", drop=["scan"]).train.n == 10


def test_an_image_of_few_colours_has_the_colours_of_its_palette(made):
    datasets = pytest.importorskip("datasets")
    folder = made(
        {"scan": [{"bytes": png("P", 3), "path": None}] * ROWS}, {"scan": datasets.Image()}
    )
    split = load("huggingface", path=str(folder), target="sick")
    assert split.shape == (3, 4, 5)
    assert torch.equal(split.train.x[0].sum(dim=0), torch.ones(4, 5)), "red, green or blue"


@pytest.mark.parametrize(
    "odd",
    [
        [[1.0] * (1 + i % 2) for i in range(ROWS)],
        [{"low": 1.0, "high": 2.0}] * ROWS,
        [["a", "b"]] * ROWS,
        [[]] * ROWS,
        [None, *[[1.0]] * (ROWS - 1)],
    ],
    ids=["ragged", "nested", "text", "empty", "missing"],
)
def test_a_column_that_cannot_be_used_can_be_left_out_as_the_error_says(made, odd):
    folder = made({"odd": odd, "age": [float(i) for i in range(ROWS)]})
    with pytest.raises(DataCorrupt, match=r"'odd'.*leave (it|the column) out with drop"):
        load("huggingface", path=str(folder), target="sick")
    assert load("huggingface", path=str(folder), target="sick", drop=["odd"]).shape == (1,)


def test_a_label_beyond_its_classes_is_refused_and_minus_1_is_missing(made):
    folder = made({"age": [1.0] * ROWS})
    facts = json.loads((folder / "dataset_info.json").read_text())
    facts["features"]["sick"] = {"names": ["no", "yes"], "_type": "ClassLabel"}
    (folder / "dataset_info.json").write_text(json.dumps(facts))
    for label, why in ((7, "the label 7, and its 2 classes go from 0 to 1"), (-1, "is missing")):
        rewritten(folder, "sick", [label] + [0, 1] * 5 + [0])
        with pytest.raises(DataCorrupt, match=why):
            load("huggingface", path=str(folder), target="sick")


@pytest.mark.parametrize("kind", ["torch", "numpy", "arrow", "pandas"])
def test_the_format_that_was_saved_with_it_changes_nothing(made, kind):
    number = pytest.importorskip("datasets").Value("float32")
    features = {"age": number, "dose": number}
    columns = {name: [float(i) for i in range(ROWS)] for name in features}
    chosen = ["age", "sick"] if kind == "numpy" else None
    folder = made(columns, features, before=lambda it: it.with_format(kind, columns=chosen))
    split = load("huggingface", path=str(folder), target="sick")
    assert split.feature_names == ("age", "dose")
    assert split.class_names == ("no", "yes")


@pytest.mark.parametrize("said", [None, [1], {"_data_files": []}, {"_data_files": None}])
def test_a_folder_whose_description_is_no_description_is_one_sentence(made, said):
    folder = made({"age": [1.0] * ROWS})
    (folder / "state.json").write_text(json.dumps(said))
    with pytest.raises(DataCorrupt, match=r"holds no data set of datasets that can be read"):
        load("huggingface", path=str(folder), target="sick")


def test_no_rows_and_parts_that_are_none_or_one_are_told_apart(made, tmp_path):
    datasets = pytest.importorskip("datasets")
    empty = made({"age": [1.0] * ROWS}, name="empty", before=lambda it: it.select([]))
    with pytest.raises(DataCorrupt, match="or no rows"):
        load("huggingface", path=str(empty), target="sick")
    datasets.DatasetDict().save_to_disk(tmp_path / "none")
    with pytest.raises(ConfigError, match="the parts none: it is empty"):
        load("huggingface", path=str(tmp_path / "none"), target="sick")
    whole = datasets.load_from_disk(made({"age": [1.0] * ROWS}))
    datasets.DatasetDict(train=whole).save_to_disk(tmp_path / "one")
    with pytest.raises(ConfigError, match=r"the parts train: name it, path: \S+one/train\.$"):
        load("huggingface", path=str(tmp_path / "one"), target="sick")


def test_a_script_in_the_folder_never_runs(made, tmp_path):
    folder = made({"age": [float(i) for i in range(ROWS)]})
    for name in (folder.name, "dataset", "__init__"):
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    assert load("huggingface", path=str(folder), target="sick").train.n == 10
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(folder / "dataset.py", alone / "alone.py")
    with pytest.raises(DataCorrupt, match="holds no data set"):
        load("huggingface", path=str(alone), target="sick")
    assert not (tmp_path / "ran").exists()


def test_an_offset_that_points_out_of_the_file_is_refused_before_it_is_followed(made):
    wards = [f"St. {'AB'[i % 2]}" for i in range(ROWS)]
    folder = made({"age": [float(i) for i in range(ROWS)], "ward": wards})
    (file,) = folder.glob("*.arrow")
    offsets = np.arange(0, 5 * (ROWS + 1), 5, dtype=np.int32)
    wrong = offsets.copy()
    wrong[3] += 2**30
    whole = file.read_bytes()
    assert whole.count(offsets.tobytes()) == 1
    file.write_bytes(whole.replace(offsets.tobytes(), wrong.tobytes()))
    with pytest.raises(DataCorrupt, match="holds no data set of datasets that can be read"):
        load("huggingface", path=str(folder), target="sick", client_column="ward")


def test_a_changed_data_set_is_another_run(made, tmp_path):
    config = {"name": "huggingface", "path": str(tmp_path / "part"), "target": "sick"}
    config = {"data": {**config, "clients": 2}, "rounds": 1, "executor": "sequential"}
    ages = [float(i) for i in range(ROWS)]
    made({"age": ages})
    Federation.from_config(config).run(out=tmp_path / "run")
    made({"age": [0.5, *ages[1:]]})
    with pytest.raises(ConfigError, match=r"is another one.*data\.x is float32"):
        Federation.from_config(config).run(tmp_path / "run", resume=True)


def test_a_sample_that_is_a_mapping_is_refused_in_python(made):
    datasets = pytest.importorskip("datasets")
    whole = datasets.load_from_disk(made({"age": [1.0] * ROWS}))
    with pytest.raises(ConfigError, match=r"these are a datasets\.arrow_dataset\.Dataset"):
        dataset_of(whole)
    with pytest.raises(ConfigError, match=r"a mapping of 'age', 'sick': choose two"):
        dataset_of(whole.to_iterable_dataset())
