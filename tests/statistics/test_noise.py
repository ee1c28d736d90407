"""Noise has the deviation that it is accounted for: the right one is accepted, two thirds and three
halves of it are rejected.

Every draw is from a seeded source. A right sigma is accepted but for chances under 1e-6 over seeds:
the bands are seven deviations wide.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from privfl.core import FlatModel, SeededNoise, Sensitivity
from privfl.dp import (
    AdaptiveClip,
    DiscreteGaussian,
    DistributedDiscreteGaussian,
    DistributedSkellam,
    DPGradient,
    Gaussian,
    Laplace,
    LocalGaussian,
    RandomisedResponse,
    Skellam,
)
from privfl.dp.integers import discrete_gaussian, poisson, skellam
from privfl.dp.noise import normals, uniforms

N = 20_000
L2 = 0.5


def deviates(samples, sigma):
    """Whether the variance is off by more than seven of its own deviations under the law's kurtosis
    (at most 6, Laplace's).
    """
    ratio = samples.var() / sigma**2
    return abs(ratio - 1) > 7 * math.sqrt(5 / len(samples))


def released(mechanism):
    vector, _ = mechanism.release(
        torch.zeros(N, dtype=torch.float64), Sensitivity(l2=L2, l1=L2), 10, SeededNoise(3)
    )
    return vector.numpy()


def shared(mechanism):
    return mechanism.share(
        torch.zeros(N, dtype=torch.float64), Sensitivity(l2=L2), 10, SeededNoise(3)
    )[0].numpy()


def summed(mechanism):
    noise = SeededNoise(3)
    return sum(mechanism.add(np.zeros(N, dtype=np.int64), 300.0, 8, noise) for _ in range(8)) * (
        L2 / 300.0
    )


def stepped(factor):
    model = FlatModel(nn.Linear(199, 100))
    gradient = DPGradient(l2=L2, noise_multiplier=1.3 * factor, batch_size=4, noise=SeededNoise(3))
    gradient(model, lambda module, x, y: module(x).mean(), torch.zeros(0, 199), torch.zeros(0))
    return model.grad.double().numpy() * 4


def counted(factor):
    adaptive = AdaptiveClip(denominator=1.0, count_noise=1.3 * L2 * factor, rate=1.0)
    noise = SeededNoise(3)
    mechanism, nothing = adaptive.counting(0.5), torch.zeros(1)
    counts = [
        mechanism.release(nothing, Sensitivity(0.5), 9, noise)[0].item() for _ in range(N // 10)
    ]
    return np.array([-math.log(adaptive.step(1.0, count)) for count in counts])


DRAWS = {
    "Gaussian": lambda factor: released(Gaussian(1.3 * factor)),
    "LocalGaussian": lambda factor: shared(LocalGaussian(1.3 * factor)),
    "Laplace": lambda factor: released(Laplace(math.sqrt(2) / (1.3 * factor))),
    "DiscreteGaussian": lambda factor: released(DiscreteGaussian(1.3 * factor)),
    "Skellam": lambda factor: released(Skellam(1.3 * factor)),
    "DistributedSkellam": lambda factor: summed(DistributedSkellam(1.3 * factor)),
    "DistributedDiscreteGaussian": lambda factor: summed(DistributedDiscreteGaussian(1.3 * factor)),
    "DPGradient": stepped,
    "AdaptiveClip's count": counted,
}


@pytest.mark.parametrize("name", sorted(DRAWS))
def test_the_right_deviation_is_accepted_and_wrong_ones_are_rejected(name):
    right = 1.3 * L2
    assert not deviates(
        DRAWS[name](1.0), right * (1.035 if name in ("DiscreteGaussian", "Skellam") else 1.0)
    ), "the right sigma"
    assert deviates(DRAWS[name](2 / 3), right), "two thirds of it"
    assert deviates(DRAWS[name](3 / 2), right), "three halves of it"


@pytest.mark.parametrize("name", sorted(DRAWS))
def test_noise_is_centred_and_independent_from_entry_to_entry(name):
    drawn = DRAWS[name](1.0)
    n, half = len(drawn), len(drawn) // 2
    assert abs(drawn.mean()) < 6 * drawn.std() / math.sqrt(n)
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 6 / math.sqrt(n)
    assert abs(np.corrcoef(drawn[:half], drawn[half : 2 * half])[0, 1]) < 6 / math.sqrt(half)


def accepts(samples, law):
    return stats.kstest(samples, law).pvalue > 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 7, 511, 65_536, 65_537, 150_001])
def test_normals_are_normal_at_every_length(n, dtype):
    drawn = normals(n, SeededNoise(n), dtype)
    assert drawn.shape == (n,)
    assert drawn.dtype == dtype
    assert torch.isfinite(drawn).all()
    if n > 100:
        assert accepts(drawn.double().numpy(), stats.norm.cdf)
    if n > 1000:
        assert not accepts(drawn.double().numpy() * 2 / 3, stats.norm.cdf)


def test_tails_of_normals_are_as_heavy_as_they_must_be():
    drawn = normals(4_000_000, SeededNoise(1)).abs()
    for beyond in (3.0, 4.0, 4.8):
        expected = 4_000_000 * 2 * stats.norm.sf(beyond)
        assert abs(int((drawn > beyond).sum()) - expected) < 6 * math.sqrt(expected) + 3


class Chosen:
    """A noise source that says what it is told to."""

    repeatable = True

    def __init__(self, *parts):
        self.parts = list(parts)

    def random_bytes(self, n):
        part = self.parts.pop(0)
        assert len(part) == n
        return part

    def at(self, round):
        return self


def test_the_smallest_uniform_number_still_makes_a_finite_radius():
    least = (-(2**31)).to_bytes(4, "little", signed=True) + (0).to_bytes(4, "little")
    [first, second] = normals(2, Chosen(least, bytes(8))).tolist()
    assert 10 < first < 11
    assert second == 0.0


def test_uniforms_are_never_zero_and_reach_one():
    assert uniforms(1, Chosen(bytes(8)))[0] > 0
    assert uniforms(1, Chosen(b"\xff" * 8))[0] == 1.0


@pytest.mark.parametrize("rate", [0.05, 1.0, 7.5, 300.0, 40_000.5])
def test_poisson_draws_are_poisson(rate):
    assert chi_square(poisson(N, rate, SeededNoise(5)), stats.poisson(rate)) > 1e-7
    assert chi_square(poisson(N, rate * 1.5, SeededNoise(5)), stats.poisson(rate)) < 1e-7


@pytest.mark.parametrize("variance", [0.3, 2.0, 500.0])
def test_skellam_draws_are_skellam(variance):
    law = stats.skellam(variance / 2, variance / 2)
    assert chi_square(skellam(N, variance, SeededNoise(6)), law) > 1e-7
    assert chi_square(skellam(N, variance * 4 / 9, SeededNoise(6)), law) < 1e-7


class DiscreteNormal:
    def __init__(self, variance):
        self.k = np.arange(-400, 401)
        weights = np.exp(-(self.k**2) / (2 * variance))
        self.p = weights / weights.sum()

    def pmf(self, k):
        return np.interp(k, self.k, self.p)


@pytest.mark.parametrize("variance", [0.2, 1.0, 30.0, 900.0])
def test_discrete_gaussian_draws_are_discrete_gaussian(variance):
    assert (
        chi_square(discrete_gaussian(N, variance, SeededNoise(7)), DiscreteNormal(variance)) > 1e-7
    )
    assert (
        chi_square(discrete_gaussian(N, variance * 9 / 4, SeededNoise(7)), DiscreteNormal(variance))
        < 1e-7
    )


def chi_square(drawn, law):
    """The p-value of counts against a law, in up to 40 bins of at least 20 expected draws each."""
    margin = 10 + int(abs(drawn.mean()) + 12 * drawn.std())
    values = np.arange(drawn.min() - margin, drawn.max() + margin)
    expected = law.pmf(values) * len(drawn)
    counts = np.bincount(drawn - values[0], minlength=len(values))
    edges, reached = [], 0.0
    size = max(20.0, len(drawn) / 40)
    for i, e in enumerate(expected):
        reached += e
        if reached >= size:
            edges.append(i + 1)
            reached = 0.0
    observed = np.array([part.sum() for part in np.split(counts, edges[:-1])])
    right = np.array([part.sum() for part in np.split(expected, edges[:-1])])
    right[-1] += len(drawn) - right.sum()
    return stats.chisquare(observed, right).pvalue


def test_a_draw_that_ties_with_a_threshold_is_settled_by_more_bits():
    from privfl.dp.integers import _draw

    table = (
        10,
        np.array([5, 5, 2**64 - 1], dtype=np.uint64),
        np.array([100, 200, 2**64 - 1], dtype=np.uint64),
    )
    five = (5).to_bytes(8, "little")
    for more, value in ((99, 10), (100, 11), (199, 11), (200, 12)):
        assert _draw(1, table, Chosen(five, more.to_bytes(8, "little")))[0] == value
    assert _draw(1, table, Chosen((4).to_bytes(8, "little")))[0] == 10
    assert _draw(1, table, Chosen((6).to_bytes(8, "little")))[0] == 12


@pytest.mark.parametrize(("epsilon", "k"), [(1.0, 2), (2.0, 5), (0.5, 10)])
def test_randomised_response_lies_as_often_as_it_says(epsilon, k):
    mechanism = RandomisedResponse(epsilon, k)
    told, event = mechanism.share(torch.full((N,), 1.0), Sensitivity(1.0), 1, SeededNoise(2))
    counts = torch.bincount(told.long(), minlength=k).double()
    truth = math.exp(epsilon) / (math.exp(epsilon) + k - 1)
    assert mechanism.truth == pytest.approx(truth)
    assert abs(counts[1] / N - truth) < 6 * math.sqrt(truth * (1 - truth) / N)
    for wrong in (epsilon * 2 / 3, epsilon * 3 / 2):
        other = replace(mechanism, epsilon=wrong).truth
        assert abs(counts[1] / N - other) > 6 * math.sqrt(other * (1 - other) / N)
    others = torch.cat([counts[:1], counts[2:]])
    assert (others - others.mean()).abs().max() < 6 * math.sqrt(N * (1 - truth) / (k - 1))
    assert event.parameters == {"epsilon": epsilon, "k": k, "count": N}
    estimate = mechanism.estimate(counts)
    assert estimate[1] == pytest.approx(N, rel=0.1)
