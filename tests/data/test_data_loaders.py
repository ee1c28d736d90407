"""The real files give the published counts, in the shapes and units that the loaders promise."""

import collections
import re

import numpy as np
import pytest
import torch

from privfl.core import ConfigError
from privfl.data import DATASETS, ORIGINS, data_folder, load
from privfl.data.nsl_kdd import COLUMNS, FAMILIES

IMAGES = ("digits", "mnist", "fashion_mnist", "cifar10")
TABLES = ("adult", "heart_disease", "nsl_kdd")
WORDS = r"[a-z]+(?:'[a-z]+)*|[^a-z\s]"


def counts(dataset):
    return torch.bincount(dataset.y, minlength=dataset.classes).tolist()


@pytest.mark.parametrize("name", IMAGES)
def test_images_are_centred_scaled_and_go_back_to_pixels_between_0_and_1(real, name):
    split = real(name)
    x = split.train.x
    assert x.mean().abs() < 0.01
    assert (x.std() - 1).abs() < 0.01
    pixels = split.original(split.train.x[:500])
    assert pixels.min() > -1e-6
    assert pixels.max() < 1 + 1e-6
    levels = pixels * (16 if name == "digits" else 255)
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", TABLES)
def test_table_numbers_are_standardised_by_the_training_rows(real, name):
    split = real(name)
    names = split.feature_names
    assert len(names) == len(set(names)) == split.shape[0]
    assert split.train.x.abs().max() <= 10
    assert split.test.x.abs().max() <= 10
    age = next(i for i, feature in enumerate(names) if feature in ("age", "count"))
    assert split.train.x[:, age].mean().abs() < 1e-4
    assert (split.train.x[:, age].std(correction=0) - 1).abs() < 1e-4
    assert split.test.x[:, age].mean().abs() > 1e-4


@pytest.mark.parametrize("name", TABLES)
def test_each_training_row_has_at_most_one_value_of_each_category(real, name):
    split = real(name)
    columns = collections.defaultdict(list)
    for place, feature in enumerate(split.feature_names):
        if "=" in feature:
            columns[feature.split("=")[0]].append(place)
    for places in columns.values():
        hot = split.train.x[:, places]
        assert set(hot.unique().tolist()) <= {0.0, 1.0}
        assert set(hot.sum(dim=1).tolist()) <= ({0.0, 1.0} if name == "heart_disease" else {1.0})


