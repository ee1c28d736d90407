"""What is left to attacks and what groups have, against published figures, closed forms and the
accountant's own profile.
"""

import math
from dataclasses import replace
from statistics import NormalDist

import mpmath
import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from scipy.stats import binom

from privfl.core import Charge, DpEvent, Ledger, Sampling
from privfl.dp import Release, TradeOff, group_epsilon, risk_of, statement
from privfl.dp.accounting.pld import _total, pld_epsilon, pld_profile
from privfl.dp.accounting.profile import profile

VECTORS = [  # z, rate, steps; TPR at FPR .001, .01, .1; advantage (riskcal agrees to 1e-4)
    (1.0, 1.0, 1, (0.0183, 0.0924, 0.3891), 0.3829),
    (1.0, 0.1, 100, (0.0388, 0.1461, 0.4692), 0.4388),
    (1.0, 256 / 60_000, 3515, (0.0030, 0.0235, 0.1719), 0.1305),
]


@pytest.mark.parametrize(("z", "rate", "steps", "tpr", "advantage"), VECTORS)
def test_rates_and_advantage_of_the_best_attack_are_the_published_ones(
    z, rate, steps, tpr, advantage
):
    releases = {Release.gaussian(z, rate=rate): steps}
    curve, risk = TradeOff.of(releases), risk_of(releases)
    for fpr, most in zip((0.001, 0.01, 0.1), tpr, strict=True):
        assert curve.tpr(fpr) == pytest.approx(most, abs=1e-3)
    assert curve.advantage == pytest.approx(advantage, abs=1e-3)
    assert (risk.tpr_at_001, risk.tpr_at_01) == (curve.tpr(0.001), curve.tpr(0.01))
    assert risk.reconstruction == curve.tpr(risk.prior)


def test_a_gaussians_trade_off_is_the_closed_form():
    normal = NormalDist()
    curve = TradeOff.of({Release.gaussian(2.0): 1})
    for fpr in (1e-4, 0.01, 0.3, 0.9):
        exact = normal.cdf(normal.inv_cdf(fpr) + 0.5)
        assert exact - 1e-9 <= curve.tpr(fpr) <= exact + 1e-4


def test_no_test_does_better_by_what_renyi_dp_proves_than_by_the_loss_distribution():
    releases = {Release.gaussian(1.0, rate=0.1): 100}
    by_pld, by_rdp = (risk_of(releases, pld=known) for known in (True, False))
    assert by_pld.tpr_at_01 < by_rdp.tpr_at_01 <= 1
    assert by_pld.advantage < by_rdp.advantage <= 1
    unknown = Release("skellam", (("l1", 10.0), ("l2", 5.0), ("variance", 400.0)))
    assert 0.01 < risk_of({unknown: 10}).tpr_at_01 < 0.5


def test_a_profile_is_dp_accountings_own_at_negative_epsilons_too():
    releases = {Release.gaussian(1.0, rate=0.1): 30}
    theirs = pld.from_gaussian_mechanism(1.0, sampling_prob=0.1).self_compose(30)
    same = pld.PrivacyLossDistribution(*_total(tuple(releases.items())))
    for epsilon in (-3.0, -0.5, 0.0, 0.7, 2.0, 5.0):
        ours = pld_profile(releases, np.array([epsilon]))[0]
        assert ours == pytest.approx(same.get_delta_for_epsilon(epsilon), rel=1e-9, abs=1e-15)
        assert ours == pytest.approx(theirs.get_delta_for_epsilon(epsilon), rel=1e-9, abs=1e-14)


@pytest.mark.parametrize(("q", "z"), [(1.0, 2.0), (0.1, 1.0), (0.01, 0.5), (0.9, 3.0)])
def test_at_a_point_of_the_grid_the_divergence_is_that_of_forty_digits(q, z):
    def beyond(x, mean):
        return mpmath.ncdf((mean - x) / z)

    def exact(epsilon):
        """The larger direction of (1-q) N(0) + q N(1) against N(0)."""
        far = [mpmath.inf, mpmath.inf]  # where the ratio is exp(epsilon), and where exp(-epsilon)
        for i, odds in enumerate((mpmath.exp(epsilon), mpmath.exp(-epsilon))):
            inside = (odds - 1 + q) / q
            far[i] = z * z * mpmath.log(inside) + 0.5 if inside > 0 else -mpmath.inf
        there = (1 - q) * beyond(far[0], 0) + q * beyond(far[0], 1)
        there -= mpmath.exp(epsilon) * beyond(far[0], 0)
        back = 1 - beyond(far[1], 0)
        back -= mpmath.exp(epsilon) * (
            (1 - q) * (1 - beyond(far[1], 0)) + q * (1 - beyond(far[1], 1))
        )
        return float(max(there, back))

    for epsilon in (-2.0, -0.05, 0.0, 0.3, 1.2, 4.0):
        with mpmath.workdps(40):
            true = exact(mpmath.mpf(epsilon))
        ours = pld_profile({Release.gaussian(z, rate=q, scheme="poisson"): 1}, np.array([epsilon]))
        assert ours[0] == pytest.approx(true, rel=1e-9, abs=1e-15)


