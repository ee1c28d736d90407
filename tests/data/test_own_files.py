"""Somebody's own tables: what becomes of their columns, what is refused, and what a claim of
privacy asks of them.
"""

import csv
import sys
import types

import numpy as np
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from privfl import Federation
from privfl.core import ConfigError, DataCorrupt, DataMissing
from privfl.data import Csv, load
from privfl.testing import check_dataset

HEAD = ["age", "sex", "dose", "ward", "sick"]
PUBLIC = {
    "bounds": {"age": [0, 100], "dose": [0, 2]},
    "categories": {"sex": ["f", "m"]},
    "classes": ["no", "yes"],
}


def rows(n=60, seed=1):
    rng = np.random.default_rng(seed)
    for i in range(n):
        age = "" if i % 11 == 3 else f"{rng.integers(20, 90)}"
        sex = "?" if i % 13 == 5 else "fm"[rng.integers(2)]
        sick = "yes" if (float(age or 50) > 50) == (i % 7 > 0) else "no"
        yield [age, sex, f"{rng.random():.3f}", f"St. {'ABCD'[i % 4]}", sick]


@pytest.fixture
def table(tmp_path):
    def write(lines=None, head=HEAD, name="wards.csv", delimiter=","):
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file, delimiter=delimiter)
            out.writerows([head, *(rows() if lines is None else lines)])
        return str(path)

    return write


def own(path, **options):
    return {"path": path, "target": "sick", "client_column": "ward", **options}


def test_columns_become_what_scikit_learn_makes_of_them(table):
    split = load("csv", **own(table(), test=table(name="again.csv")))
    lines = list(rows())
    x = np.array([[float(a or "nan"), float(d)] for a, _, d, _, _ in lines])
    sexes = np.array([[None if s == "?" else s] for _, s, _, _, _ in lines], dtype=object)
    scaled = make_pipeline(SimpleImputer(), StandardScaler())
    # scikit-learn scales after it has filled in means, which makes the spread a little smaller
    theirs = ColumnTransformer([("n", scaled, [0, 1])]).fit_transform(x)
    ours = split.train.x.numpy()
    assert split.feature_names == ("age", "sex=f", "sex=m", "sex=missing", "dose")
    present = ~np.isnan(x[:, 0])
    spread = np.nanstd(x[:, 0]) / np.std(np.where(present, x[:, 0], np.nanmean(x[:, 0])))
    assert np.allclose(ours[:, 0] * spread, theirs[:, 0], atol=1e-5)
    assert np.allclose(ours[:, 4], theirs[:, 1], atol=1e-5)
    hot = OneHotEncoder(sparse_output=False).fit_transform(sexes)
    assert np.array_equal(ours[:, 1:4], hot)


def test_a_file_of_many_rows_is_that_of_few_again(table):
    many = [line for _ in range(100) for line in rows()]
    files = [table(lines, name=f"{len(lines)}.csv") for lines in (list(rows()), many)]
    one, other = (Csv(**own(path))() for path in files)
    assert other.train.n + other.test.n == 100 * (one.train.n + one.test.n)
    assert other.train.x.std(dim=0)[0] == pytest.approx(1.0, abs=0.1)
    assert {split.class_names for split in (one, other)} == {("no", "yes")}


def test_test_rows_decide_nothing_of_how_training_rows_look(table):
    lines = list(rows(60))
    changed = [list(line) for line in lines]
    seen = {}
    for line in changed:
        seen[line[3]] = seen.get(line[3], 0) + 1
        if seen[line[3]] % 5 == 0:
            line[0], line[1] = "99999", "other"
    files = [table(each, name=f"{i}.csv") for i, each in enumerate((lines, changed))]
    one, other = (Csv(**own(path))() for path in files)
    assert torch.equal(one.train.x, other.train.x)
    assert not torch.equal(one.test.x, other.test.x)


def test_with_public_bounds_nothing_is_taken_from_rows(table):
    split = Csv(**own(table(), **PUBLIC))()
    assert split.fitted == ()
    lines = list(rows())
    lines[0] = ["1e9", "x", "-5", "St. A", "no"]
    other = Csv(**own(table(lines), **PUBLIC))()
    assert other.train.x[0].tolist() == [1.0, 0.0, 0.0, -1.0]
    assert torch.equal(split.train.x[1:], other.train.x[1:]), "one row moves no other"
    named = Csv(**own(table()))()
    assert named.fitted == ("'age'", "'sex'", "'dose'", "the classes of 'sick'")


