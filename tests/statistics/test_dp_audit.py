"""Bounds from scores alone: they leave honest claims alone in 95 runs of 100, and refute what is
far off.
"""

import math

import numpy as np
import pytest
import torch

from privfl.audit import (
    audit_scores,
    client_scores,
    clopper_pearson,
    gaussian_trade_off,
    gradient_scores,
    one_run,
    one_run_f_dp,
)
from privfl.audit.dp import METHODS
from privfl.core import ConfigError, SeededNoise, Sensitivity
from privfl.dp import Clip, DPGradient, Gaussian, epsilon

L2, DELTA, CANARIES = 1.0, 1e-5, 3000
ALL = ("clopper_pearson", "one_run", "gaussian", "one_run_f_dp")


def one_release(noise_multiplier):
    return epsilon(
        noise_multiplier=noise_multiplier,
        sample_rate=1.0,
        steps=1,
        delta=DELTA,
        accountant="pld",
        sampler="all",
    )


CLAIM = one_release(1.0)


def rounds_of(noise_multiplier=1.0, clip=True, weight=1.0, q=1.0, seed=0):
    """A release as a server would make it, with a bug or without."""
    noise, rng = SeededNoise(seed), np.random.default_rng(seed + 1)
    mechanism, bound = Gaussian(noise_multiplier), Clip(L2)

    def release(updates):
        total = torch.zeros(CANARIES)
        for update, drawn in zip(updates, rng.random(len(updates)) < q, strict=True):
            if drawn:
                total += weight * (bound(update) if clip else update)
        return mechanism.release(total, Sensitivity(L2), len(updates), noise)[0]

    return release


def audited(release, claim, rounds=1, methods=ALL, seed=5):
    return audit_scores(
        *client_scores(release, l2=L2, canaries=CANARIES, seed=seed, rounds=rounds),
        claim=claim,
        delta=DELTA,
        methods=methods,
    )


def test_an_honest_release_passes_with_a_bound_that_is_not_idle():
    found = audited(rounds_of(), one_release(1.0))
    assert found.verdict == "not refuted"
    assert found.lower > 0.6 * found.claim
    assert "not refuted" in str(found)


@pytest.mark.parametrize(
    "bug",
    [{"clip": False}, {"noise_multiplier": 0.5}, {"weight": 2.0}],
    ids=["no clip", "noise halved", "weighted averaging"],
)
def test_planted_bugs_fail_at_client_level(bug):
    for seed in range(3):
        assert (
            audited(rounds_of(**bug, seed=seed), one_release(1.0), seed=seed).verdict == "refuted"
        )


def test_an_epsilon_from_the_wrong_q_fails_and_the_right_one_passes():
    def claimed(q):
        return epsilon(noise_multiplier=1.0, sample_rate=q, steps=10, delta=DELTA)

    sampled = ("clopper_pearson", "one_run")
    assert audited(rounds_of(q=0.5), claimed(0.01), rounds=10, methods=sampled).verdict == "refuted"
    assert (
        audited(rounds_of(q=0.5), claimed(0.5), rounds=10, methods=sampled).verdict == "not refuted"
    )


@pytest.mark.parametrize("engine", ["bookkeeping", "vmap"])
def test_gradient_canaries_audit_dp_sgd(engine):
    def found(noise_multiplier, claim):
        gradient = DPGradient(
            l2=L2,
            noise_multiplier=noise_multiplier,
            batch_size=500,
            engine=engine,
            noise=SeededNoise(1),
        )
        scores = gradient_scores(gradient, l2=L2, canaries=CANARIES // 3, seed=2)
        return audit_scores(*scores, claim=claim, delta=DELTA, methods=ALL)

    assert found(1.0, one_release(1.0)).verdict == "not refuted"
    assert found(0.5, one_release(1.0)).verdict == "refuted"


def test_true_claims_fail_in_at_most_one_run_of_twenty():
    failures = 0
    alone = dict.fromkeys(ALL, 0)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        coins = rng.random(600) < 0.5
        scores = coins + rng.normal(0, 1.0, 600)
        found = audit_scores(scores[coins], scores[~coins], claim=CLAIM, delta=DELTA, methods=ALL)
        failures += found.verdict == "refuted"
        for name in ALL:
            alone[name] += METHODS[name](scores[coins], scores[~coins], DELTA, 0.05) > CLAIM
    assert failures <= 10
    assert all(count <= 10 for count in alone.values()), alone


def test_no_noise_is_found_out_without_any_assumption():
    inside, outside = np.ones(1000), np.zeros(1000)
    assert clopper_pearson(inside, outside, DELTA, 0.05) > 4
    assert one_run(inside, outside, DELTA, 0.05) > 3


def test_stronger_assumptions_give_tighter_bounds():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(1, 1, 1000), rng.normal(0, 1, 1000)
    steinke, curve, gaussian = (
        bound(inside, outside, DELTA, 0.05) for bound in (one_run, one_run_f_dp, gaussian_trade_off)
    )
    assert 0.5 < steinke < curve < gaussian < CLAIM


def test_scores_that_tell_nothing_bound_nothing():
    rng = np.random.default_rng(0)
    for bound in (clopper_pearson, one_run):
        assert bound(rng.normal(size=2000), rng.normal(size=2000), DELTA, 0.05) < 0.3


def test_the_one_run_p_value_is_the_binomial_tail_without_delta():
    # 40 guesses, all right: epsilon with q^40 = 0.05
    inside, outside = np.ones(200), np.zeros(200)
    assert one_run(inside, outside, 1e-300, 0.05) == pytest.approx(
        math.log(0.05 ** (1 / 40) / (1 - 0.05 ** (1 / 40))), rel=1e-5
    )


def test_impossible_audits_are_refused():
    with pytest.raises(ConfigError, match="at least one method"):
        audit_scores(np.ones(8), np.ones(8), claim=1.0, delta=DELTA, methods=())
    with pytest.raises(ConfigError, match="at least 4 scores"):
        clopper_pearson(np.ones(2), np.ones(2), DELTA, 0.05)
