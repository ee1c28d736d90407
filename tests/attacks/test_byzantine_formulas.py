"""Every Byzantine attack against a slow reference written from its paper's formula."""

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.aggregators import Krum, Mean, Median, TrimmedMean
from privfl.attacks import (
    ALIE,
    IPM,
    AGRTailored,
    FangKrum,
    FangTrimmedMean,
    FlippedWeights,
    FreeRider,
    LinearCombination,
    Mimic,
    MinMax,
    MinSum,
    RandomWeights,
    SignFlip,
    ZeroWeights,
)
from privfl.core import BadUpdate, ConfigError, RoundKnowledge, RoundPlan, Rows


def honest_rows(h=12, d=7, seed=0, shift=0.3):
    return torch.randn(h, d, generator=torch.Generator().manual_seed(seed)) + shift


class Straight:
    """A path without bound or encoding: rows arrive as they are, and the rule judges them."""

    def __init__(self, rule):
        self.rule = rule

    def sent(self, rows):
        return rows

    def server(self, rows):
        return self.rule(rows)


def knowing(benign, f, before=None, rule=None, weights=None, own_weights=None, number=0, last=None):
    h, d = benign.shape
    rows = Rows(benign, torch.ones(h) if weights is None else weights, tuple(range(h)))
    plan = RoundPlan(number, tuple(range(h + f)), d=d, l2=math.inf)
    total = None if own_weights is None else float(rows.weights.sum() + own_weights.sum())
    before = torch.zeros(d) if before is None else before
    path = None if rule is None else Straight(rule)
    return RoundKnowledge(plan, before, last, rows, path, own_weights, total)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def sent_by(attack, benign, f=3, **known):
    own = torch.zeros(f, benign.shape[1])
    return attack.poison_updates(own, knowing(benign, f, **known), rng())


# ---- z of ALIE


@pytest.mark.parametrize(
    ("n", "f", "z"),
    [
        (10, 1, -0.14),
        (10, 2, 0.0),
        (10, 3, 0.18),
        (50, 10, 0.25),
        (20, 8, 0.67),
        (25, 11, 1.07),
        (50, 24, 1.43),
    ],
)
def test_alie_shifts_by_the_quantile_of_the_papers_supporters(n, f, z):
    assert ALIE.largest(n, f) == pytest.approx(z, abs=0.005)


def test_alie_sends_the_mean_less_z_population_deviations():
    benign = honest_rows()
    s = 15 // 2 + 1 - 3
    z = statistics.NormalDist().inv_cdf((15 - 3 - s) / (15 - 3))
    expected = benign.numpy().mean(axis=0) - z * benign.numpy().std(axis=0)
    np.testing.assert_allclose(sent_by(ALIE(), benign)[1].numpy(), expected, rtol=1e-5)


def test_alie_to_the_power_of_a_half_shifts_by_roots_of_deviations_as_flanders_code_does():
    benign = honest_rows()
    expected = benign.numpy().mean(axis=0) - 0.7 * benign.numpy().std(axis=0) ** 0.5
    sent = sent_by(ALIE(z=0.7, power=0.5), benign)[1].numpy()
    np.testing.assert_allclose(sent, expected, rtol=1e-5)
    with pytest.raises(ConfigError, match="power"):
        ALIE(power=0.0)


def test_alie_refuses_to_choose_z_for_a_majority():
    with pytest.raises(ConfigError, match="set z"):
        ALIE.largest(10, 6)


def test_alie_can_estimate_the_crowd_from_its_own_updates_alone():
    own, blind = (
        honest_rows(h=4),
        RoundKnowledge(RoundPlan(0, tuple(range(10)), d=7, l2=1.0), torch.zeros(7)),
    )
    sent = ALIE(z=1.0, sees="own").poison_updates(own, blind, rng())
    assert torch.allclose(sent[0], own.mean(dim=0) - own.std(dim=0, correction=0))
    assert ALIE(sees="own").knows == "own"