CONFIG = {"rounds": 2, "bound": {"name": "clip", "l2": 1.0}, "executor": "sequential"}
NOISY = {
    "gaussian": {"mechanism": {"name": "gaussian", "noise_multiplier": 1.0}},
    "at clients": {"mechanism": {"name": "local_gaussian", "noise_multiplier": 1.0}},
    "samples": {
        "training": {"gradient": {"name": "dp", "l2": 1.0, "noise_multiplier": 1.0}, "name": "sgd"},
        "bound": "none",
    },
}


@pytest.mark.parametrize("noise", NOISY)
def test_a_run_that_claims_privacy_refuses_what_was_taken_from_rows(noise, table):
    path = table()
    data = {"name": "csv", **own(path)}
    with pytest.raises(ConfigError, match=r"'age'.*no noise counts that: give data\.bounds"):
        Federation.from_config({**CONFIG, **NOISY[noise], "data": data, "audit": {"delta": 0.01}})
    run = Federation.from_config(
        {**CONFIG, **NOISY[noise], "data": {**data, **PUBLIC}, "audit": {"delta": 0.01}}
    )
    assert run.scenario.uncharged == ()


def test_a_config_names_a_file_and_its_clients(table):
    run = Federation.from_config({**CONFIG, "data": {"name": "csv", **own(table())}}).run()
    assert len(run.history) == 2
    config = Federation.from_config({**CONFIG, "data": {"name": "csv", **own(table())}}).config
    assert config.data.partition == {"name": "natural"}, "as the resolved config says"
    dealt = {"name": "csv", **own(table()), "partition": "iid", "clients": 3}
    assert len(Federation.from_config({**CONFIG, "data": dealt}).scenario.clients) == 3


def test_a_file_passes_the_checks_of_every_data_set(table):
    check_dataset(Csv(**own(table())))


