"""Lies of `benchmarks.dp_lies_narrow`, each about little, are found all the same."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.dp_lies import run
from benchmarks.dp_lies_narrow import NARROW
from privfl.audit import Settings, audit_claims
from privfl.audit.dp import LEVEL
from privfl.audit.dp.dependence import dependence_tests
from privfl.audit.dp.residual import aligned_test
from privfl.audit.dp.weakest import weakest_test
from privfl.core import Ledger, Sampling

QUICK = Settings(canaries=0, pairs=4, climb=1, values=4_000, inclusions=600)

FOUND_BY = {
    "noise x .7 in 64 coordinates": "weakest noise",
    "noise x .9 in 300 coordinates": "weakest noise",
    "noise x .5 in ten coordinates, DP-SGD": "weakest noise",
    "noise x .7 in the last of twenty rounds": "weakest noise",
    "noise used twice": "noise repeated",
    "noise that follows from the vector": "noise repeated",
    "noise x .7 in SCAFFOLD's control variate": "noise variance",
    "one client drawn more often": "each one's rate",
    "the first client always drawn": "each one's rate",
    "all or nobody drawn": "drawn together",
    "two clients drawn together": "drawn together",
    "a cohort drawn for two rounds": "drawn again",
    "one client not clipped": "neighbours",
    "no clip between two bounds and four": "neighbours",
    "DP-SGD, large batches clipped four times as far": "neighbours",
    "a rule that moves farther from the fourth round on": "neighbours",
    "a rule that says who is missing": "neighbours",
    "zero_out charged as replace_one": "charges",
    "the largest entries are sent": "entries sent",
}


def settings(name):
    """What the test that must find the lie needs, and no more of the others; the benchmark
    `dp_audit` finds them all by the default.
    """
    by = FOUND_BY[name]
    whom = name in ("one client not clipped", "a rule that says who is missing")
    pairs = 60 if whom else 16 if by == "neighbours" else 8 if by == "charges" else 3
    values = 20_000 if "noise" in by else 1_000
    watched = 6_000 if by in ("each one's rate", "drawn together", "drawn again") else 500
    return Settings(canaries=0, pairs=pairs, climb=0, values=values, inclusions=watched)


@pytest.mark.parametrize("name", NARROW)
def test_a_lie_about_little_is_found_at_the_alarm_level(name):
    with NARROW[name]() as federation:
        (claim,) = audit_claims(federation, settings=settings(name))
    assert claim.verdict == "ALARM"
    assert FOUND_BY[name] in {alarm.name for alarm in claim.alarms}
    assert all(alarm.p <= LEVEL for alarm in claim.alarms)


def test_every_narrow_lie_is_named():
    assert set(FOUND_BY) == set(NARROW)


def test_the_weakest_part_that_a_test_names_is_seen_and_honest_noise_seldom_looks_weak():
    rng, level, seen, small = np.random.default_rng(3), 1e-6, 0, 0

    def draw(factor):
        noise = rng.normal(size=(4, 5, 128))
        noise[:, :, 32:64] *= factor
        return weakest_test([list(play) for play in noise], "gaussian", "")

    said = draw(1.0).least(level)
    (least,) = [float(one.split()[1]) for one in said.split(", ") if one.endswith("32 coordinates")]
    for _ in range(200):
        seen += draw(least).p < level
        small += draw(1.0).p < 0.05
    assert seen >= 200 - binom.isf(1e-6, 200, 0.055)
    assert small <= binom.isf(1e-6, 200, 0.05)


@pytest.mark.parametrize("scheme", ["poisson", "fixed_size"])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_independent_draws_look_dependent_no_more_often_than_the_p_values_say(scheme, rate):
    rng, n, small = np.random.default_rng(5), 10, 0
    for _ in range(60):
        runs = []
        for _ in range(20):
            rows = rng.random((5, n))
            if scheme == "poisson":
                runs.append([set(np.flatnonzero(row < rate)) for row in rows])
            else:
                runs.append([set(row.argsort()[: round(rate * n)]) for row in rows])
        small += min(t.p for t in dependence_tests(runs, Sampling(scheme, rate, n), "")) < 0.01
    assert small <= binom.isf(1e-6, 60, 0.06)


def test_what_is_said_of_noise_along_the_vector_follows_the_level():
    noise = list(np.random.default_rng(0).normal(size=(9, 64)))
    test = aligned_test(noise, noise, "")
    assert test.least(1e-6) != test.least(1e-12)


def test_a_recorded_ledger_of_another_relation_is_seen():
    with run() as federation:
        relation = federation.scenario.pipeline().neighbours.relation
        played = federation.run().ledger
        other = tuple(replace(one, relation="replace_one") for one in played.charges)
        (honest,) = audit_claims(federation, recorded=played, settings=QUICK)
        (claim,) = audit_claims(federation, recorded=Ledger(other), settings=QUICK)
    assert relation != "replace_one"
    assert honest.verdict == "not refuted"
    assert "ledger" in {alarm.name for alarm in claim.alarms}
