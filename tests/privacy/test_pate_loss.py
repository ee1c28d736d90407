"""What noisy votes cost: never less than the truth, computed by integrating the real law."""

import functools
import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import log_ndtr, ndtr

from privfl.core import ConfigError, Ledger, Neighbours, OsNoise
from privfl.dp import spend
from privfl.dp.charges import stepped
from privfl.dp.pate import UNANSWERED, ConfidentGNMax, confident_rdp, likely_rdp, log_wrong
from privfl.testing import ConformanceError, check_vote, vote_checks

REPLACED = Neighbours("client", "replace_one")
ZEROED = Neighbours("client", "zero_out")


@functools.cache
def elected(counts, deviation):
    """The law of the noisy vote's winner, by integrating over the winner's count."""
    out = []
    for j, n in enumerate(counts):
        others = [m for i, m in enumerate(counts) if i != j]

        def density(x, n=n, others=others):
            rest = math.prod(ndtr((x - m) / deviation) for m in others)
            normal = math.exp(-(((x - n) / deviation) ** 2) / 2)
            return rest * normal / (deviation * math.sqrt(2 * math.pi))

        middle = max(counts)
        low, high = min(counts) - 12 * deviation, middle + 12 * deviation
        out.append(quad(density, low, high, epsabs=1e-14, epsrel=1e-11, limit=400)[0])
    return tuple(out)


def neighbours(counts, relation):
    """Every count vector that one teacher's change makes."""
    m = len(counts)
    out = []
    for i, j in itertools.permutations(range(m), 2):
        if counts[i]:
            moved = list(counts)
            moved[i] -= 1
            if relation == "replace_one":
                moved[j] += 1
            out.append(moved)
    if relation == "zero_out":
        out += [[n + (i == j) for i, n in enumerate(counts)] for j in range(m)]
    return out


def law(counts, vote):
    """The law of one query's label: unanswered, then each class."""
    won = np.array(elected(tuple(counts), vote.deviation))
    if vote.threshold is None:
        return np.array([0.0, *won])
    passes = ndtr((max(counts) - vote.threshold) / vote.check)
    return np.array([1 - passes, *(passes * won)])


def divergence(p, q, order):
    kept = p > 0
    return math.log(np.sum(p[kept] ** order * q[kept] ** (1 - order))) / (order - 1)


def test_the_published_formulas_give_the_known_values():
    counts = np.array([[240, 10]])
    assert log_wrong(counts, 40.0)[0] == pytest.approx(-10.640485, abs=1e-6)
    [[rdp]] = likely_rdp(log_wrong(counts, 40.0), 40.0, np.array([8.0]))
    assert rdp == pytest.approx(1.15556e-5, rel=1e-5)