def test_an_omniscient_attack_that_sees_nothing_says_so():
    blind = RoundKnowledge(RoundPlan(0, (1, 2), d=7, l2=1.0), torch.zeros(7))
    with pytest.raises(ConfigError, match="needs to see the honest updates"):
        IPM().poison_updates(torch.zeros(1, 7), blind, rng())


# ---- attacks in one line


def test_models_of_zero_random_and_flipped_weights_are_what_fedsecurity_sends():
    before, own = torch.tensor([3.0, -2.0]), torch.tensor([[0.5, 0.25], [1.0, 1.0]])
    known = knowing(torch.zeros(2, 2), 2, before=before)
    assert torch.equal(before + ZeroWeights().poison_updates(own, known, rng()), torch.zeros(2, 2))
    random = before + RandomWeights().poison_updates(own, known, rng())
    assert random.abs().max() <= 1
    assert not torch.equal(random[0], random[1])
    assert torch.allclose(
        before + FlippedWeights().poison_updates(own, known, rng()), 2 * before - (before + own)
    )


def test_a_sign_flip_boosted_over_the_honest_majority_reverses_the_mean():
    benign = torch.ones(6, 3)
    sent = SignFlip(scale=4.0).poison_updates(torch.ones(2, 3), knowing(benign, 2), rng())
    assert (Mean()(Rows.of(torch.cat([benign, sent]))) < 0).all()


@given(st.integers(1, 6), st.integers(1, 6), st.floats(0.05, 20))
@settings(deadline=None, max_examples=40)
def test_ipm_reverses_the_mean_exactly_where_epsilon_is_over_h_by_f(h, f, epsilon):
    benign = honest_rows(h=h) + 5
    rows = torch.cat([benign, sent_by(IPM(epsilon=epsilon), benign, f)])
    turned = torch.dot(Mean()(Rows.of(rows)), benign.mean(dim=0)) < 0
    if abs(epsilon - h / f) > 1e-3:
        assert bool(turned) == (epsilon > h / f)


def test_a_free_rider_sends_nothing_the_last_change_or_noise_that_fades():
    own, last = torch.ones(1, 1000), torch.full((1000,), 0.5)
    known = knowing(torch.zeros(2, 1000), 1, last=last)
    late = knowing(torch.zeros(2, 1000), 1, last=last, number=9)
    assert not FreeRider().poison_updates(own, known, rng()).any()
    assert torch.equal(FreeRider(sends="last").poison_updates(own, known, rng())[0], last)
    first, tenth = (FreeRider(noise=1.0).poison_updates(own, k, rng()).std() for k in (known, late))
    assert tenth == pytest.approx(float(first) / 10, rel=1e-4)


# ---- lemma 1 of Blanchard et al.


@given(st.integers(1, 5), st.integers(0, 50))
@settings(deadline=None, max_examples=30)
def test_the_linear_combination_puts_the_weighted_mean_exactly_on_its_target(f, seed):
    benign, target = honest_rows(seed=seed), torch.randn(7, generator=rng(seed + 1))
    weights, mine = (
        torch.rand(12, generator=rng(seed)) + 0.1,
        torch.rand(f, generator=rng(seed + 2)) + 0.1,
    )
    known = knowing(benign, f, weights=weights, own_weights=mine)
    sent = LinearCombination(target=target).poison_updates(torch.zeros(f, 7), known, rng())
    rows = Rows(torch.cat([benign, sent]), torch.cat([weights, mine]))
    assert torch.allclose(Mean()(rows), target, atol=1e-5)


def test_the_linear_combination_reverses_the_honest_mean_by_default_and_checks_its_target():
    benign = honest_rows()
    rows = Rows.of(torch.cat([benign, sent_by(LinearCombination(), benign, 2)]))
    assert torch.allclose(Mean()(rows), -benign.mean(dim=0), atol=1e-5)
    with pytest.raises(BadUpdate, match="shape"):
        sent_by(LinearCombination(target=torch.zeros(3)), benign)


# ---- Min-Max and Min-Sum


