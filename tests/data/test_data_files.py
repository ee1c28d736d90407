"""Absent, truncated and corrupt files are refused by name; gzipped and plain ones read the same."""

import gzip
import struct

import numpy as np
import pytest
import torch

from privfl.core import DataCorrupt, DataMissing
from privfl.data import DATASETS, ORIGINS, data_folder, load, present

ROW = (
    "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male,"
    " 2174, 0, 40, United-States, <=50K\n"
)
CONNECTION = "0,tcp,http,SF," + ",".join(["0"] * 37) + ",{attack},20\n"
PATIENT = "63.0,1.0,1.0,145.0,233.0,1.0,2.0,150.0,0.0,2.3,3.0,0.0,6.0,{num}\n"


def idx(array):
    kind = {np.dtype("u1"): 8, np.dtype(">i4"): 0x0C}[array.dtype]
    return (
        bytes([0, 0, kind, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


def write(path, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


@pytest.fixture
def pictures(tmp_path):
    """A folder with a tiny MNIST and a tiny Fashion-MNIST: 6 + 3 images, the training files of
    MNIST gzipped.
    """
    rng = np.random.default_rng(0)
    for part, n in (("train", 6), ("t10k", 3)):
        images, labels = (
            rng.integers(0, 256, (n, 28, 28), dtype=np.uint8),
            np.arange(n, dtype=np.uint8),
        )
        for folder in ("mnist", "fashion-mnist"):
            end, pack = (
                (".gz", gzip.compress) if (part, folder) == ("train", "mnist") else ("", bytes)
            )
            write(tmp_path / folder / f"{part}-images-idx3-ubyte{end}", pack(idx(images)))
            write(tmp_path / folder / f"{part}-labels-idx1-ubyte{end}", pack(idx(labels)))
    return tmp_path


def test_gzipped_and_plain_files_read_the_same(pictures):
    gzipped, plain = load("mnist", pictures), load("fashion_mnist", pictures)
    torch.testing.assert_close(gzipped.original(gzipped.train.x), plain.original(plain.train.x))
    assert gzipped.train.y.tolist() == [0, 1, 2, 3, 4, 5]


def test_mnist_without_its_writers_has_no_attributes(pictures):
    split = load("mnist", pictures)
    assert split.natural is None
    assert not split.train.attributes


def test_writers_that_do_not_match_the_digits_are_refused(pictures):
    rows = np.zeros((6, 8), dtype=">i4")
    rows[:, 0] = [0, 1, 2, 3, 4, 4]
    write(pictures / "qmnist-writers" / "qmnist-train-labels-idx2-int", idx(rows))
    with pytest.raises(DataCorrupt, match="qmnist-train-labels-idx2-int does not describe"):
        load("mnist", pictures)
    rows[:, 0], rows[:, 1], rows[:, 2] = range(6), [0, 4, 0, 4, 0, 4], [7, 9, 7, 9, 7, 9]
    write(pictures / "qmnist-writers" / "qmnist-train-labels-idx2-int", idx(rows))
    assert load("mnist", pictures).train.attributes["writer"].tolist() == [7, 9, 7, 9, 7, 9]


@pytest.mark.parametrize("keep", [0, 3, 7, 500, -1])
def test_a_truncated_idx_file_is_refused_by_name(pictures, keep):
    path = pictures / "fashion-mnist" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataCorrupt, match="t10k-images-idx3-ubyte"):
        load("fashion_mnist", pictures)


@pytest.mark.parametrize("harm", ["cut", "flip", "not gzip"])
def test_a_damaged_gzip_file_is_refused_by_name(pictures, harm):
    path = pictures / "mnist" / "train-images-idx3-ubyte.gz"
    body = bytearray(path.read_bytes())
    if harm == "cut":
        body = body[: len(body) // 2]
    elif harm == "flip":
        body[len(body) // 2] ^= 0x10
    else:
        body = bytearray(b"<html>404</html>")
    path.write_bytes(body)
    with pytest.raises(DataCorrupt, match=r"train-images-idx3-ubyte\.gz"):
        load("mnist", pictures)


@pytest.mark.parametrize(
    ("file", "array", "words"),
    [
        (
            "t10k-labels-idx1-ubyte",
            np.arange(4, dtype=np.uint8),
            "one label for each of the 3 images",
        ),
        ("t10k-labels-idx1-ubyte", np.array([0, 1, 10], dtype=np.uint8), "the label 10"),
        ("t10k-images-idx3-ubyte", np.zeros((3, 784), dtype=np.uint8), "does not hold images"),
        ("t10k-images-idx3-ubyte", np.zeros((3, 28, 28), dtype=">i4"), "does not hold images"),
    ],
)
def test_idx_files_that_do_not_fit_the_data_set_are_refused(pictures, file, array, words):
    write(pictures / "fashion-mnist" / file, idx(array))
    with pytest.raises(DataCorrupt, match=words):
        load("fashion_mnist", pictures)


def test_cifar_reads_any_training_batches_and_refuses_broken_ones(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    record = bytes([3]) + bytes(3072)
    write(folder / "test_batch.bin", record * 2)
    with pytest.raises(DataMissing, match="data_batch_1"):
        load("cifar10", tmp_path)
    write(folder / "data_batch_2.bin", record * 3)
    write(folder / "data_batch_5.bin.gz", gzip.compress(record * 4))
    split = load("cifar10", tmp_path)
    assert split.train.n == 7
    assert "2 of 5 training batches" in split.about
    write(folder / "data_batch_5.bin.gz", gzip.compress(record[:-1]))
    with pytest.raises(DataCorrupt, match=r"data_batch_5\.bin\.gz has 3072 bytes"):
        load("cifar10", tmp_path)
    write(folder / "data_batch_5.bin.gz", gzip.compress(bytes([10]) + bytes(3072)))
    with pytest.raises(DataCorrupt, match="the label 10"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (ROW + ROW[:60], "row 2 has"),
        (ROW.replace("<=50K", "<=50"), "neither <=50K nor >50K"),
        (ROW.replace("77516", "a lot"), "column 'fnlwgt' holds something that is not a number"),
        ("\n\n", "has no rows"),
    ],
)
def test_damaged_tables_are_refused_by_file_and_row(tmp_path, train, words):
    write(
        tmp_path / "adult" / "adult.test",
        b"|1x3 Cross validator\n" + ROW.replace("<=50K", ">50K.").encode(),
    )
    write(tmp_path / "adult" / "adult.data", train.encode())
    with pytest.raises(DataCorrupt, match=rf"adult\.data.*{words}"):
        load("adult", tmp_path)


def test_a_table_that_is_not_text_is_refused(tmp_path):
    write(tmp_path / "adult" / "adult.test", ROW.encode())
    write(tmp_path / "adult" / "adult.data", b"\xff\xfe\x00")
    with pytest.raises(DataCorrupt, match="is not text"):
        load("adult", tmp_path)


def test_a_category_that_training_lacks_is_a_row_of_zeros_and_a_constant_number_stays_zero(
    tmp_path,
):
    write(tmp_path / "adult" / "adult.data", (ROW + ROW.replace("39", "41")).encode())
    write(
        tmp_path / "adult" / "adult.test",
        ROW.replace("White", "Black").replace("77516", "9").encode(),
    )
    split = load("adult", tmp_path)
    facts = dict(zip(split.feature_names, split.test.x[0].tolist(), strict=True))
    assert facts["race=White"] == 0
    assert facts["fnlwgt"] == 0
    assert facts["age"] == -1
    assert split.test.groups["race"] == ("Black", "White")


def test_an_unheard_attack_is_refused(tmp_path):
    write(
        tmp_path / "nsl-kdd" / "KDDTrain+_20Percent.txt",
        CONNECTION.format(attack="normal").encode() * 2,
    )
    write(tmp_path / "nsl-kdd" / "KDDTest+.txt", CONNECTION.format(attack="heartbleed").encode())
    with pytest.raises(DataCorrupt, match=r"KDDTest\+\.txt.*'heartbleed'"):
        load("nsl_kdd", tmp_path)


def test_a_patient_without_an_outcome_is_refused(tmp_path):
    for hospital in ("cleveland", "hungarian", "switzerland"):
        write(
            tmp_path / "heart-disease" / f"processed.{hospital}.data",
            PATIENT.format(num=1).encode() * 3,
        )
    write(tmp_path / "heart-disease" / "processed.va.data", PATIENT.format(num="?").encode() * 3)
    with pytest.raises(DataCorrupt, match="without an outcome"):
        load("heart_disease", tmp_path)


def test_a_speech_without_a_role_is_refused(tmp_path):
    write(tmp_path / "tinyshakespeare" / "input.txt", b"All:\nSpeak.\n\nAnd so he spoke.\n")
    with pytest.raises(DataCorrupt, match=r"input\.txt.*'And so he spoke\.'"):
        load("shakespeare", tmp_path)


@pytest.mark.parametrize("name", sorted(DATASETS.keys() - {"digits"}))
def test_an_absent_data_set_says_its_name_the_folder_and_the_way_out(tmp_path, name):
    assert not present(name, tmp_path)
    with pytest.raises(DataMissing) as missing:
        load(name, tmp_path)
    for words in (f"'{name}'", str(tmp_path), f"privfl data fetch {name}", "PRIVFL_DATA"):
        assert words in str(missing.value)


def test_the_training_file_that_fetching_does_not_bring_says_where_it_comes_from(tmp_path):
    with pytest.raises(
        DataMissing, match=r"no nsl-kdd/KDDTrain\+\.txt .*ask for it on https://www\.unb\.ca"
    ):
        load("nsl_kdd", tmp_path, train="full")


@pytest.mark.parametrize("name", sorted(ORIGINS))
def test_what_present_looks_for_is_what_loading_reads(tmp_path, name):
    for file in ORIGINS[name].needs:
        write(tmp_path / file, b"")
    assert present(name, tmp_path)
    if name != "digits":
        with pytest.raises(DataCorrupt):
            load(name, tmp_path)


def test_the_data_folder_is_privfl_data_or_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("PRIVFL_DATA", str(tmp_path / "mine"))
    assert data_folder() == tmp_path / "mine"
    monkeypatch.delenv("PRIVFL_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_folder() == tmp_path / "cache" / "privfl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder() == tmp_path / ".cache" / "privfl"
