"""Golden values of the accountants, and where libraries disagree."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.core import ConfigError
from privfl.dp import RdpAccount, Release, calibrate, epsilon
from privfl.dp.accounting import NoPld, gaussian_epsilon, pld_epsilon
from privfl.dp.accounting.epsilon import require_accountant
from privfl.dp.accounting.grid import joined, least_epsilon, repeated
from privfl.dp.accounting.pld import _gaussian
from privfl.dp.accounting.rdp import rdp_curve
from privfl.dp.accounting.sampled_gaussian import poisson, poisson_replace, without_replacement

MNIST = 256 / 60_000
ROWS = [  # q, sigma, T, delta, Opacus RDP, dp-accounting PLD
    (0.01, 1.1, 10_000, 1e-5, 5.6320, 5.1926),
    (1.0, 5.0, 10, 1e-5, 2.8137, 2.5944),
    (MNIST, 1.0, 3515, 1e-5, 1.5597, 1.3512),
    (0.1, 1.0, 100, 1e-5, 7.8993, 7.0466),
    (0.1, 20.0, 1000, 1e-6, 0.7031, 0.6505),
]
INTEGERS = np.array([2.0, 3, 4, 5, 8, 13, 21, 32, 47, 63, 64, 128, 256])


@pytest.mark.parametrize(("q", "sigma", "steps", "delta", "rdp", "pld"), ROWS)
def test_rdp_and_pld_give_the_published_figures(q, sigma, steps, delta, rdp, pld):
    plan = {"noise_multiplier": sigma, "sample_rate": q, "steps": steps, "delta": delta}
    assert epsilon(**plan) == pytest.approx(rdp, abs=6e-5)
    assert epsilon(**plan, accountant="pld") == pytest.approx(pld, abs=6e-5)
    assert epsilon(**plan, accountant="pld") <= epsilon(**plan)


@pytest.mark.parametrize(("q", "sigma", "steps", "delta", "rdp", "pld"), ROWS)
def test_pld_is_that_of_dp_accounting_itself(q, sigma, steps, delta, rdp, pld):
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant

    theirs = (
        PLDAccountant()
        .compose(PoissonSampledDpEvent(q, GaussianDpEvent(sigma)), steps)
        .get_epsilon(delta)
    )
    assert epsilon(
        noise_multiplier=sigma, sample_rate=q, steps=steps, delta=delta, accountant="pld"
    ) == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize(
    ("q", "sigma"),
    [(0.01, 1.1), (1.0, 5.0), (MNIST, 1.0), (0.1, 1.0), (0.1, 20.0), (0.5, 0.5), (0.3, 0.3)],
)
def test_integer_orders_are_those_of_opacus(q, sigma):
    from opacus.accountants.analysis.rdp import compute_rdp

    theirs = np.array(compute_rdp(q=q, noise_multiplier=sigma, steps=1, orders=list(INTEGERS)))
    assert np.abs(poisson(INTEGERS, q, sigma) - theirs).max() < 1e-9 * max(1.0, theirs.max())


@pytest.mark.parametrize("order", [1.1, 1.5, 2.5, 7.3, 10.9])
@pytest.mark.parametrize(
    ("q", "sigma"), [(0.01, 1.1), (0.1, 1.0), (MNIST, 1.0), (0.3, 0.4), (1e-4, 10.0)]
)
def test_fractional_orders_are_those_of_thirty_digit_quadrature(order, q, sigma):
    with mpmath.workdps(30):
        s, a, rate = mpmath.mpf(sigma), mpmath.mpf(order), mpmath.mpf(q)
        twice, peak = 2 * s**2, 1 / (s * mpmath.sqrt(2 * mpmath.pi))

        def integrand(x):
            density = peak * mpmath.exp(-x * x / twice)
            return density * ((1 - rate) + rate * mpmath.exp((2 * x - 1) / twice)) ** a

        points = [-40 * s, *(i * s for i in range(-12, int(order / sigma) + 13, 3)), order + 40 * s]
        exact = mpmath.log(mpmath.quad(integrand, points)) / (a - 1)
    ours = poisson(np.array([order]), q, sigma)[0]
    assert abs(ours - exact) < 1e-6 * exact


@pytest.mark.parametrize("order", [1.5, 2.0, 8.0])
@pytest.mark.parametrize(("q", "sigma"), [(0.1, 0.5), (MNIST, 0.5), (0.1, 2.0)])
def test_replace_one_is_the_divergence_between_opposite_mixtures(order, q, sigma):
    with mpmath.workdps(25):
        a, half, rate, s = mpmath.mpf(order), mpmath.mpf("0.5"), mpmath.mpf(q), mpmath.mpf(sigma)
        twice, peak = 2 * s**2, 1 / (s * mpmath.sqrt(2 * mpmath.pi))

        def mixture(x, centre):
            there = mpmath.exp(-((x - centre) ** 2) / twice)
            return peak * ((1 - rate) * mpmath.exp(-x * x / twice) + rate * there)

        points = [-order - 30, *range(int(-order - 8), int(order + 9)), order + 30]
        exact = mpmath.log(
            mpmath.quad(lambda x: mixture(x, half) ** a * mixture(x, -half) ** (1 - a), points)
        ) / (a - 1)
    assert abs(poisson_replace(np.array([order]), q, sigma)[0] - exact) < 1e-9 * exact


def test_sampling_without_replacement_is_the_bound_of_wang_balle_and_kasiviswanathan():
    from dp_accounting import GaussianDpEvent, NeighboringRelation, SampledWithoutReplacementDpEvent
    from dp_accounting.rdp import RdpAccountant

    orders = [2.0, 3.0, 4.5, 8.0, 17.0, 33.0, 64.0]
    theirs = RdpAccountant(orders, NeighboringRelation.REPLACE_ONE)
    theirs.compose(SampledWithoutReplacementDpEvent(60_000, 256, GaussianDpEvent(1.0)))
    assert without_replacement(np.array(orders), MNIST, 1.0) == pytest.approx(theirs.rdp, rel=1e-9)


def test_one_plan_under_every_sampler():
    def mnist(sigma, accountant, **how):
        return epsilon(
            noise_multiplier=sigma,
            sample_rate=MNIST,
            steps=3515,
            delta=1e-5,
            accountant=accountant,
            **how,
        )

    assert mnist(1.0, "pld") == pytest.approx(1.3512, abs=1e-3)
    assert mnist(1.0, "pld", relation="replace_one") == pytest.approx(2.2063, abs=1e-3)
    assert mnist(2.0, "rdp", relation="replace_one", sampler="fixed_size") == pytest.approx(
        2.7033, abs=1e-3
    )  # sigma / 2C = 1
    assert mnist(1.0, "pld", sampler="shuffled") == pytest.approx(23.346, abs=1e-2)
    assert mnist(1.0, "pld", relation="zero_out") == mnist(1.0, "pld")
    with pytest.raises(ConfigError, match="fixed-size"):
        mnist(1.0, "rdp", sampler="fixed_size")


def test_every_relation_means_the_same_noise_on_a_full_batch():
    plan = {"sample_rate": 1.0, "steps": 3, "delta": 1e-5, "sampler": "all"}
    for accountant in ("rdp", "pld"):
        twice = epsilon(noise_multiplier=8.0, relation="replace_one", accountant=accountant, **plan)
        assert twice == pytest.approx(
            epsilon(noise_multiplier=4.0, accountant=accountant, **plan), abs=1e-3
        )


def test_a_fixed_size_sample_costs_more_than_its_one_sided_pair_and_less_than_its_rdp_bound():
    releases = {Release.gaussian(1.0, "fixed_size", MNIST, "replace_one"): 3515}
    tight = pld_epsilon(releases, 1e-5)
    account = RdpAccount().plus(*next(iter(releases.items())))
    assert 1.3512 < tight < account.epsilon(1e-5)


def test_one_fixed_size_release_is_amplified_exactly():
    one = pld_epsilon({Release.gaussian(1.0, "fixed_size", 0.1, "replace_one"): 1}, 1e-5)
    assert one == pytest.approx(math.log1p(0.1 * math.expm1(gaussian_epsilon(1.0, 1e-4))), abs=1e-3)


def test_the_conversion_of_2016_brings_the_literature_back():
    def old(sigma, q, steps):
        return epsilon(
            noise_multiplier=sigma, sample_rate=q, steps=steps, delta=1e-5, accountant="moments"
        )

    assert old(4.0, 0.01, 10_000) == pytest.approx(1.2586, abs=1e-4)
    assert old(1.1, MNIST, 60 * 60_000 // 256) == pytest.approx(3.0083, abs=1e-4)
    assert old(0.7, MNIST, 45 * 60_000 // 256) == pytest.approx(7.1003, abs=1e-4)


def test_an_optimum_beyond_the_usual_orders_is_found():
    far = epsilon(noise_multiplier=100.0, sample_rate=0.01, steps=10, delta=1e-5)
    assert 0.0005 < far < 0.001  # a grid that stops at 63 says 0.1029


def test_a_hidden_cohort_is_cheap_and_a_visible_one_is_not():
    def client_level(joins):
        return epsilon(
            noise_multiplier=1.0,
            sample_rate=1.0,
            steps=joins,
            delta=1e-5,
            sampler="all",
            accountant="pld",
        )

    assert client_level(10) == pytest.approx(17.9, abs=0.1)
    assert client_level(100) == pytest.approx(91.8, abs=0.3)


def test_local_steps_and_weights_cost_what_the_research_page_says():
    plan = {"sample_rate": 32 / 600, "delta": 1e-5, "accountant": "pld"}
    assert epsilon(noise_multiplier=1.0, steps=100, **plan) == pytest.approx(3.74, abs=0.02)
    assert epsilon(noise_multiplier=1.0, steps=2000, **plan) == pytest.approx(17.84, abs=0.05)
    heavy = epsilon(noise_multiplier=0.5, sample_rate=0.1, steps=100, delta=1e-5, accountant="pld")
    assert heavy == pytest.approx(31.4, abs=0.2)


@pytest.mark.parametrize("accountant", ["rdp", "pld", "moments", "zcdp", "basic", "advanced"])
def test_no_noise_is_an_infinite_epsilon(accountant):
    assert (
        epsilon(noise_multiplier=0.0, sample_rate=0.1, steps=1, delta=1e-5, accountant=accountant)
        == math.inf
    )


def test_no_steps_cost_nothing():
    assert epsilon(noise_multiplier=1.0, sample_rate=0.1, steps=0, delta=1e-5) == 0.0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"noise_multiplier": -1.0}, "noise_multiplier"),
        ({"noise_multiplier": math.nan}, "noise_multiplier"),
        ({"sample_rate": 0.0}, "sample_rate"),
        ({"sample_rate": 1.5}, "sample_rate"),
        ({"delta": 0.0}, "delta"),
        ({"delta": 1.0}, "delta"),
        ({"steps": -1}, "steps"),
    ],
)
def test_impossible_questions_are_refused_in_words(change, word):
    plan = {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 1, "delta": 1e-5} | change
    with pytest.raises(ConfigError, match=word):
        epsilon(**plan)


@pytest.mark.parametrize(("name", "word"), [("gdp", "understates"), ("prd", "did you mean")])
def test_accountants_that_are_not_offered_are_refused_in_words(name, word):
    with pytest.raises(ConfigError, match=word):
        require_accountant(name)


@settings(max_examples=30, deadline=None)
@given(target=st.floats(0.2, 20), q=st.floats(0.001, 1), steps=st.integers(1, 3000))
def test_calibrated_noise_spends_the_budget_and_never_more(target, q, steps):
    z = calibrate(epsilon=target, delta=1e-5, sample_rate=q, steps=steps)
    spent = epsilon(noise_multiplier=z, sample_rate=q, steps=steps, delta=1e-5)
    assert spent <= target
    assert epsilon(noise_multiplier=z * 0.998, sample_rate=q, steps=steps, delta=1e-5) > target


@pytest.mark.parametrize(("z", "steps"), [(20.0, 10_000), (50.0, 100_000), (200.0, 100_000)])
def test_long_compositions_never_claim_less_than_the_exact_gaussian(z, steps):
    one = _gaussian(1.0, z)._pmf_remove
    together, exact = repeated(one, steps), z / math.sqrt(steps)
    for delta in (1e-5, 1e-8, 1e-10, 1e-11, 1e-12, 1e-13):
        assert least_epsilon(together, delta) >= gaussian_epsilon(exact, delta) * (1 - 1e-9)
    assert least_epsilon(together, 1e-6) <= gaussian_epsilon(exact, 1e-6) * 1.001


def test_joined_compositions_never_claim_less_than_the_exact_gaussian():
    one = repeated(_gaussian(1.0, 20.0)._pmf_remove, 5_000)
    together, exact = joined(one, one), 20.0 / math.sqrt(10_000)
    for delta in (1e-5, 1e-8, 1e-10, 1e-11, 1e-12, 1e-13):
        assert least_epsilon(together, delta) >= gaussian_epsilon(exact, delta) * (1 - 1e-9)


def test_pld_asks_for_less_noise_than_rdp():
    plan = {"epsilon": 1.0, "delta": 1e-5, "sample_rate": 0.01, "steps": 500}
    by_pld = calibrate(**plan, accountant="pld")
    assert by_pld < calibrate(**plan)
    spent = epsilon(
        noise_multiplier=by_pld, sample_rate=0.01, steps=500, delta=1e-5, accountant="pld"
    )
    assert 0.99 < spent <= 1.0


def test_calibration_by_pld_spends_its_budget_where_rdp_is_far_from_it():
    plan = {"delta": 1e-9, "sample_rate": 1e-6, "steps": 10_000, "accountant": "pld"}
    z = calibrate(epsilon=0.1, **plan)
    assert 0.098 < epsilon(noise_multiplier=z, **plan) <= 0.1


def test_a_schedule_is_calibrated_as_a_whole():
    factors = [0.99**t for t in range(100)]
    z = calibrate(epsilon=8.0, delta=1e-5, sample_rate=0.1, steps=100, schedule=factors)
    account = RdpAccount()
    for factor in factors:
        account = account.plus(Release.gaussian(z * factor, rate=0.1))
    assert 7.98 < account.epsilon(1e-5) <= 8.0
    with pytest.raises(ConfigError, match="one factor a step"):
        calibrate(epsilon=8.0, delta=1e-5, sample_rate=0.1, steps=3, schedule=[1.0])


@settings(max_examples=25, deadline=None)
@given(
    q=st.floats(1e-4, 1),
    sigma=st.floats(0.3, 30),
    steps=st.integers(1, 500),
    accountant=st.sampled_from(["rdp", "moments", "zcdp", "basic"]),
)
def test_more_noise_costs_less_and_more_steps_cost_more(q, sigma, steps, accountant):
    plan = {"sample_rate": q, "delta": 1e-6, "accountant": accountant}
    spent = epsilon(noise_multiplier=sigma, steps=steps, **plan)
    assert epsilon(noise_multiplier=sigma * 1.2, steps=steps, **plan) <= spent
    assert epsilon(noise_multiplier=sigma, steps=steps + 1, **plan) >= spent


def laplace(scale, **how):
    return Release("laplace", (("scale", scale),), **how)


def test_laplace_is_what_dp_accounting_says_sampled_or_not():
    from dp_accounting import LaplaceDpEvent
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    orders = [1.5, 2.0, 10.0, 64.0]
    theirs = RdpAccountant(orders).compose(LaplaceDpEvent(2.0))
    assert rdp_curve(laplace(2.0), tuple(orders)) == pytest.approx(theirs.rdp, rel=1e-9)
    tight = PLDAccountant().compose(LaplaceDpEvent(2.0), 5).get_epsilon(1e-5)
    assert pld_epsilon({laplace(2.0): 5}, 1e-5) == pytest.approx(tight, abs=1e-9)


def test_sampled_laplace_is_its_divergence_at_integer_orders():
    q, scale, order = 0.1, 1.5, 4
    x = np.linspace(-60, 60, 2_000_001)
    p = np.exp(-np.abs(x - 1) / scale) / (2 * scale)
    base = np.exp(-np.abs(x) / scale) / (2 * scale)
    mixture = (1 - q) * base + q * p
    both = [
        np.log(np.trapezoid(a**order * b ** (1 - order), x)) / (order - 1)
        for a, b in ((mixture, base), (base, mixture))
    ]
    assert rdp_curve(laplace(scale, rate=q), (4.0,))[0] == pytest.approx(max(both), rel=1e-6)


def test_randomised_response_is_what_dp_accounting_says():
    from dp_accounting import NeighboringRelation, RandomizedResponseDpEvent
    from dp_accounting.rdp import RdpAccountant

    orders, k, eps = [1.5, 2.0, 10.0], 4, 1.3
    theirs = RdpAccountant(orders, NeighboringRelation.REPLACE_ONE)
    theirs.compose(RandomizedResponseDpEvent(k / (math.exp(eps) + k - 1), k))
    release = Release(
        "randomised_response",
        (("count", 1.0), ("epsilon", eps), ("k", 4.0)),
        "all",
        1.0,
        "replace_one",
    )
    assert rdp_curve(release, tuple(orders)) == pytest.approx(theirs.rdp, rel=1e-9)
    assert pld_epsilon({release: 1}, 1e-9) == pytest.approx(eps, abs=1e-3)


def test_what_has_no_loss_distribution_says_so():
    skellam = Release("skellam", (("l1", 10.0), ("l2", 5.0), ("variance", 400.0)), "all", 1.0)
    with pytest.raises(NoPld, match="RDP figure is the claim"):
        pld_epsilon({skellam: 1}, 1e-5)
