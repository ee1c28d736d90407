"""Mechanisms, clips and schedules: what they add is what their events say, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privfl.core import (
    BadUpdate,
    Bound,
    ConfigError,
    Mechanism,
    OsNoise,
    RingNoise,
    SeededNoise,
    Sensitivity,
)
from privfl.dp import (
    AdaptiveClip,
    Clip,
    ClipByLayer,
    Constant,
    Decaying,
    DiscreteGaussian,
    DistributedDiscreteGaussian,
    DistributedSkellam,
    Gaussian,
    Laplace,
    LocalGaussian,
    NoBound,
    Normalise,
    PerRound,
    RandomisedResponse,
    RdpAccount,
    Release,
    Scheduled,
    Skellam,
)
from privfl.dp.accounting.rdp import rdp_curve

CENTRAL = [Gaussian(1.0), Laplace(1.0), DiscreteGaussian(1.0), Skellam(1.0)]
RING = [DistributedSkellam(1.0), DistributedDiscreteGaussian(1.0)]


def priced(event, rate=1.0, count=1):
    release = Release(
        event.mechanism,
        tuple(sorted((k, float(v)) for k, v in event.parameters.items())),
        "poisson",
        rate,
    )
    return RdpAccount().plus(release, count).epsilon(1e-5)


@pytest.mark.parametrize(
    "mechanism",
    [*CENTRAL, LocalGaussian(1.0), RandomisedResponse(1.0)],
    ids=lambda m: type(m).__name__,
)
def test_every_mechanism_fills_its_seat_and_one_half_of_it_only(mechanism):
    assert isinstance(mechanism, Mechanism)
    vector, sensitivity = torch.zeros(4), Sensitivity(l2=0.5)
    shared, at_client = mechanism.share(vector, sensitivity, 10, OsNoise())
    released, at_server = mechanism.release(vector, sensitivity, 10, OsNoise())
    assert (at_client is None) != (at_server is None)
    assert torch.equal(shared if at_client is None else released, vector)
    assert (vector == 0).all()


def test_no_noise_multiplier_is_no_noise_and_an_infinite_price():
    vector, event = Gaussian(0.0).release(torch.ones(3), Sensitivity(1.0), 3, OsNoise())
    assert torch.equal(vector, torch.ones(3))
    assert priced(event) == math.inf


@pytest.mark.parametrize(
    "mechanism", [DiscreteGaussian(1.0), Skellam(1.0)], ids=lambda m: type(m).__name__
)
@pytest.mark.parametrize("d", [1, 1000])
def test_discrete_noise_costs_what_continuous_noise_does(mechanism, d):
    vector, event = mechanism.release(torch.zeros(d), Sensitivity(0.5), 3, SeededNoise(1))
    assert priced(event) == pytest.approx(
        priced(Gaussian(1.0).release(torch.zeros(1), Sensitivity(0.5), 1, OsNoise())[1]), rel=2e-2
    )
    # the whole output lies on the grid whose step the event implies
    steps = event.parameters["l2"]
    step = 0.5 / (steps - math.sqrt(d))
    whole = vector.double() / step
    assert (whole - whole.round()).abs().max() < 0.01 + 1e-6 * whole.abs().max()


def test_laplace_takes_the_smaller_of_two_bounds_on_its_sensitivity():
    wide = Laplace(1.0).release(
        torch.zeros(10_000, dtype=torch.float64), Sensitivity(l2=1.0), 1, SeededNoise(1)
    )[0]
    tight = Laplace(1.0).release(
        torch.zeros(10_000, dtype=torch.float64), Sensitivity(l2=1.0, l1=1.0), 1, SeededNoise(1)
    )[0]
    assert torch.allclose(wide, tight * 100)


def test_randomised_response_refuses_what_is_no_answer():
    for wrong in ([0.5], [2.0], [-1.0], [math.nan]):
        with pytest.raises(BadUpdate, match="whole numbers"):
            RandomisedResponse(1.0).share(torch.tensor(wrong), Sensitivity(1.0), 1, OsNoise())


def skellam_divergence(order, variance, shift):
    k = np.arange(-3000, 3001)
    p, q = (
        stats.skellam.logpmf(k - shift, variance / 2, variance / 2),
        stats.skellam.logpmf(k, variance / 2, variance / 2),
    )
    seen = np.isfinite(p) & np.isfinite(q)
    return np.log(np.exp(order * p[seen] + (1 - order) * q[seen]).sum()) / (order - 1)


@pytest.mark.parametrize("shift", [1, 3])
@pytest.mark.parametrize("variance", [4.0, 50.0, 900.0])
def test_the_skellam_bound_holds_and_is_near(variance, shift):
    release = Release(
        "skellam", (("l1", float(shift)), ("l2", float(shift)), ("variance", variance)), "all"
    )
    for order in (2, 4, 8):
        bound, exact = (
            rdp_curve(release, (float(order),))[0],
            skellam_divergence(order, variance, shift),
        )
        assert exact <= bound * (1 + 1e-9)
        assert bound < exact * 1.6 or variance < 10


def test_fewer_survivors_leave_less_noise_and_the_event_says_so():
    for mechanism in RING:
        assert isinstance(mechanism, RingNoise)
        planned, left = (
            mechanism.event(unit_l2=1000.0, d=64, among=80, survivors=n) for n in (80, 60)
        )
        assert left.parameters["variance"] == pytest.approx(
            planned.parameters["variance"] * 60 / 80
        )
        assert priced(left) > priced(planned)
        assert priced(mechanism.event(1000.0, 64, 80, 100)) < priced(planned)


def test_discrete_shares_that_are_too_small_are_charged_for_it():
    assert priced(DistributedDiscreteGaussian(1.0).event(1000.0, 64, 100, 100)) == pytest.approx(
        priced(Gaussian(1.0).release(torch.zeros(1), Sensitivity(1.0), 1, OsNoise())[1]), rel=1e-6
    )
    assert priced(DistributedDiscreteGaussian(1.0).event(2.0, 64, 100, 100)) > 50


def test_sampling_amplifies_discrete_noise_too():
    event = DistributedSkellam(1.0).event(1000.0, 64, 100, 100)
    assert priced(event, rate=0.01, count=10) < priced(event) / 3
    gaussian = Release.gaussian(1.0, rate=0.01)
    assert priced(event, rate=0.01, count=10) >= RdpAccount().plus(gaussian, 10).epsilon(1e-5)


@pytest.mark.parametrize("mechanism", RING, ids=lambda m: type(m).__name__)
def test_the_noise_stays_within_its_reach(mechanism):
    noise, zeros = SeededNoise(1), np.zeros(50_000, dtype=np.int64)
    total = sum(mechanism.add(zeros, 5.0, 4, noise) for _ in range(6))
    assert 4 * total.std() < abs(total).max() <= mechanism.reach(5.0, among=4, contributors=6)
    assert (zeros == 0).all()


# ---- bounds

vectors = st.lists(st.floats(-1e6, 1e6, width=32), min_size=6, max_size=6).map(
    lambda values: torch.tensor(values, dtype=torch.float32)
)


@settings(max_examples=60, deadline=None)
@given(vector=vectors, l2=st.floats(1e-3, 1e3))
def test_every_bound_bounds(vector, l2):
    for bound in (Clip(l2), Normalise(l2), ClipByLayer.evenly((1, 2, 3), l2)):
        assert isinstance(bound, Bound)
        assert bound.l2 == pytest.approx(l2)
        out = bound(vector)
        assert out.double().norm() <= l2 * (1 + 1e-6)
        assert not (vector == 0).all() or (out == 0).all()


def test_clipping_keeps_short_vectors_and_directions():
    short = torch.tensor([0.3, 0.4])
    assert torch.equal(Clip(1.0)(short), short)
    assert Normalise(1.0)(short).norm() > 0.95
    layers = ClipByLayer((1, 1), (1.0, 10.0))(torch.tensor([5.0, 5.0]))
    assert layers.tolist() == pytest.approx([1.0, 5.0], rel=1e-5)


@pytest.mark.parametrize(
    "bound",
    [Clip(1.0), Normalise(1.0), ClipByLayer((2,), (1.0,)), NoBound()],
    ids=lambda b: type(b).__name__,
)
def test_nan_passes_through_to_be_refused_by_name(bound):
    assert torch.isnan(bound(torch.tensor([math.nan, 1.0]))).any()
    assert torch.isinf(bound(torch.tensor([math.inf, 1.0]))).any()


def test_per_layer_bounds_must_fit():
    with pytest.raises(ConfigError, match="one bound a part"):
        ClipByLayer((1, 2), (1.0,))
    with pytest.raises(BadUpdate, match="covers 3 values"):
        ClipByLayer((1, 2), (1.0, 1.0))(torch.zeros(4))


def test_adaptive_clipping_finds_the_quantile_and_pays_for_looking():
    norms = np.random.default_rng(0).lognormal(1.0, 0.5, size=2000)
    adaptive = AdaptiveClip(denominator=200, count_noise=5.0, initial=0.1, quantile=0.7)
    l2, noise, rng = adaptive.init(), SeededNoise(0), np.random.default_rng(1)
    for _ in range(150):
        cohort = rng.choice(norms, 200)
        bits = torch.tensor([sum(adaptive.bit(float(n), l2) for n in cohort)])
        count, event = adaptive.counting(0.5).release(bits, Sensitivity(0.5), 200, noise)
        assert count != bits
        l2 = adaptive.step(l2, float(count))
    assert l2 == pytest.approx(np.quantile(norms, 0.7), rel=0.12)
    assert event.parameters == {"noise_multiplier": 10.0}
    assert adaptive.counting(1.0).event(1).parameters == {"noise_multiplier": 5.0}
    assert adaptive.bound(l2).l2 == l2


def test_update_and_count_together_cost_what_the_update_alone_would():
    adaptive = AdaptiveClip(denominator=100, count_noise=2.0)
    together = RdpAccount().plus(Release.gaussian(adaptive.split(1.0))).plus(Release.gaussian(4.0))
    assert together.epsilon(1e-5) == pytest.approx(
        RdpAccount().plus(Release.gaussian(1.0)).epsilon(1e-5)
    )
    with pytest.raises(ConfigError, match="cost more than the whole"):
        AdaptiveClip(denominator=100, count_noise=0.4).split(1.0)


def test_schedules_fall_as_the_paper_says():
    assert [Constant().factor(t) for t in (0, 99)] == [1.0, 1.0]
    assert Decaying("time", k=0.5).factor(2) == 0.5
    assert Decaying("exponential", k=0.1).factor(10) == pytest.approx(math.exp(-1))
    assert [
        Decaying("polynomial", k=2.0, period=10, end=0.4).factor(t) for t in (0, 10, 50)
    ] == pytest.approx([1.0, 0.4, 0.4])


def test_a_scheduled_run_spends_its_budget_and_never_more():
    plan = Scheduled.for_budget(
        Decaying("exponential", k=0.02), epsilon=4.0, delta=1e-5, sample_rate=0.1, rounds=60
    )
    account = RdpAccount()
    for t in range(60):
        account = account.plus(Release.gaussian(plan.at(t).noise_multiplier, rate=0.1))
    assert 3.99 < account.epsilon(1e-5) <= 4.0


def test_budgets_by_round_are_each_kept():
    schedule, z = PerRound.from_budgets([0.5, 1.0, 2.0], delta=1e-5, sample_rate=1.0)
    spent = [
        RdpAccount().plus(Release.gaussian(z * schedule.factor(t))).epsilon(1e-5) for t in range(3)
    ]
    assert spent == pytest.approx([0.5, 1.0, 2.0], rel=1e-3)
    with pytest.raises(ConfigError, match="has 3 rounds"):
        schedule.factor(3)