def bisected(feasible, start=10.0, tolerance=1e-7):
    """The search of the paper's algorithm 1, on a bracket that surely holds the answer."""
    low, high = 0.0, start
    while feasible(high):
        high *= 2
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (middle, high) if feasible(middle) else (low, middle)
    return low


@pytest.mark.parametrize("along", ["unit", "sign", "std"])
@pytest.mark.parametrize("seed", range(4))
def test_min_max_and_min_sum_take_the_step_that_bisection_finds(along, seed):
    benign = honest_rows(seed=seed)
    values = benign.double().numpy()
    mu = values.mean(axis=0)
    p = {
        "unit": -mu / np.linalg.norm(mu),
        "sign": -np.sign(mu),
        "std": -values.std(axis=0, ddof=1),
    }[along]
    apart = ((values[:, None] - values[None]) ** 2).sum(axis=2)

    def within_max(gamma):
        return ((mu + gamma * p - values) ** 2).sum(axis=1).max() <= apart.max()

    def within_sum(gamma):
        return ((mu + gamma * p - values) ** 2).sum() <= apart.sum(axis=1).max()

    for attack, feasible in ((MinMax(along=along), within_max), (MinSum(along=along), within_sum)):
        sent = sent_by(attack, benign)[0].double().numpy()
        np.testing.assert_allclose(sent, mu + bisected(feasible) * p, atol=2e-5)


def test_min_max_stays_put_where_there_is_no_direction():
    assert torch.allclose(sent_by(MinMax(), torch.ones(4, 3)), torch.ones(3, 3))
    assert torch.allclose(sent_by(MinSum(along="unit"), torch.zeros(4, 3)), torch.zeros(3, 3))


# ---- Fang


def test_fangs_bound_of_lambda_is_the_papers():
    benign, f = honest_rows(), 3
    values = benign.double().numpy()
    n, d = 15, 7
    distances = np.sqrt(((values[:, None] - values[None]) ** 2).sum(axis=2))
    nearest = np.sort(distances, axis=1)[:, 1 : n - f - 1].sum(axis=1).min()
    expected = nearest / ((n - 2 * f - 1) * np.sqrt(d)) + np.linalg.norm(
        values, axis=1
    ).max() / np.sqrt(d)
    assert FangKrum.bound(benign, f) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_krum_picks_fangs_row_which_points_against_the_crowd(seed):
    benign = honest_rows(h=14, d=40, seed=seed, shift=0.2)
    sent = sent_by(FangKrum(), benign, 4)
    chosen = Krum(f=4)(Rows.of(torch.cat([benign, sent])))
    assert torch.equal(chosen, sent[0])
    assert torch.equal(sent[0].sign(), -torch.cat([benign, torch.zeros(4, 40)]).mean(dim=0).sign())
    assert len(sent[0].abs().unique()) == 1


def test_fangs_trimmed_mean_rows_lie_just_beyond_the_honest_models():
    before, benign = (
        torch.tensor([5.0, -5.0, 5.0, -5.0]),
        honest_rows(h=9, d=4) * torch.tensor([1.0, 1.0, -1.0, -1.0]),
    )
    benign += torch.tensor([2.0, 2.0, -2.0, -2.0])
    sent = sent_by(FangTrimmedMean(), benign, 5, before=before) + before
    least, most = (before + benign).amin(dim=0), (before + benign).amax(dim=0)
    ranges = [
        (least[0] / 2, least[0]),
        (least[1] * 2, least[1]),
        (most[2], most[2] * 2),
        (most[3], most[3] / 2),
    ]
    for j, (low, high) in enumerate(ranges):
        low, high = (high, low) if low > high else (low, high)
        assert ((sent[:, j] >= low - 1e-4) & (sent[:, j] <= high + 1e-4)).all(), j


def test_fangs_partial_knowledge_stays_between_three_and_four_deviations():
    own = honest_rows(h=6) + 1
    known = knowing(honest_rows(), 6)
    sent = FangTrimmedMean(sees="own", of="updates").poison_updates(own, known, rng())
    sigma, mu = torch.std_mean(own, dim=0, correction=0)
    away = (sent - mu) / sigma * -mu.sign()
    assert ((away > 3 - 1e-3) & (away < 4 + 1e-3)).all()


