"""Partitioners: nobody's sample twice, the same for the same seed, the skew that was asked for,
refusals in words.
"""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from privfl.core import ConfigError, Dataset
from privfl.data import IID, PARTITIONERS, Dirichlet, Natural, Partitioner, Shards, label_counts


def toy(n, classes=10, seed=0, **attributes):
    y = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    return Dataset(torch.arange(n, dtype=torch.float32)[:, None], y, classes, attributes)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


schemes = st.one_of(
    st.just(IID()),
    st.builds(
        Dirichlet,
        alpha=st.sampled_from([1e-6, 1e-3, 0.1, 1.0, 100.0, 1e6]),
        min_size=st.integers(0, 5),
    ),
    st.builds(Shards, per_client=st.integers(1, 5)),
)


@settings(max_examples=120, deadline=None)
@given(schemes, st.integers(1, 200), st.integers(1, 10), st.integers(1, 30), st.integers(0, 2**32))
def test_every_sample_goes_to_exactly_one_client_and_the_same_one_again(
    scheme, n, classes, clients, seed
):
    each = {
        IID: lambda: 1,
        Dirichlet: lambda: max(scheme.min_size, 1),
        Shards: lambda: scheme.per_client,
    }[type(scheme)]()
    assume(clients * each <= n)
    data = toy(n, classes)
    parts = scheme(data, clients, seeded(seed))
    assert len(parts) == clients
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(n))
    assert same(parts, scheme(data, clients, seeded(seed)))
    sizes = [len(part) for part in parts]
    if isinstance(scheme, Dirichlet):
        assert min(sizes) >= scheme.min_size
    if isinstance(scheme, IID):
        assert max(sizes) - min(sizes) <= 1
    counts = label_counts(data, parts)
    assert torch.equal(counts.sum(0), torch.bincount(data.y, minlength=classes))
    assert counts.sum(1).tolist() == sizes


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 6), min_size=1, max_size=80), st.integers(1, 6))
def test_natural_clients_are_the_values_that_are_frequent_enough(values, min_size):
    data = toy(len(values), writer=torch.tensor(values))
    frequent = [value for value in sorted(set(values)) if values.count(value) >= min_size]
    if not frequent:
        with pytest.raises(ConfigError, match="0 values of 'writer'"):
            Natural("writer", min_size)(data, None, seeded())
        return
    parts = Natural("writer", min_size)(data, None, seeded())
    assert [part.tolist() for part in parts] == [
        [i for i, v in enumerate(values) if v == value] for value in frequent
    ]


@pytest.mark.parametrize("name", sorted(PARTITIONERS))
def test_every_partitioner_fits_the_protocol(name):
    assert isinstance(Natural("writer") if name == "natural" else PARTITIONERS[name](), Partitioner)


@pytest.mark.parametrize(
    "scheme", [IID(), Dirichlet(), Shards()], ids=lambda scheme: type(scheme).__name__
)
def test_another_seed_deals_otherwise(scheme):
    assert not same(scheme(toy(300), 5, seeded(0)), scheme(toy(300), 5, seeded(1)))


def test_fewer_natural_clients_are_the_largest_ones_in_the_order_of_their_values():
    data = toy(10, role=torch.tensor([5, 1, 1, 3, 3, 3, 5, 8, 8, 9]))
    assert [part.tolist() for part in Natural("role")(data, 3, seeded())] == [
        [1, 2],
        [3, 4, 5],
        [0, 6],
    ]


def test_iid_clients_hold_every_class_alike():
    data = toy(20_000)
    counts = label_counts(data, IID()(data, 10, seeded()))
    expected = torch.bincount(data.y)[None] / 10
    assert stats.chi2.sf(float(((counts - expected) ** 2 / expected).sum()), df=81) > 1e-3


