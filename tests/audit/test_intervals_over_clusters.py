"""Intervals of shares and means over clusters hold the truth as often as they say, whatever the
clusters' sizes and however their units hang together, and are no wider for it where they are alike.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import beta
from scipy.stats import t as student

from privfl.audit.intervals import Figure, clustered_mean, clustered_share, stretched
from privfl.audit.ranking import membership

Floats = npt.NDArray[np.float64]
SIZES = {
    "equal": lambda k: np.full(k, 8),
    "large": lambda k: np.full(k, 40),
    "linear": lambda k: 4 * np.arange(1, k + 1),
    "geometric": lambda k: np.maximum(1, np.round(64 * 0.7 ** np.arange(k))).astype(np.int64),
    "half": lambda k: np.array([8 * (k - 1)] + [8] * (k - 1)),
    "giant": lambda k: np.array([100 * k] + [4] * (k - 1)),
}
"""How many units each of k clusters has; of a half one cluster has half, of a giant nearly all."""


def shares(sizes: npt.NDArray[np.int64], p: float, together: float, runs: int) -> Floats:
    """The share of each cluster [runs, k] where units of one are correlated so much."""
    rng = np.random.default_rng(11)
    if together == 1:
        return (rng.random((runs, len(sizes))) < p).astype(np.float64)
    chance = np.full((runs, len(sizes)), p)
    if together > 0:
        more = (1 - together) / together
        chance = rng.beta(p * more, (1 - p) * more, size=chance.shape)
    return rng.binomial(sizes, chance) / sizes


@pytest.mark.parametrize(
    ("kind", "k", "p", "together"),
    [
        ("large", 5, 0.02, 1.0),  # nearly always none is right, and no cluster says how they hang
        ("equal", 3, 0.5, 1.0),
        ("equal", 5, 0.1, 0.3),
        ("large", 9, 0.1, 0.3),
        ("linear", 12, 0.9, 1.0),
        ("linear", 20, 0.02, 0.3),
        ("geometric", 9, 0.5, 0.3),
        ("geometric", 20, 0.1, 1.0),
        ("half", 9, 0.5, 0.3),
        ("half", 20, 0.02, 1.0),
        ("giant", 5, 0.5, 1.0),
    ],
)
def test_an_interval_of_shares_holds_the_truth_in_its_worst_settings(
    kind: str, k: int, p: float, together: float
) -> None:
    """500 runs at a nominal 95 %: were it 94 %, under 91 % has a chance of .4 %."""
    sizes = SIZES[kind](k)
    weights, units = sizes.astype(np.float64), int(sizes.sum())
    told = [clustered_share(row, weights, units) for row in shares(sizes, p, together, 500)]
    assert np.mean([figure.holds(p) for figure in told]) >= 0.91
    assert min(figure.high - figure.low for figure in told) > 0


@pytest.mark.parametrize(
    ("kind", "k"), [("geometric", 9), ("half", 9), ("half", 12), ("giant", 5), ("giant", 12)]
)
def test_an_interval_of_means_holds_the_truth_whatever_the_weights(kind: str, k: int) -> None:
    values = np.random.default_rng(12).normal(size=(500, k))
    weights = SIZES[kind](k).astype(np.float64)
    told = [clustered_mean(row, weights, units=k, within=(-9.0, 9.0)) for row in values]
    assert np.mean([figure.holds(0.0) for figure in told]) >= 0.92


@pytest.mark.parametrize("k", [5, 9, 12, 20])
@pytest.mark.parametrize("together", [0.0, 0.3])
def test_of_equal_clusters_an_interval_is_about_as_wide_as_students(
    k: int, together: float
) -> None:
    """The wider of Student's over clusters and the exact one of units, which holds the truth in
    94 % of cases and more here.
    """
    sizes = SIZES["equal"](k)
    rows = shares(sizes, 0.5, together, 150)
    told = [clustered_share(row, np.ones(k), 8 * k) for row in rows]
    mean = rows.mean(axis=1)
    reach = student.ppf(0.975, k - 1) * rows.std(axis=1, ddof=1) / math.sqrt(k)
    hits = np.round(mean * 8 * k)
    low = np.minimum(mean - reach, beta.ppf(0.025, hits, 8 * k - hits + 1)).clip(min=0)
    high = np.maximum(mean + reach, beta.ppf(0.975, hits + 1, 8 * k - hits)).clip(max=1)
    ratio = np.mean([figure.high - figure.low for figure in told]) / (high - low).mean()
    assert 0.9 < ratio < 1.08


def test_what_all_clusters_agree_on_counts_by_clusters_and_one_alone_by_its_units() -> None:
    alike = [clustered_share(np.ones(k), np.ones(k), 24 * k) for k in (1, 2, 6, 24)]
    assert [round(figure.low, 3) for figure in alike] == [0.858, 0.158, 0.541, 0.858]
    giant = clustered_share(np.ones(12), np.array([1e4] + [1.0] * 11), 10_011)
    assert giant.low < 0.03  # of which nearly all is one cluster
    assert clustered_share(np.array([0.55]), np.ones(1), 24).value == 0.55
    assert clustered_share(np.ones(1), np.ones(1), 1).low == pytest.approx(0.025)


def test_few_units_that_are_right_do_not_show_that_clusters_agree() -> None:
    none, one, many = (
        clustered_share(np.array([hits / 8] + [0.0] * 11), np.ones(12), 96) for hits in (0, 1, 8)
    )
    assert none.high > one.high > 1 / 96
    assert many.high > 0.25  # one cluster has all of them
    spread = clustered_share(np.full(12, 1 / 8), np.ones(12), 96)
    assert spread.high < many.high


@pytest.mark.parametrize(
    "weights",
    [
        np.eye(12)[3],
        np.r_[1.0, np.full(11, 1e-9)],
        np.r_[1.0, np.full(11, 1e-200)],
        10.0 ** -np.arange(12.0),
        np.full(12, 1e300),
    ],
    ids=["one-hot", "nearly", "underflow", "powers", "huge"],
)
@pytest.mark.parametrize(
    "values",
    [np.zeros(12), np.ones(12), np.full(12, 1 / 3), np.arange(12) / 11, np.eye(12)[0]],
    ids=["none", "all", "thirds", "steps", "first"],
)
def test_at_the_edges_an_interval_has_a_width_and_holds_its_value(
    values: Floats, weights: Floats
) -> None:
    with np.errstate(all="raise", under="ignore"):
        told = clustered_share(values, weights, 100)
        mean = clustered_mean(values, weights, units=100, within=(-1.0, 1.0))
    assert 0 <= told.low <= told.value <= told.high <= 1
    assert told.high - told.low > 0.01
    assert mean.low < mean.value + 1e-12
    assert mean.high - mean.low > 0.01


def test_what_is_not_there_has_no_figure() -> None:
    none = np.zeros(0)
    told = [
        clustered_share(none, none, 5),
        clustered_share(np.full(3, 0.5), np.ones(3), 0),
        clustered_share(np.full(3, 0.5), np.zeros(3), 5),
        clustered_mean(none, none, units=5, within=(0.0, 1.0)),
        clustered_mean(np.ones(12), np.zeros(12), units=5, within=(0.0, 1.0)),
    ]
    assert {str(figure) for figure in told} == {"too few samples"}
    alone = clustered_mean(np.array([0.3]), np.ones(1), units=9, within=(0.0, 1.0))
    assert alone == Figure(0.3, -math.inf, math.inf)


@pytest.mark.parametrize(
    ("values", "weights", "why"),
    [
        ([0.5, 0.5], [1.0], r"values \[2\] and weights \[1\]"),
        ([0.5, math.nan], [1.0, 1.0], "is no number"),
        ([0.5, 0.5], [1.0, math.inf], "is no number"),
        ([0.5, 0.5], [1.0, -1.0], "a weight of -1"),
        ([0.5, 1.5], [1.0, 1.0], "a share is from 0 to 1"),
    ],
)
def test_what_is_no_share_of_a_cluster_is_refused(
    values: list[float], weights: list[float], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        clustered_share(np.array(values), np.array(weights), 9)


def test_means_that_are_all_alike_have_the_interval_of_their_units() -> None:
    gap = clustered_mean(np.full(3, 0.5), np.ones(3), units=28, within=(-1.0, 1.0))
    assert 0.0 < gap.low < 0.2
    assert 0.7 < gap.high < 1.0
    all_of_it = clustered_mean(np.ones(3), np.ones(3), units=28, within=(-1.0, 1.0))
    assert 0.7 < all_of_it.low < all_of_it.high == 1


def areas(kind: str, k: int, times: int, runs: int, shift: float) -> list[tuple[Figure, Figure]]:
    """The area and the rate at 1 % of members whose scores differ by client, about a shift."""
    import torch

    rng, sizes = np.random.default_rng(13), SIZES[kind](k) * times
    home = np.repeat(np.arange(k), sizes)
    who = torch.arange(2 * len(home)) < len(home)
    both = torch.from_numpy(np.r_[home, home])
    found = []
    for _ in range(runs):
        scores = rng.normal(size=2 * len(home))
        scores[: len(home)] += (shift + rng.normal(size=k))[home]
        told = membership(torch.from_numpy(scores), who, clusters=both)
        found.append((told.auc, told.at_hundredth))
    return found


def test_an_area_over_clients_of_unlike_sizes_holds_the_truth() -> None:
    """50 runs; with k - 1 degrees of freedom it held it in 81 % of cases."""
    told = areas("half", 9, 1, 50, 0.0)
    assert np.mean([area.holds(0.5) for area, _ in told]) >= 0.92


def test_a_rate_of_few_clients_who_differ_is_no_rate_of_independent_samples() -> None:
    """40 runs; the interval of independent samples held the truth in 55 % of cases."""
    told = areas("large", 4, 3, 40, 1.0)
    assert np.mean([rate.holds(0.174) for _, rate in told]) >= 0.75


def test_a_bootstrap_over_unequal_clusters_is_stretched_farther() -> None:
    drawn = np.random.default_rng(14).normal(0.5, 0.1, 20_000)
    equal, half, giant = (
        stretched(drawn, 0.5, SIZES[kind](12).astype(np.float64))
        for kind in ("equal", "half", "giant")
    )
    assert equal[1] - 0.5 == pytest.approx(0.1 * 2.2010 * math.sqrt(12 / 11), rel=0.05)
    assert half[1] - 0.5 > 1.5 * (equal[1] - 0.5)
    assert giant[0] < -0.5
    assert stretched(drawn, 0.5, np.eye(12)[0]) == (-math.inf, math.inf)
