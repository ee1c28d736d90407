"""Distances, norms and sorted columns hold for any rows, near or far, alike or not."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import MeanShift, estimate_bandwidth

from privfl.aggregators import Median, TrimmedMean
from privfl.aggregators.base import finite_rows
from privfl.aggregators.columns import middle, nearest_middle_mean, sorted_columns
from privfl.aggregators.mean_shift import largest_cluster
from privfl.core import Rows
from privfl.core.geometry import (
    BLOCK,
    centred_gram,
    gram,
    inner_products,
    squared_distances,
    squared_norms,
)

quick = settings(max_examples=40, deadline=None)
shapes = st.tuples(st.integers(1, 9), st.integers(1, 12))


def rows_of(shape: tuple[int, int], seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def exact(values: torch.Tensor) -> torch.Tensor:
    wide = values.double()
    return ((wide[:, None] - wide) ** 2).sum(dim=2)


@quick
@given(
    shapes,
    st.integers(0, 2**31),
    st.sampled_from([1e-12, 1e-3, 1.0, 1e9]),
    st.sampled_from([0.0, 1.0, 1e3]),
)
def test_distances_are_right_in_float32_wherever_the_rows_lie(
    shape: tuple[int, int], seed: int, spread: float, offset: float
) -> None:
    values = (rows_of(shape, seed) * spread + offset).float()
    found, expected = squared_distances(values), exact(values)
    torch.testing.assert_close(found, expected, rtol=5e-6, atol=1e-30)
    assert torch.equal(found, found.T)
    assert (found.diagonal() == 0).all()


@quick
@given(st.integers(2, 8), st.integers(0, 2**31), st.sampled_from([1e4, 1e12, 1e25, 3e38]))
def test_a_far_row_does_not_blur_the_distances_of_the_others(n: int, seed: int, far: float) -> None:
    values = rows_of((n, 5), seed).float()
    values[0] = far
    torch.testing.assert_close(
        squared_distances(values)[1:, 1:], exact(values[1:]), rtol=2e-5, atol=1e-6
    )


@quick
@given(shapes, st.integers(0, 2**31), st.sampled_from([1e-25, 1.0, 1e25]))
def test_norms_neither_overflow_nor_vanish(shape: tuple[int, int], seed: int, scale: float) -> None:
    values = (rows_of(shape, seed) * scale).float()
    torch.testing.assert_close(
        squared_norms(values), (values.double() ** 2).sum(dim=1), rtol=1e-6, atol=0
    )
    centre = values[0]
    torch.testing.assert_close(
        squared_norms(values, centre), exact(values)[0], rtol=1e-5, atol=1e-60
    )


@quick
@given(
    st.sampled_from([1, 2, 5, 6, 17, 20, 21, 33]),
    st.sampled_from([1, BLOCK - 1, BLOCK, BLOCK + 1]),
    st.integers(0, 2**31),
)
def test_blocks_join_without_a_seam(n: int, d: int, seed: int) -> None:
    values = rows_of((n, d), seed)
    torch.testing.assert_close(gram(values), values @ values.T)
    torch.testing.assert_close(squared_norms(values), (values**2).sum(dim=1))
    torch.testing.assert_close(
        torch.cat([c for _, c in sorted_columns(values)]), values.T.sort(dim=1).values
    )
    zero_sum = rows_of((n, 1), seed + 1)[:, 0]
    zero_sum = zero_sum - zero_sum.mean()
    torch.testing.assert_close(
        zero_sum @ centred_gram(values) @ zero_sum,
        (zero_sum @ values).square().sum(),
        rtol=1e-6,
        atol=1e-9,
    )


@quick
@given(shapes, st.integers(0, 2**31))
def test_the_median_is_numpys_and_lies_in_every_trimmed_range(
    shape: tuple[int, int], seed: int
) -> None:
    values = rows_of(shape, seed)
    np.testing.assert_allclose(
        Median()(Rows.of(values)).numpy(), np.median(values.numpy(), axis=0), rtol=1e-12
    )
    f = (shape[0] - 1) // 2
    torch.testing.assert_close(TrimmedMean(f)(Rows.of(values)), Median()(Rows.of(values)))


@quick
@given(st.integers(1, 9), st.integers(0, 2**31), st.data())
def test_the_nearest_values_to_a_median_lie_side_by_side(
    n: int, seed: int, data: st.DataObject
) -> None:
    keep = data.draw(st.integers(1, n))
    columns = rows_of((6, n), seed).sort(dim=1).values
    found = nearest_middle_mean(columns, keep)
    for column, centre, mean in zip(columns, middle(columns), found, strict=True):
        nearest = column[(column - centre).abs().argsort(stable=True)[:keep]].mean()
        assert (
            abs(mean - nearest) < 1e-9 or n % 2 == 0
        )  # two middle values are equally near their midpoint
        assert column[0] <= mean <= column[-1]


@quick
@given(
    st.lists(
        st.sampled_from([0.0, 1.0, -3e38, 3e38, float("inf"), float("-inf"), float("nan")]),
        min_size=1,
        max_size=6,
    )
)
def test_finite_rows_are_told_from_others_even_where_sums_overflow(entries: list[float]) -> None:
    values = torch.tensor([entries, [0.0] * len(entries)])
    assert finite_rows(values).tolist() == [bool(np.isfinite(entries).all()), True]


@quick
@given(
    st.integers(6, 40), st.integers(1, 4), st.integers(0, 2**31), st.sampled_from([0.0, 0.3, 2.0])
)
def test_the_largest_cluster_is_that_of_scikit_learns_mean_shift(
    n: int, k: int, seed: int, apart: float
) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, k)) / 10
    points[: n // 3] += apart * rng.normal(size=k)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where every point is a seed
        fitted = MeanShift(
            bandwidth=estimate_bandwidth(points, quantile=0.5), bin_seeding=True, cluster_all=False
        ).fit(points)
    sizes = np.bincount(fitted.labels_[fitted.labels_ >= 0])
    found = largest_cluster(torch.from_numpy(points)).numpy()
    assert found.sum() == sizes.max()
    assert len(set(fitted.labels_[found])) == 1


def test_rows_that_look_alike_are_the_largest_cluster_where_they_are_half() -> None:
    assert largest_cluster(torch.tensor([[1.0], [0.0], [1.0], [1.0], [0.5]])).tolist() == [
        True,
        False,
        True,
        True,
        False,
    ]
    assert largest_cluster(torch.tensor([[1.0]])).tolist() == [True]


@quick
@given(st.integers(2, 9), st.integers(0, 2**31), st.sampled_from([1e-18, 1e-22, 1e-25]))
def test_rows_so_short_that_their_squares_vanish_in_float32_are_told_apart(
    n: int, seed: int, scale: float
) -> None:
    values = (rows_of((n, 5), seed) * scale).float()
    found, expected = squared_distances(values) / scale**2, exact(values) / scale**2
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    values[0] = 1.0
    torch.testing.assert_close(
        squared_distances(values)[1:, 1:] / scale**2, expected[1:, 1:], rtol=1e-6, atol=1e-9
    )


@quick
@given(st.integers(3, 9), st.integers(0, 2**31), st.sampled_from([1e12, 3e18, 1e19, 1e25, 3e38]))
def test_products_that_are_handed_in_change_nothing_of_what_far_rows_do(
    n: int, seed: int, far: float
) -> None:
    values = rows_of((n, 5), seed).float()
    values[0] = far
    handed = centred_gram(values, inner_products(values))
    assert torch.isfinite(handed).all()
    lengths = handed.diagonal()
    apart = lengths[:, None] + lengths - 2 * handed
    torch.testing.assert_close(apart[1:, 1:], exact(values[1:]), rtol=2e-5, atol=1e-5)


@quick
@given(
    st.integers(3, 9),
    st.integers(0, 2**31),
    st.sampled_from([0.0, 1e-25, 1.0, 1e3, 1e19, 3e38, math.inf, math.nan]),
)
def test_a_distance_of_two_rows_alone_keeps_its_bits_whatever_a_third_row_is(
    n: int, seed: int, third: float
) -> None:
    values = (rows_of((n, 20), seed) * 1e-2 + 3).float()
    values[-1] = values[0]
    before = squared_distances(values, alone=True)
    values[1] = third
    after = squared_distances(values, alone=True)
    kept = torch.arange(n) != 1
    assert torch.equal(before[kept][:, kept], after[kept][:, kept])