@pytest.mark.parametrize("alpha", [0.1, 0.5, 5.0])
def test_dirichlet_shares_of_a_class_are_distributed_as_dirichlet(alpha):
    clients, data, rng = (
        8,
        Dataset(torch.zeros(20_000, 1), torch.zeros(20_000, dtype=torch.int64), classes=1),
        seeded(3),
    )
    draws = (
        torch.stack(
            [
                label_counts(data, Dirichlet(alpha, min_size=0)(data, clients, rng))[:, 0]
                for _ in range(300)
            ]
        )
        / data.n
    )
    law = stats.beta(alpha, (clients - 1) * alpha)
    smooth = (
        draws[:, 0].double() + torch.rand(300, generator=rng, dtype=torch.float64) / data.n
    )  # counts are whole: spread them
    if alpha >= 0.5:
        assert stats.kstest(smooth.numpy(), law.cdf).pvalue > 1e-3
    spread = float(draws.std())
    assert 0.9 * law.std() < spread < 1.1 * law.std()


def test_a_smaller_alpha_skews_more():
    data = toy(5000)

    def top_share(alpha):
        counts = label_counts(data, Dirichlet(alpha)(data, 20, seeded(1))).double()
        return float((counts.max(1).values / counts.sum(1)).mean())

    assert top_share(0.05) > 0.7 > top_share(0.5) > 0.25 > top_share(1000.0)


def test_the_classes_are_dealt_independently_of_each_other():
    data = toy(20_000, classes=2)
    counts = torch.stack(
        [label_counts(data, Dirichlet(0.5, min_size=0)(data, 4, seeded(s)))[0] for s in range(300)]
    ).double()
    assert abs(float(torch.corrcoef(counts.T)[0, 1])) < 0.2


def test_dirichlet_keeps_min_size_where_only_an_even_split_satisfies_it():
    data = toy(100)
    assert [len(part) for part in Dirichlet(1e-3, min_size=10)(data, 10, seeded())] == [10] * 10


def test_most_clients_with_two_shards_hold_two_labels():
    data = Dataset(torch.zeros(6000, 1), torch.arange(6000) % 10, classes=10)
    held = (label_counts(data, Shards(per_client=2)(data, 100, seeded())) > 0).sum(1)
    assert held.max() <= 2
    assert (held == 2).sum() > 70


@pytest.mark.parametrize(
    ("scheme", "clients", "words"),
    [
        (IID(), None, "iid needs a number of clients"),
        (IID(), 0, "clients must be at least 1"),
        (IID(), 51, "51 clients with at least 1 samples each need 51 samples, and there are 50"),
        (Dirichlet(min_size=11), 5, "need 55 samples, and there are 50"),
        (Dirichlet(), 51, "ask for fewer clients"),
        (Shards(per_client=3), 17, "need 51 samples"),
        (Natural("writr"), None, "did you mean 'writer'"),
        (Natural("writer"), 6, "5 values of 'writer' have at least 1 samples and 6 were asked for"),
        (Natural("writer", min_size=11), None, "0 values of 'writer' have at least 11 samples"),
        (Natural("writer"), 0, "0 were asked for"),
    ],
)
def test_impossible_partitions_are_refused_in_words(scheme, clients, words):
    data = toy(50, writer=torch.arange(50) % 5)
    with pytest.raises(ConfigError, match=words):
        scheme(data, clients, seeded())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Dirichlet(alpha=0.0),
        lambda: Dirichlet(alpha=float("inf")),
        lambda: Dirichlet(min_size=-1),
        lambda: Shards(0),
        lambda: Natural("a", 0),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize(
    "scheme", [Dirichlet(), Shards()], ids=lambda scheme: type(scheme).__name__
)
def test_label_skew_of_text_is_refused_in_words(scheme):
    text = Dataset(
        torch.zeros(20, 3, dtype=torch.int64), torch.zeros(20, 3, dtype=torch.int64), classes=4
    )
    with pytest.raises(ConfigError, match="use natural or iid"):
        scheme(text, 2, seeded())
    assert label_counts(text, IID()(text, 2, seeded())).tolist() == [[30, 0, 0, 0], [30, 0, 0, 0]]


def test_the_writers_of_mnist_are_539_natural_clients(real, published):
    split = real("mnist")
    if split.natural is None:
        pytest.skip("data set qmnist-writers is not on this machine")
    parts = Natural(split.natural)(split.train, None, seeded())
    assert len(parts) == published["mnist"]["train_writers"]
    assert sum(len(part) for part in parts) == split.train.n
    assert len(Natural("writer", min_size=100)(split.train, 50, seeded())) == 50