def test_what_renyi_dp_bounds_is_above_the_loss_distribution_everywhere():
    releases = {Release.gaussian(1.0, rate=0.1): 30}
    at = np.linspace(-5, 8, 40)
    grid = 1e-6  # a loss distribution on a grid is rounded up
    assert (profile(releases, at, pld=False) >= profile(releases, at) - grid).all()


@pytest.mark.parametrize("k", [2, 4])
def test_k_gaussian_neighbours_are_one_that_moves_k_times_as_far(k):
    group = group_epsilon({Release.gaussian(8.0): 4}, 1e-5, k)
    assert group == pytest.approx(pld_epsilon({Release.gaussian(4.0 / k): 1}, 1e-5), rel=1e-9)


def test_a_groups_bound_of_sampled_noise_is_above_what_the_group_really_has():
    releases = {Release.gaussian(4.0, rate=0.2): 50}
    for k in (1, 2, 3):  # so many of the k are drawn, each by a coin of its own
        drawn = binom.pmf(range(k + 1), k, 0.2)
        group = pld.from_mixture_gaussian_mechanism(
            4.0, list(range(k + 1)), list(drawn), value_discretization_interval=1e-3
        )  # a coarser grid shows more loss, never less
        really = group.self_compose(50).get_epsilon_for_delta(1e-5)
        bound = group_epsilon(releases, 1e-5, k)
        assert really <= bound * 1.0001
    assert group_epsilon(releases, 1e-5, 1) == pytest.approx(pld_epsilon(releases, 1e-5), rel=0.006)
    assert math.isinf(group_epsilon({Release.gaussian(0.0): 1}, 1e-5, 2))


HONEST = Charge(
    0,
    DpEvent("gaussian", {"noise_multiplier": 2.0}),
    Sampling("poisson", 0.1, 1000),
    unit="client",
    relation="add_remove",
    count=20,
)


def test_a_statement_says_what_would_change_it():
    ledger = Ledger((HONEST, replace(HONEST, round=1)))
    [line] = statement(ledger, 1e-5, ("root data",)).lines
    told = {one.what: one.epsilon for one in line.changes}
    assert told["as it is"] == line.rdp
    assert told["twice the noise"] < told["as it is"] / 1.8
    assert told["half the rounds"] < told["as it is"]
    assert told["an adversary that sees who is drawn"] > 4 * told["as it is"]
    assert line.claim.endswith("Against the server: none. Excluded: root data.")
    assert "client, add_remove, rounds 0..1" in line.claim
    assert list(line.groups) == [2, 5, 10]
    assert line.groups[2] > 2 * line.epsilon * 0.99
    plain = line.to_json()
    assert plain["risk"]["prior"] == 0.01
    assert plain["groups"]["10"] == "infinite" or plain["groups"]["10"] > plain["groups"]["2"]


def test_the_risk_is_that_of_whoever_is_worst_off_by_each_figure():
    """One client's samples have the larger epsilon at 1e-5, another's the larger advantage."""
    few, often = Release.gaussian(1.0, "all"), Release.gaussian(1.0, rate=0.2)

    def charge(client, sampling, count):
        event = DpEvent("gaussian", {"noise_multiplier": 1.0})
        subject = f"sample of client {client}"
        return Charge(0, event, sampling, "sample", "add_remove", subject=subject, count=count)

    seldom = charge(0, Sampling("all", 1.0, 32), 2)
    sampled = charge(1, Sampling("poisson", 0.2, 160), 20)
    [line] = statement(Ledger((seldom, sampled)), 1e-5).lines
    assert line.subject == "sample of client 1"
    curves = [TradeOff.of({few: 2}), TradeOff.of({often: 20})]
    assert line.risk.advantage == max(one.advantage for one in curves) == curves[0].advantage
    assert line.risk.tpr_at_01 == max(one.tpr(0.01) for one in curves)
    for k, together in line.groups.items():
        alone = [group_epsilon({few: 2}, 1e-5, k), group_epsilon({often: 20}, 1e-5, k)]
        assert together == max(alone)
