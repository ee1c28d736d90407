"""Tables that a spreadsheet or a liar made: two clients stay two, what is wrong is a sentence."""

import struct
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.aggregators import Mean
from privfl.core import ConfigError, DataCorrupt
from privfl.data import Csv, Npz, split_of
from privfl.dp import Clip, Gaussian
from privfl.training import LocalSGD

ROWS = "".join(f"{i},{'ab'[i % 2]},{i % 2}\n" for i in range(12))
PUBLIC = {"bounds": {"age": [0, 50]}, "categories": {"kind": ["a", "b"]}, "classes": [0, 1]}


def table(folder, text=ROWS):
    path = folder / "table.csv"
    path.write_text(f"age,kind,sick\n{text}")
    return str(path)


def arrays(folder, **held):
    path = folder / "table.npz"
    np.savez_compressed(path, **held)
    return path


def test_large_numbers_are_as_many_clients_as_they_are(tmp_path):
    owners = np.repeat([1234567.0, 1234568.0, 2.0**60], 6)  # a column of ids in which one lacked
    path = arrays(tmp_path, x=np.zeros((18, 2)), sick=np.arange(18) % 2, ward=owners)
    split = Npz(path=str(path), target="sick", client_column="ward")()
    assert list(split.by_client()) == ["1152921504606846976", "1234567", "1234568"]


def test_clients_whose_names_are_the_same_as_text_are_not_made_one():
    held = (np.zeros((2, 3), np.float32), [0, 1])
    with pytest.raises(ConfigError, match="several clients that are called '1'"):
        split_of(({1: held, "1": held}, held), "wards")


def test_one_infinite_value_is_not_a_column_of_zeros(tmp_path):
    x = np.where(np.arange(20) == 3, np.inf, np.arange(20.0))
    path = arrays(tmp_path, x=x, sick=np.arange(20) % 2)
    with pytest.raises(DataCorrupt, match="column 'x' holds inf, which is too large"):
        Npz(path=str(path), target="sick")()


@pytest.mark.parametrize("word", ["inf", "-Infinity", "1e999"])
def test_an_infinite_number_in_text_makes_no_categories_of_a_column(tmp_path, word):
    with pytest.raises(DataCorrupt, match=f"column 'age' holds '{word}' among numbers"):
        Csv(path=table(tmp_path, f"{ROWS}{word},a,0\n"), target="sick")()
    words = ROWS.replace(",a,", ",inf,").replace(",b,", ",fin,")
    split = Csv(path=table(tmp_path, words), target="sick")()
    assert {"kind=inf", "kind=fin"} < set(split.feature_names), "among words it is one"


def test_numbers_whose_squares_overflow_are_refused_with_their_column(tmp_path):
    with pytest.raises(DataCorrupt, match=r"column 'age' holds 1e\+200, which is too large"):
        Csv(path=table(tmp_path, f"1e200,a,0\n{ROWS}"), target="sick")()


def test_a_file_of_test_rows_without_a_column_is_refused_by_its_name(tmp_path):
    (tmp_path / "test.csv").write_text("age,sick\n1,0\n2,1\n")
    with pytest.raises(ConfigError, match=r"test\.csv': unknown column 'kind'"):
        Csv(path=table(tmp_path), target="sick", test=str(tmp_path / "test.csv"))()


@pytest.mark.parametrize(
    ("parts", "words"),
    [({"classes": [0, 0, 1]}, "different labels"), ({"delimiter": ";;"}, "one character")],
)
def test_settings_that_say_nothing_are_refused(tmp_path, parts, words):
    with pytest.raises(ConfigError, match=words):
        Csv(path=table(tmp_path), target="sick", **parts)


def damaged(path):
    content = bytearray(path.read_bytes())
    content[200:230] = b"\xff" * 30
    path.write_bytes(content)


def declared(path, shape):
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(118) + "\n"
    whole = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + bytes(64)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x", "sick"):
            archive.writestr(f"{name}.npy", whole)


@pytest.mark.parametrize(
    "harm",
    [
        damaged,
        lambda path: declared(path, "(1000000000000000,)"),
        lambda path: declared(path, "(4, 1000000000000000000000)"),
        lambda path: declared(path, "(-4,)"),
    ],
    ids=["deflate", "rows", "values", "negative"],
)
def test_an_archive_that_lies_of_what_it_holds_is_one_sentence(tmp_path, harm):
    path = arrays(tmp_path, x=np.random.default_rng(0).normal(size=400), sick=np.arange(400) % 2)
    harm(path)
    with pytest.raises(DataCorrupt, match="is no whole npz file"):
        Npz(path=str(path), target="sick")()


def test_no_object_of_an_archive_is_made(tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    np.savez(tmp_path / "a.npz", x=np.array([Trap()] * 4, dtype=object), sick=np.arange(4) % 2)
    with pytest.raises(DataCorrupt, match="array 'x' holds Python objects"):
        Npz(path=str(tmp_path / "a.npz"), target="sick")()
    assert not (tmp_path / "sprung").exists()


# ---- what was taken from rows, through every door


def private(clients, split):
    model = nn.Linear(split.shape[0], 2)
    uniform = LocalSGD(weighting="uniform")
    noise = {"mechanism": Gaussian(1.0), "bound": Clip(1.0), "training": uniform}
    noise["aggregator"] = Mean(weighted=False)
    return Federation(model, clients, split.test, rounds=1, executor="sequential", **noise)


def test_clients_of_a_table_that_was_fitted_on_their_rows_claim_no_privacy(tmp_path):
    split = Csv(path=table(tmp_path), target="sick", client_column="kind")()
    with pytest.raises(ConfigError, match="'age', the classes of 'sick' of these clients' table"):
        private(split.by_client(), split)


def test_of_a_table_of_which_all_is_public_nothing_is_left_to_name(tmp_path):
    split = Csv(path=table(tmp_path), target="sick", client_column="kind", **PUBLIC)()
    assert private(split.by_client(), split).scenario.uncharged == ()


def test_samples_that_come_in_python_may_have_been_fitted_and_the_statement_says_so(tmp_path):
    split = Csv(path=table(tmp_path), target="sick", **PUBLIC)()
    held = [(torch.zeros(4, 3), torch.arange(4) % 2) for _ in range(4)]
    private(held, split).run(tmp_path / "run")
    said = (tmp_path / "run" / "public").rglob("*")
    texts = [one.read_text() for one in said if one.suffix in (".txt", ".md", ".json")]
    assert any("before they came here" in text for text in texts)


def test_a_function_that_loads_may_have_fitted_and_its_split_says_so():
    held = (np.zeros((2, 3), np.float32), [0, 1])
    assert "how many classes" in split_of((held, held), "wards").untold