def test_digits_split_the_same_way_each_time(real):
    from sklearn.datasets import load_digits

    split, again = load("digits"), load("digits")
    assert (split.train.n, split.test.n) == (1442, 355)
    assert torch.equal(split.train.x, again.train.x)
    assert torch.equal(split.test.x, again.test.x)
    whole = np.bincount(load_digits().target)
    assert counts(split.test) == (whole // 5).tolist()
    assert counts(split.train) == (whole - whole // 5).tolist()


def test_mnist_has_its_published_counts_and_first_labels(real, published):
    split, known = real("mnist"), published["mnist"]
    assert (split.train.n, split.test.n) == (known["train"], known["test"])
    assert split.train.y[:5].tolist() == known["train_labels"]
    assert split.test.y[:5].tolist() == known["test_labels"]
    assert counts(split.train) == known["train_counts"]


def test_mnist_writers_are_those_of_qmnist_and_no_test_writer_wrote_a_training_digit(
    real, published
):
    split, known = real("mnist"), published["mnist"]
    if split.natural is None:
        pytest.skip("data set qmnist-writers is not on this machine")
    writers, sizes = split.train.attributes["writer"].unique(return_counts=True)
    assert (len(writers), int(sizes.min()), int(sizes.max())) == (
        known["train_writers"],
        known["fewest"],
        known["most"],
    )
    test_writers = split.test.attributes["writer"].unique()
    assert len(test_writers) == known["test_writers"]
    assert not torch.isin(test_writers, writers).any()
    pairs = torch.stack([split.train.attributes["writer"], split.train.attributes["group"]]).unique(
        dim=1
    )
    assert torch.bincount(pairs[1]).tolist() == [known["staff_writers"], known["student_writers"]]
    assert split.train.groups["group"] == ("staff", "student")


def test_fashion_mnist_has_its_published_counts_and_first_labels(real, published):
    split, known = real("fashion_mnist"), published["fashion_mnist"]
    assert split.train.y[:5].tolist() == known["train_labels"]
    assert split.test.y[:5].tolist() == known["test_labels"]
    assert counts(split.train) == [known["train"] // 10] * 10
    assert counts(split.test) == [known["test"] // 10] * 10


def test_cifar_reads_the_training_batches_that_are_there_and_says_how_many(real):
    split = real("cifar10")
    batches = int(re.search(r"from (\d) of 5", split.about)[1])
    assert split.train.n == 10_000 * batches
    assert counts(split.test) == [1000] * 10
    if batches in (2, 5):
        assert counts(split.train) == [1000 * batches] * 10


def test_a_cifar_image_is_channel_first(real):
    split = real("cifar10")
    raw = (data_folder() / "cifar-10-batches-bin" / "test_batch.bin").read_bytes()[1:3073]
    pixels = np.frombuffer(raw, dtype=np.uint8).reshape(3, 32, 32) / 255
    np.testing.assert_allclose(split.original(split.test.x[:1])[0].numpy(), pixels, atol=1e-6)


def test_shakespeare_has_its_published_characters_symbols_and_roles(real, published):
    known = published["shakespeare"]
    text = (real("shakespeare") and data_folder() / "tinyshakespeare" / "input.txt").read_text()
    assert len(text) == known["characters"]
    assert len(real("shakespeare").vocabulary) == known["symbols"]
    for least, roles in (
        (0, known["roles"]),
        (1000, known["roles_of_1000"]),
        (2000, known["roles_of_2000"]),
        (10000, known["roles_of_10000"]),
    ):
        assert len(real("shakespeare", min_characters=least).train.groups["role"]) == roles


def test_shakespeare_windows_are_speech_of_their_role_and_labels_are_the_next_characters(real):
    split = real("shakespeare", length=40)
    said, role, before = collections.defaultdict(list), "", ""
    for line in (data_folder() / "tinyshakespeare" / "input.txt").read_text().splitlines():
        if not before and line:
            role = line[:-1]
        elif line:
            said[role].append(line)
        before = line
    for part in (split.train, split.test):
        assert torch.equal(part.x[:, 1:], part.y[:, :-1])
        for i in range(0, part.n, part.n // 25):
            role = split.train.groups["role"][int(part.attributes["role"][i])]
            window = (
                "".join(split.vocabulary[c] for c in part.x[i].tolist())
                + split.vocabulary[int(part.y[i, -1])]
            )
            assert window in "\n".join(said[role])


def test_shakespeare_trains_on_what_each_role_says_first(real):
    split = real("shakespeare")
    train, test = (torch.bincount(part.attributes["role"]) for part in (split.train, split.test))
    share = train / (train + test)
    assert 0.75 < float(train.sum() / (train.sum() + test.sum())) < 0.85
    assert share.min() > 0.6


def test_shakespeare_by_words_is_what_each_role_says_in_the_words_of_its_training_part(real):
    split = real("shakespeare", length=16, unit="word", words=3000)
    known = split.class_names
    assert (split.classes, len(known), known[0]) == (3000, 3000, "<unknown>")
    assert int(split.train.x.max()) == 2999
    place, said = set(known), collections.defaultdict(list)
    text = (data_folder() / "tinyshakespeare" / "input.txt").read_text().lower()
    for speech in text.split("\n\n"):
        role, _, body = speech.strip("\n").partition(":\n")
        said[role] += [w if w in place else known[0] for w in re.findall(WORDS, body)]
    joined = {role: f" {' '.join(words)} " for role, words in said.items()}
    for part in (split.train, split.test):
        assert torch.equal(part.x[:, 1:], part.y[:, :-1])
        for i in range(0, part.n, part.n // 10):
            role = split.train.groups["role"][int(part.attributes["role"][i])].lower()
            window = [*part.x[i].tolist(), int(part.y[i, -1])]
            assert f" {' '.join(known[c] for c in window)} " in joined[role]
    counts = torch.bincount(split.train.x.flatten(), minlength=3000)
    assert counts[1:].argmax() == 0  # the most frequent comes first
    assert known[1] == ","
    assert float(counts[0] / counts.sum()) < 0.12


def test_adult_has_its_published_counts(real, published):
    split, known = real("adult"), published["adult"]
    assert counts(split.train) == known["train_counts"]
    assert counts(split.test) == known["test_counts"]
    assert split.shape == (known["features"],)
    assert split.train.groups["sex"] == ("Female", "Male")
    first = split.original(split.train.x[:1])[0]
    facts = dict(zip(split.feature_names, first.tolist(), strict=True))
    assert facts["age"] == pytest.approx(39, abs=1e-3)
    assert facts["fnlwgt"] == pytest.approx(77516, rel=1e-5)
    assert facts["workclass=State-gov"] == facts["race=White"] == 1
    assert split.train.groups["race"][int(split.train.attributes["race"][0])] == "White"


def test_heart_disease_has_its_published_hospitals_and_outcomes(real, published):
    split, known = real("heart_disease"), published["heart_disease"]
    hospital = torch.cat([part.attributes["hospital"] for part in (split.train, split.test)])
    y = torch.cat([split.train.y, split.test.y])
    assert torch.bincount(hospital).tolist() == known["rows"]
    assert torch.bincount(hospital[y == 0]).tolist() == known["healthy"]
    assert torch.bincount(split.test.attributes["hospital"]).tolist() == [
        rows // 3 for rows in known["rows"]
    ]


def test_the_missing_cholesterol_of_switzerland_is_the_mean_and_not_a_measurement(real):
    split = real("heart_disease")
    chol = split.feature_names.index("chol")
    swiss = split.train.attributes["hospital"] == split.train.groups["hospital"].index(
        "switzerland"
    )
    assert (split.train.x[swiss, chol] == 0).all()
    assert 230 < split.mean[chol] < 260


@pytest.mark.parametrize(
    ("test", "count", "binary"),
    [("full", "test", "test_binary"), ("21", "test_21", "test_21_binary")],
)
def test_nsl_kdd_has_its_published_counts(real, published, test, count, binary):
    split, known = real("nsl_kdd", labels="binary", test=test), published["nsl_kdd"]
    assert (split.train.n, split.test.n) == (known["train"], known[count])
    assert counts(split.train) == known["train_binary"]
    assert counts(split.test) == known[binary]


def test_nsl_kdd_families_count_as_published(real, published):
    assert counts(real("nsl_kdd").test) == published["nsl_kdd"]["test_families"]
    assert len(COLUMNS) == 43
    assert sum(map(len, FAMILIES.values())) == 40


def test_every_data_set_has_an_origin_with_a_licence():
    assert ORIGINS.keys() == DATASETS.keys()
    assert all(origin.licence and origin.page.startswith("http") for origin in ORIGINS.values())


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("mnits", {}, "did you mean 'mnist'"),
        ("shakespeare", {"lenght": 3}, "did you mean 'length'"),
        ("digits", {"length": 3}, "it has none"),
        ("shakespeare", {"length": 0}, "at least 1"),
        ("nsl_kdd", {"labels": "seven"}, "'five' or 'binary'"),
    ],
)
def test_an_unknown_name_or_option_is_refused_in_words(name, options, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        load(name, **options)