def test_fang_moves_the_trimmed_mean_and_the_median_farther_than_noise_of_the_same_length():
    benign = honest_rows(h=12, shift=1.0)
    for rule, attack in (
        (TrimmedMean(f=5), FangTrimmedMean(of="updates")),
        (Median(), FangTrimmedMean(of="updates")),
    ):
        sent = sent_by(attack, benign, 5)
        noise = torch.randn(sent.shape, generator=rng(3))
        noise *= sent.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True)
        harm, chance = (
            (rule(Rows.of(torch.cat([benign, rows]))) - benign.mean(dim=0)).norm()
            for rows in (sent, noise)
        )
        assert harm > chance


# ---- AGR-tailored


@pytest.mark.parametrize(
    "rule", [Krum(f=4), Krum(f=4, m=4), TrimmedMean(f=4), Median()], ids=lambda r: type(r).__name__
)
def test_agr_tailored_does_as_much_harm_as_a_fine_scan_along_its_direction(rule):
    benign = honest_rows(h=12, shift=0.5)
    mu, p = benign.mean(dim=0), -benign.std(dim=0)

    def harm(gamma):
        return float(
            (rule(Rows.of(torch.cat([benign, (mu + gamma * p).expand(4, -1)]))) - mu).norm()
        )

    sent = sent_by(AGRTailored(tries=40), benign, 4, rule=rule)
    reached = float((rule(Rows.of(torch.cat([benign, sent]))) - mu).norm())
    assert reached >= 0.97 * max(harm(gamma) for gamma in np.geomspace(0.02, 20, 120))


def test_agr_tailored_takes_its_own_rule_in_the_servers_place():
    assert AGRTailored().knows == "rule"
    assert AGRTailored(rule=Median()).knows == "benign"
    assert torch.equal(
        sent_by(AGRTailored(rule=Median()), honest_rows()),
        sent_by(AGRTailored(), honest_rows(), rule=Median()),
    )
    with pytest.raises(ConfigError, match="set rule"):
        sent_by(AGRTailored(), honest_rows())


# ---- mimic


def test_mimic_finds_the_direction_of_greatest_spread_and_then_sticks_to_one_client():
    spread = torch.tensor([5.0, 1.0, 1.0, 1.0])
    attack, memory, own = Mimic(warm_up=8), Mimic().init(), torch.zeros(2, 4)
    centres = torch.randn(9, 4, generator=rng(1)) * spread
    for number in range(8):
        benign = centres + 0.1 * torch.randn(9, 4, generator=rng(number))
        sent, memory = attack.poison_and_remember(
            own, knowing(benign, 2, number=number), memory, rng(5)
        )
    _, _, axes = torch.linalg.svd(centres - centres.mean(dim=0))
    assert abs(float(memory.z @ axes[0])) > 0.95
    favourite = memory.chosen
    assert favourite == int((benign @ memory.z).argmax())
    later = centres.flip(0)
    sent, after = attack.poison_and_remember(own, knowing(later, 2, number=9), memory, rng(5))
    assert torch.equal(sent, later[favourite].expand(2, -1))
    assert after == memory


def test_mimics_first_steps_are_the_papers_recursion():
    attack, memory = Mimic(warm_up=50), Mimic().init()
    z = torch.randn(7, generator=rng(9)).double().numpy()
    mean = np.zeros(7)
    for t in range(4):
        benign = honest_rows(seed=t)
        _, memory = attack.poison_and_remember(
            torch.zeros(1, 7), knowing(benign, 1, number=t), memory, rng(9)
        )
        values = benign.double().numpy()
        mean = (t * mean + values.mean(axis=0)) / (1 + t)
        z = t / (1 + t) * z + sum((u - mean) * ((u - mean) @ z) for u in values) / (1 + t)
        z /= np.linalg.norm(z)
    np.testing.assert_allclose(memory.z.numpy(), z, atol=1e-5)
