"""Honest runs raise no alarm, and the tests say no more than they know."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom

from benchmarks.dp_lies import BASE, CONV, HALF, HONEST, SGD, run
from privfl.audit import Settings, audit_claims
from privfl.audit.dp import NeighbourWorld, Stage, Tape, Test, TestResult, holm
from privfl.audit.dp.privacy_loss import Pair, loss_tests, pair_of
from privfl.audit.dp.replay import inclusion_tests
from privfl.audit.dp.residual import drift_test, mean_test, repeat_test, variance_test
from privfl.core import Charge, DpEvent, Ledger, Sampling
from privfl.dp import epsilon, spend
from privfl.dp.accounting import Release

QUICK = Settings(canaries=0, pairs=4, climb=1, values=4_000, inclusions=600)


@pytest.mark.parametrize(
    "name",
    [
        *HONEST,
        "DP-SGD",
        pytest.param("DP-SGD through convolutions", marks=pytest.mark.needs("fashion_mnist")),
    ],
)
def test_an_honest_run_is_not_refuted(name):
    changes = {**HONEST, "DP-SGD": SGD, "DP-SGD through convolutions": CONV}[name]
    with run(**changes) as federation:
        (claim,) = audit_claims(federation, settings=QUICK)
    assert claim.verdict == "not refuted", claim.alarms
    names = {finding.name for finding in claim.findings}
    assert {"neighbours", "noise variance", "noise mean", "privacy loss"} <= names
    assert all(f.least for f in claim.findings if f.p is not None)


def test_p_values_of_honest_noise_are_small_no_more_often_than_they_say():
    rng, small = np.random.default_rng(0), dict.fromkeys(("variance", "mean", "repeat", "drift"), 0)
    for _ in range(400):
        noise = list(rng.normal(size=(6, 64)))
        tests = {
            "variance": variance_test(noise, "gaussian", ""),
            "mean": mean_test(noise, "gaussian", ""),
            "repeat": repeat_test(noise, ""),
            "drift": drift_test([noise], ""),
        }
        for name, test in tests.items():
            small[name] += test.p < 0.05
    limit = binom.isf(1e-6, 400, 0.05)
    assert all(count <= limit for count in small.values()), small
    assert min(small.values()) >= 2  # they are no idle tests either


@pytest.mark.parametrize("family", ["gaussian", "laplace"])
def test_the_least_noise_that_a_test_names_is_seen_nineteen_times_in_twenty(family):
    rng, n, level = np.random.default_rng(1), 3000, 1e-6

    def draw(factor):
        drawn = rng.normal(size=n) if family == "gaussian" else rng.laplace(size=n)
        return variance_test([factor * drawn], family, "")

    least = float(draw(1.0).least(level).removeprefix("noise x "))
    seen = sum(draw(least).p < level for _ in range(300))
    assert binom.isf(1e-6, 300, 0.95) >= seen >= 300 - binom.isf(1e-6, 300, 0.055)


def test_holm_shares_the_level_among_all_tests_and_what_has_no_chance_takes_none():
    tests = [Test("a", "", "", 3e-7), Test("b", "", "", 6e-7), Test("c", "", "", 0.5)]
    assert [finding.alarm for finding in holm(tests)] == [True, False, False]
    assert [finding.alarm for finding in holm([*tests[:2], Test("d", "", "")])] == [
        True,
        True,
        False,
    ]
    assert holm([Test("e", "", "", 0.0, lambda level: f"{level:g}")]) == (
        TestResult("e", "", "", 0.0, True, "1e-06"),
    )


@pytest.mark.parametrize(
    ("sampler", "relation", "rate"),
    [
        ("all", "add_remove", 1.0),
        ("poisson", "add_remove", 0.3),
        ("poisson", "replace_one", 0.3),
        ("fixed_size", "replace_one", 0.3),
        ("fixed_size", "zero_out", 0.3),
    ],
)
def test_the_true_epsilon_is_not_refuted_and_less_of_it_is(sampler, relation, rate):
    z = 1.0
    event = DpEvent("gaussian", {"noise_multiplier": z})
    sampling = Sampling(sampler, rate, 20)
    ledger = Ledger(tuple(Charge(t, event, sampling, "client", relation) for t in range(4)))
    for test in loss_tests(ledger, "client", 3, 1e-5):
        assert test.p > 1e-6
        assert test.least(1e-7) != "none"
    # losses of noise that is a sixth less than what the ledger says
    less = replace(pair_of(Release.of(ledger.charges[0])), z=z / 1.17)
    losses = sum(less.losses(200_000, np.random.default_rng(0))[0] for _ in range(4))
    alone = [replace(charge, sampling=Sampling(sampler, rate, 1)) for charge in ledger.charges]
    claimed = spend(Ledger(tuple(alone)), 0.01)[0].claim()
    excess = -np.expm1(np.minimum(claimed - losses, 0.0))
    assert excess.mean() > 0.01 or (sampler, relation) == ("fixed_size", "zero_out")


def test_losses_of_an_unsampled_gaussian_have_the_known_mean():
    one, two = Pair(2.0, 1.0, 1.0, 0.0).losses(400_000, np.random.default_rng(0))
    for losses in (one, two):
        assert losses.mean() == pytest.approx(1 / 8, abs=5 * 0.5 / 400_000**0.5)
    assert epsilon(noise_multiplier=2.0, sample_rate=1.0, steps=1, delta=1e-5) > 1 / 8


def test_a_cohort_that_is_too_large_or_one_client_drawn_too_often_is_seen():
    rng = np.random.default_rng(0)
    drawn = [[i for i in range(20) if rng.random() < 0.3 or i == 7] for _ in range(200)]
    together, each = inclusion_tests(drawn, Sampling("poisson", 0.3, 20), "")
    assert each.p < 1e-60
    assert together.p > 1e-30
    size, _ = inclusion_tests([range(7)] * 50, Sampling("fixed_size", 0.3, 20), "")
    assert size.p == 0.0
    assert inclusion_tests(drawn, Sampling("all", 1.0, 20), "") == []


ODD = {
    "hardly any noise": {"mechanism": {"name": "gaussian", "noise_multiplier": 1e-7}},
    "noise that drowns all": {"mechanism": {"name": "gaussian", "noise_multiplier": 1e6}},
    "one client": {"data": {**BASE["data"], "clients": 1}},
    "one round": {"rounds": 1},
    "rate .01, so that most rounds are of nobody": {"sampler": {"name": "poisson", "rate": 0.01}},
    "rate 1": {"sampler": {"name": "poisson", "rate": 1.0}},
    "zero_out": {"relation": "zero_out"},
    "a model that diverges": {"training": {**BASE["training"], "lr": 1e30}},
    "noise on a coarse grid": {
        "mechanism": {"name": "discrete_gaussian", "noise_multiplier": 0.05}
    },
    "a share of the entries": {"mechanism": {"name": "selective_laplace", "epsilon": 1.0}},
    "batches of one": {**SGD, "training": {**SGD["training"], "batch_size": 1}},
}


@pytest.mark.parametrize("name", ODD)
def test_an_honest_run_of_odd_settings_is_not_refuted(name):
    with run(**ODD[name], seed=7) as federation:
        (claim,) = audit_claims(federation, settings=QUICK)
    assert claim.verdict == "not refuted", claim.alarms


def test_what_a_round_of_nobody_released_is_remembered_like_that_of_anybody():
    """Rules start from it: what they start from must not tell whether anybody was drawn."""
    with run(**HALF) as federation:
        rows = {"delta": torch.zeros(12, federation.scenario.workload.model.d)}
        kept = [
            Stage(federation.scenario)
            .play(NeighbourWorld(rows), Tape("fixed"), 1, cohorts=lambda _, who=who: who)
            .states[0]
            .released
            for who in ((), (3,))
        ]
    assert kept[0].keys() == kept[1].keys() == {"delta"}
    assert kept[0]["delta"].vector.equal(kept[1]["delta"].vector)