@pytest.mark.parametrize(
    ("change", "options", "error", "words"),
    [
        (lambda lines: lines[7].__setitem__(4, ""), {}, DataCorrupt, "row 8: 'sick' is missing"),
        (lambda lines: lines[7].__setitem__(3, "NA"), {}, DataCorrupt, "row 8: 'ward' is missing"),
        (lambda lines: lines[7].append("x"), {}, DataCorrupt, "line 9: 6 fields where 5 belong"),
        (
            lambda lines: lines[7].__setitem__(0, "old"),
            {"bounds": {"age": [0, 100]}},
            DataCorrupt,
            "row 8, column 'age': 'old' is no number",
        ),
        (
            lambda lines: lines[7].__setitem__(4, "perhaps"),
            {"classes": ["no", "yes"]},
            DataCorrupt,
            "row 8: 'sick' is 'perhaps', which is none of those known",
        ),
        (lambda lines: lines.clear(), {}, ConfigError, "two classes"),
        (None, {"target": "sik"}, ConfigError, "did you mean 'sick'"),
        (None, {"client_column": "hospital"}, ConfigError, "unknown column 'hospital'"),
        (None, {"bounds": {"age": [9, 1]}}, ConfigError, "the lower first"),
        (None, {"categories": {"sex": []}}, ConfigError, "its different values"),
        (None, {"drop": ["age", "sex", "dose"]}, ConfigError, "no column is left"),
        (None, {"features": ["agee"]}, ConfigError, "did you mean 'age'"),
        (None, {"path": "nowhere.csv"}, DataMissing, "No such file"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_sentence_with_the_place(
    change, options, error, words, table
):
    lines = list(rows())
    if change is not None:
        change(lines)
    with pytest.raises(error, match=words):
        Csv(**{**own(table(lines)), **options})()


def test_a_column_of_names_is_no_category(table):
    lines = [[*line, f"patient {i}"] for i, line in enumerate(rows(1400))]
    path = table(lines, [*HEAD, "who"])
    with pytest.raises(ConfigError, match=r"leave it out with drop: \[who\]"):
        Csv(**own(path))()
    assert Csv(**own(path, drop=["who"]))().train.n > 1000


def test_quotes_semicolons_and_marks_of_excel_are_read(tmp_path):
    path = tmp_path / "excel.csv"
    text = "\ufeffage;ward;sick\n" + '40;"St. ""A""; north";no\n50;B;yes\n' * 10
    path.write_text(text, encoding="utf-8")
    split = Csv(**own(str(path), delimiter=";"))()
    assert list(split.by_client()) == ["B", 'St. "A"; north']


def test_arrays_in_an_npz_file_are_read_a_few_rows_at_a_time(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((9000, 2, 3)).astype(np.float32), rng.integers(3, size=9000)
    who = np.array([f"w{i % 5}" for i in range(9000)])
    for name, save in (("a.npz", np.savez), ("b.npz", np.savez_compressed)):
        save(tmp_path / name, pixels=x, label=y, writer=who)
        options = {"path": str(tmp_path / name), "target": "label", "client_column": "writer"}
        split = load("npz", **options)
        assert split.shape == (2, 3)
        assert split.class_names == ("0", "1", "2")
        mine = np.flatnonzero(who == "w3")
        kept = mine[[i for i in range(len(mine)) if i % 5 != 4]]
        assert np.array_equal(split.by_client()["w3"].x.numpy(), x[kept])
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:5000])
    with pytest.raises(DataCorrupt, match="no whole npz"):
        load("npz", **{**options, "path": str(tmp_path / "a.npz")})


def test_a_parquet_file_is_read_like_a_csv_or_says_what_is_missing(tmp_path, table):
    path = tmp_path / "wards.parquet"
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        path.write_bytes(b"PAR1")
        with pytest.raises(ConfigError, match=r"pip install 'privfl\[parquet\]'"):
            load("parquet", **own(str(path)))
        return
    columns = [list(column) for column in zip(*rows(), strict=True)]
    columns[0] = [int(age) if age else None for age in columns[0]]
    columns[1] = [None if sex == "?" else sex for sex in columns[1]]
    columns[2] = [float(dose) for dose in columns[2]]
    parquet.write_table(pyarrow.table(dict(zip(HEAD, columns, strict=True))), path)
    one, other = load("parquet", **own(str(path))), load("csv", **own(table()))
    assert torch.allclose(one.train.x, other.train.x, atol=1e-6)
    assert one.feature_names == other.feature_names


# ---- functions, models and torch data sets


@pytest.fixture
def module(monkeypatch):
    made = types.ModuleType("my_module")
    monkeypatch.setitem(sys.modules, "my_module", made)
    return made


def pairs(n=40, d=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=rng)
    return x, (x[:, 0] > 0).long()


def test_a_config_names_functions_and_networks_of_a_module(module):
    def read(sites: int = 2):
        clients = {f"site {i}": TensorDataset(*pairs(seed=i)) for i in range(sites)}
        return clients, pairs(seed=9)

    class Net(nn.Module):
        def __init__(self, hidden: int = 4):
            super().__init__()
            self.first, self.last = nn.Linear(3, hidden), nn.Linear(hidden, 2)

        def forward(self, x):
            return self.last(self.first(x).tanh())

    module.read, module.Net = read, Net
    config = {
        **CONFIG,
        "data": {"name": "my_module:read", "sites": 3, "partition": "natural"},
        "model": {"name": "my_module:Net", "hidden": 5},
    }
    made = Federation.from_config(config)
    assert len(made.scenario.clients) == 3
    assert made.scenario.workload.model.d == 3 * 5 + 5 + 5 * 2 + 2
    assert made.run().accuracy > 0.4
    with pytest.raises(ConfigError, match="did you mean 'hidden'"):
        Federation.from_config({**config, "model": {"name": "my_module:Net", "hiden": 5}})
    module.read = lambda: 3
    with pytest.raises(ConfigError, match="gave a int: give"):
        Federation.from_config({**CONFIG, "data": "my_module:read"})


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(*pairs(), strict=True))


KINDS = {
    "arrays": tuple(side.numpy() for side in pairs()),
    "tensors": pairs(),
    "doubles": (pairs()[0].double().numpy(), pairs()[1].int().tolist()),
    "data set": TensorDataset(*pairs()),
    "loader": DataLoader(TensorDataset(*pairs()), batch_size=7),
    "stream": Stream(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_federation_takes_whatever_torch_reads(kind):
    made = Federation(nn.Linear(3, 2), {"a": KINDS[kind], "b": KINDS["data set"]}, KINDS[kind])
    data, clients = made.scenario.workload.data, made.scenario.clients
    assert torch.allclose(data.take(clients[0]).x, pairs()[0])
    assert torch.equal(data.take(clients[1]).y, pairs()[1])
    assert made.scenario.facts["names"] == "0: a, 1: b"


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ((torch.ones(3, 2, dtype=torch.uint8), torch.zeros(3)), "divide by 255"),
        ((torch.ones(3, 2), torch.tensor([0.5, 1, 2])), "labels are classes"),
        ((torch.ones(3, 2), torch.tensor([-1, 1, 2])), "labels are classes"),
        ((torch.ones(3, 2), torch.zeros(2)), "3 samples, but 2 labels"),
        (TensorDataset(torch.ones(3, 2)), "a pair of features and label"),
    ],
)
def test_what_are_no_samples_is_refused_with_its_client(samples, words):
    with pytest.raises((ConfigError, DataCorrupt), match=f"client 1.*{words}"):
        Federation(nn.Linear(2, 2), [pairs(d=2), samples], pairs(d=2))


def test_clients_of_a_split_are_not_read_before_their_round(table):
    split = load("csv", **own(table()))
    made = Federation(nn.Linear(5, 2), split.by_client(), split.test)
    assert made.scenario.workload.data.x is split.train.x