@pytest.mark.parametrize("gap", [2, 20, 60, 100, 140])
@pytest.mark.parametrize("order", [1.5, 2.0, 4.0, 8.0, 16.0])
def test_a_vote_between_two_classes_costs_no_more_than_claimed(gap, order):
    """The chance of either class is known in closed form, in logs."""
    sigma, total = 40.0, 250
    [[bound]] = likely_rdp(
        log_wrong(np.array([[(total + gap) // 2, (total - gap) // 2]]), sigma),
        sigma,
        np.array([order]),
    )
    z = gap / (math.sqrt(2) * sigma)
    for shift in (-2, 2):
        there = (gap + shift) / (math.sqrt(2) * sigma)
        terms = [
            order * log_ndtr(side * z) + (1 - order) * log_ndtr(side * there) for side in (1, -1)
        ]
        exact = np.logaddexp(*terms) / (order - 1)
        assert exact <= bound
    assert bound <= order / sigma**2


@pytest.mark.parametrize("relation", ["replace_one", "zero_out"])
@pytest.mark.parametrize("counts", [[9, 3, 0], [5, 4, 3], [12, 0, 0], [4, 4, 4]])
def test_the_data_dependent_figure_of_a_checked_vote_bounds_every_neighbour(counts, relation):
    vote = ConfidentGNMax(threshold=8.0, check=3.0, deviation=2.0)
    here = law(counts, vote)
    at = Neighbours("client", relation)
    for order in (1.5, 3.0, 10.0):
        rdp = vote._rdp(np.array([counts]), np.array([order]), at)[0, 0]
        for other in neighbours(counts, relation):
            assert divergence(here, law(other, vote), order) <= rdp * (1 + 1e-6) + 1e-9


def test_the_check_is_exact_where_the_answer_costs_nothing():
    [[rdp]] = confident_rdp(np.array([7.0]), 8.0, 3.0, np.zeros((1, 1)), np.array([4.0]))
    passes = [ndtr((m - 8.0) / 3.0) for m in (6.0, 7.0, 8.0)]
    exact = max(
        divergence(np.array([passes[1], 1 - passes[1]]), np.array([p, 1 - p]), 4.0)
        for p in (passes[0], passes[2])
    )
    assert rdp == pytest.approx(exact)


@pytest.mark.parametrize("threshold", [None, 5.0])
def test_the_real_aggregator_has_the_law_that_is_integrated(threshold):
    vote = ConfidentGNMax(threshold=threshold, check=2.0, deviation=2.0)
    counts, n = [5, 3, 1], 6_000
    labels = vote.answer(torch.tensor([counts]).repeat(n, 1), OsNoise())
    found = np.bincount(labels.numpy() + 1, minlength=4) / n
    expected = law(counts, vote)
    error = np.sqrt(expected * (1 - expected) / n)
    assert (np.abs(found - expected) <= 5 * error + 1e-12).all()


def played(queries, vote):
    """The law of all labels together of a few queries, the stop included."""
    laws = [law(counts, vote) for counts in queries]
    out = {}

    def go(i, left, labels, chance):
        if i == len(laws) or not left:
            key = (*labels, *[UNANSWERED] * (len(laws) - i))
            out[key] = out.get(key, 0.0) + chance
            return
        for k, p in enumerate(laws[i]):
            if p > 0:
                go(i + 1, left - (k > 0), (*labels, k - 1), chance * p)

    go(0, vote.most_answers or len(laws), (), 1.0)
    return out


@pytest.mark.parametrize("most", [None, 1, 2])
@pytest.mark.parametrize(
    ("here", "there"),
    [
        ([[6, 4], [5, 5], [9, 1]], [[5, 5], [4, 6], [8, 2]]),
        ([[7, 3], [7, 3], [7, 3]], [[6, 4], [6, 4], [6, 4]]),
        ([[5, 5], [5, 5], [5, 5]], [[6, 4], [4, 6], [6, 4]]),
    ],
)
def test_what_the_ledger_claims_is_true_of_all_answers_together(here, there, most):
    """Delta at the claimed epsilon, of the exact joint law of three queries in neighbouring worlds
    that differ in every one of them, is under the claimed delta.
    """
    vote = ConfidentGNMax(threshold=6.0, check=1.5, deviation=1.5, most_answers=most)
    ledger = Ledger().charged(stepped(0, vote.steps(3, 10, REPLACED), REPLACED))
    a, b = played(here, vote), played(there, vote)
    assert sum(a.values()) == pytest.approx(1, abs=1e-6)
    for delta in (1e-2, 1e-4):
        [spent] = spend(ledger, delta)
        for one, other in ((a, b), (b, a)):
            excess = sum(
                max(p - math.exp(spent.claim()) * other.get(key, 0), 0) for key, p in one.items()
            )
            assert excess <= delta
        dependent = vote.data_dependent(torch.tensor(here), delta, REPLACED)
        excess = sum(
            max(p - math.exp(dependent.epsilon) * b.get(key, 0), 0) for key, p in a.items()
        )
        assert excess <= delta
        assert dependent.epsilon <= dependent.independent * (1 + 1e-9)


def test_what_is_charged_does_not_hang_on_the_votes_or_on_how_many_were_answered():
    vote = ConfidentGNMax(threshold=8.0, check=2.0, deviation=1.0, most_answers=4)
    check, answer = vote.steps(50, 10, REPLACED)
    assert (check.count, answer.count) == (50, 4)
    assert check.event.parameters["noise_multiplier"] == 2.0
    assert answer.event.parameters["noise_multiplier"] == pytest.approx(1 / math.sqrt(2))
    _, zeroed = vote.steps(50, 10, ZEROED)
    assert zeroed.event.parameters["noise_multiplier"] == 1.0
    assert vote.steps(3, 10, REPLACED)[1].count == 3


def test_no_query_is_looked_at_once_the_answers_are_used_up():
    vote = ConfidentGNMax(threshold=-1e6, deviation=1e-9, most_answers=2)
    labels = vote.answer(torch.tensor([[0, 9]] * 5), OsNoise())
    assert labels.tolist() == [1, 1, UNANSWERED, UNANSWERED, UNANSWERED]


VOTES = [
    *vote_checks(ConfidentGNMax),
    *vote_checks(ConfidentGNMax(deviation=2.0, threshold=6.0, check=1.5, most_answers=3)),
]


@pytest.mark.parametrize("check", VOTES, ids=str)
def test_the_vote_conforms(check):
    check()


@dataclass(frozen=True)
class ThinCheck(ConfidentGNMax):
    """Noises its check by a third of what it charges for."""

    def answer(self, counts, noise):
        return ConfidentGNMax.answer(replace(self, check=self.check / 3), counts, noise)


@dataclass(frozen=True)
class Endless(ConfidentGNMax):
    """Answers more than it charges for."""

    def answer(self, counts, noise):
        return ConfidentGNMax.answer(replace(self, most_answers=None), counts, noise)


@pytest.mark.parametrize(("kind", "words"), [(ThinCheck, "look as alike"), (Endless, "no more")])
def test_a_vote_that_understates_its_charge_is_found(kind, words):
    planted = kind(deviation=50.0, threshold=6.0, check=1.0, most_answers=2)
    with pytest.raises(ConformanceError, match=words):
        check_vote(planted)


@pytest.mark.parametrize("deviation", [0.5, 3.0, 40.0, 1000.0])
def test_the_bound_is_a_number_between_none_and_the_plain_one_however_clear_a_vote_is(deviation):
    log_q = -np.concatenate([[math.log(10 / 9)], np.logspace(-9, 5, 200)])
    orders = np.array([1.01, 1.5, 2.0, 64.0, 1024.0, 98_304.0])
    rdp = likely_rdp(log_q, deviation, orders)
    assert np.isfinite(rdp).all()
    assert (rdp >= 0).all()
    assert (rdp <= orders / deviation**2 * (1 + 1e-12)).all()


def test_clear_votes_are_cheap_and_the_figure_says_that_it_is_private():
    vote = ConfidentGNMax(threshold=200.0, check=150.0, deviation=40.0, most_answers=286)
    clear = torch.tensor([[245, 5] + [0] * 8]).repeat(640, 1)
    dependent = vote.data_dependent(clear, 1e-5, REPLACED)
    assert dependent.epsilon < 0.5 * dependent.independent
    assert str(dependent).startswith("PRIVATE")


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (Neighbours("client", "add_remove"), "comes or goes"),
        (Neighbours("sample", "replace_one"), "whole teachers"),
    ],
)
def test_neighbours_of_whom_votes_prove_nothing_are_refused(at, words):
    with pytest.raises(ConfigError, match=words):
        ConfidentGNMax(deviation=4.0).steps(1, 10, at)


@pytest.mark.parametrize(
    "settings",
    [{"deviation": 0.0}, {"deviation": 1.0, "check": 0.0}, {"deviation": 1.0, "most_answers": 0}],
)
def test_settings_without_noise_or_answers_are_refused(settings):
    with pytest.raises(ConfigError, match="must be"):
        ConfidentGNMax(**settings)
