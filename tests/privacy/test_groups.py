"""What k contributions of one person cost under Poisson sampling, against integrals, against
another library, against random gradients.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as dp_accounting_pld
from scipy.special import logsumexp
from scipy.stats import binom, norm

from privfl.core import Charge, DpEvent, Ledger, Sampling
from privfl.dp import Release, spend
from privfl.dp.accounting import mixture, sampled_gaussian
from privfl.dp.accounting.pld import pld_epsilon, pld_profile

DELTA = 1e-4
CASES = [(2, 0.1, 1.0), (5, 0.3, 2.0), (20, 0.02, 1.5), (8, 0.5, 6.0), (3, 0.9, 4.0)]


def densities(k, q, z, points=400_001):
    """P, the mixture, and N(0, z^2) on a fine grid, and its step."""
    x, step = np.linspace(-14 * z, 6 * k + 14 * z, points, retstep=True)
    p = sum(w * norm.pdf(x, j, z) for j, w in enumerate(binom.pmf(np.arange(k + 1), k, q)))
    return p, norm.pdf(x, 0, z), step


@pytest.mark.parametrize(("k", "q", "z"), CASES)
def test_the_profile_of_a_group_is_the_integral_of_the_hockey_stick(k, q, z):
    p, n, step = densities(k, q, z)
    epsilons = np.array([-1.0, 0.0, 0.1, 0.5, 1.0, 2.0, 4.0])
    ours = pld_profile({Release.gaussian(z, rate=q, group=k): 1}, epsilons)
    for epsilon, delta in zip(epsilons, ours, strict=True):
        sticks = [np.maximum(a - np.exp(epsilon) * b, 0).sum() * step for a, b in ((p, n), (n, p))]
        assert max(sticks) - 1e-8 <= delta <= max(sticks) + 1e-6 + 1e-3 * max(sticks)


@pytest.mark.parametrize(("k", "q", "z"), CASES)
def test_renyi_dp_of_a_group_is_the_integral_in_both_directions(k, q, z):
    x, step = np.linspace(-14 * z, 6 * k + 14 * z, 100_001, retstep=True)
    heads = [norm.logpdf(x, j, z) + binom.logpmf(j, k, q) for j in range(k + 1)]
    p, n = logsumexp(heads, axis=0), norm.logpdf(x, 0, z)
    for order in (1.5, 2.0, 3.0, 6.0):
        ways = [logsumexp(order * a + (1 - order) * b) for a, b in ((p, n), (n, p))]
        exact = (max(ways) + math.log(step)) / (order - 1)
        ours = mixture.rdp(np.array([order]), q, z, k)[0]
        assert ours == pytest.approx(exact, rel=1e-6, abs=1e-9)


def test_a_group_of_one_is_the_sampled_gaussian():
    orders = np.array([1.3, 2.0, 7.0, 40.0])
    for q, z in ((0.01, 1.0), (0.3, 4.0)):
        one = mixture.rdp(orders, q, z, 1)
        assert one == pytest.approx(sampled_gaussian.poisson(orders, q, z), rel=1e-6)
        both = dp_accounting_pld.PrivacyLossDistribution(*mixture.loss_distributions(q, z, 1, 1e-4))
        theirs = dp_accounting_pld.from_gaussian_mechanism(z, sampling_prob=q)
        for steps in (1, 50):
            mine = both.self_compose(steps).get_epsilon_for_delta(1e-5)
            other = theirs.self_compose(steps).get_epsilon_for_delta(1e-5)
            assert mine == pytest.approx(other, abs=1e-6)


@pytest.mark.parametrize(("k", "q", "z", "steps"), [(3, 0.1, 2.0, 50), (8, 0.25, 8.0, 200)])
def test_composed_groups_cost_what_dp_accountings_mixture_says(k, q, z, steps):
    theirs = dp_accounting_pld.from_mixture_gaussian_mechanism(
        z, np.arange(k + 1.0), binom.pmf(np.arange(k + 1), k, q), value_discretization_interval=2e-3
    ).self_compose(steps)
    ours = pld_epsilon({Release.gaussian(z, rate=q, group=k): steps}, 1e-5)
    assert ours == pytest.approx(theirs.get_epsilon_for_delta(1e-5), abs=5e-3)


def test_two_steps_of_a_group_are_never_under_the_true_integral():
    k, q, z, delta = 3, 0.3, 2.0, 1e-3
    x, step = np.linspace(-8 * z, k + 8 * z, 1501, retstep=True)
    p = sum(w * norm.pdf(x, j, z) for j, w in enumerate(binom.pmf(np.arange(k + 1), k, q)))
    pair, alone = np.outer(p, p) * step**2, np.outer(*[norm.pdf(x, 0, z)] * 2) * step**2
    ours = pld_epsilon({Release.gaussian(z, rate=q, group=k): 2}, delta)
    at = [np.maximum(pair - np.exp(e) * alone, 0).sum() for e in (ours - 1e-3, ours)]
    assert at[1] <= delta * (1 + 1e-4)
    assert at[0] >= delta * (1 - 1e-4)


def test_no_other_gradients_of_a_group_lie_farther_apart_than_equal_ones():
    k, q, z, rng = 3, 0.4, 1.0, np.random.default_rng(0)
    x = np.linspace(-8, 11, 301)
    grid, cell = np.stack(np.meshgrid(x, x, indexing="ij"), -1), (x[1] - x[0]) ** 2
    n = np.exp(-(grid**2).sum(-1) / 2) / (2 * np.pi)
    most = pld_profile({Release.gaussian(z, rate=q, group=k): 1}, np.array([0.3, 1.0, 2.0]))
    for _ in range(12):
        rows = rng.normal(size=(k, 2))
        rows *= (rng.random((k, 1)) ** 0.2) / np.linalg.norm(rows, axis=1, keepdims=True)
        p = np.zeros_like(n)
        for subset in range(2**k):
            drawn = [i for i in range(k) if subset >> i & 1]
            weight = q ** len(drawn) * (1 - q) ** (k - len(drawn))
            p += weight * np.exp(-((grid - rows[drawn].sum(0)) ** 2).sum(-1) / 2) / (2 * np.pi)
        for epsilon, allowed in zip((0.3, 1.0, 2.0), most, strict=True):
            sticks = [np.maximum(a - np.exp(epsilon) * b, 0).sum() for a, b in ((p, n), (n, p))]
            assert max(sticks) * cell <= allowed * (1 + 1e-3)


def test_without_sampling_a_group_moves_so_many_times_as_far():
    assert Release.gaussian(6.0, "all", 1.0, group=3) == Release.gaussian(2.0, "all", 1.0)
    event = DpEvent("skellam", {"l1": 10.0, "l2": 5.0, "variance": 400.0})
    charge = Charge(0, event, Sampling("all", 1.0, 100, group=3), "user", "zero_out", "user")
    assert dict(Release.of(charge).parameters)["l2"] == 15.0
    drawn = replace(charge, event=DpEvent("gaussian", {"noise_multiplier": 6.0}))
    for sampling, relation in (
        (Sampling("fixed_size", 0.1, 100, group=3), "replace_one"),
        (Sampling("poisson", 0.1, 100, group=3), "replace_one"),
    ):
        one = Release.of(replace(drawn, sampling=sampling, relation=relation))
        assert not one.amplified
        assert one.z == 2.0
    seen = replace(drawn, sampling=Sampling("poisson", 0.1, 100, group=3), cohort_hidden=False)
    assert Release.of(seen).z == 2.0
    laplace = replace(charge, event=DpEvent("laplace", {"scale": 1.0}))
    assert "noise_multiplier" in spend(Ledger((laplace,)), DELTA)[0].refused
