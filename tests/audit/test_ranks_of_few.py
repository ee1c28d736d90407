"""Of few clients, and of clients of few samples, what somebody gets who saw nothing is no leak more
often than intervals promise.
"""

from itertools import combinations, product

import pytest
import torch

from privfl import Federation
from privfl.attacks import ClientPresence, Knowledge
from privfl.audit import Attacks, audit, card
from privfl.audit.games import AuditNotes, attack_presence
from privfl.audit.games.presence import pairs_of
from privfl.audit.intervals import auc_figure
from privfl.audit.ranking import membership
from privfl.audit.rehearsal import divide


def over_half(deals, scores, clusters=None):
    """In which share of the equally likely deals the interval lies above a half."""
    told = [membership(scores, deal, clusters=clusters).auc.low > 0.5 for deal in deals]
    return sum(told) / len(told)


@pytest.mark.parametrize("k", [4, 6, 7, 8])
def test_half_of_few_clients_above_the_others_is_luck_as_often_as_is_promised(k):
    deals = []
    for half in combinations(range(k), k // 2):
        deals.append(torch.zeros(k, dtype=torch.bool))
        deals[-1][list(half)] = True
    assert over_half(deals, torch.arange(float(k))) <= 0.025  # of 6 it was 1 in 20


@pytest.mark.parametrize("k", [2, 3, 4, 5, 6])
def test_one_member_beside_one_other_of_few_clients(k):
    """All members above the others of their clients has a chance of 1 in 2^k."""
    scores, whose = torch.arange(2.0 * k), torch.arange(k).repeat_interleave(2)
    first = [torch.tensor(deal) for deal in product([True, False], repeat=k)]
    deals = [torch.stack([deal, ~deal], dim=1).flatten() for deal in first]
    assert over_half(deals, scores, whose) <= 0.025  # of 3 it was 1 in 8
    assert k < 6 or over_half(deals, scores, whose) > 0


@pytest.mark.parametrize("clients", [3, 5, 9])
def test_one_member_beside_four_others_of_few_clients(clients):
    """Areas of four pairs are no normal ones: of five clients 3 to 5 % of null plays leaked."""
    rng = torch.Generator().manual_seed(1)
    whose = torch.arange(clients).repeat_interleave(5)
    members = torch.arange(5 * clients) % 5 == 0
    told = [
        membership(torch.rand(5 * clients, generator=rng), members, clusters=whose, draws=2)
        for _ in range(1200)
    ]
    assert sum(one.auc.low > 0.5 for one in told) <= 0.025 * 1200


def test_who_is_in_the_model_is_found_of_four_clients_though_several_looks_are_asked():
    """Of two pairs of runs 1 in 36 guesses are right of everybody: too many for two looks."""
    data = {"name": "digits", "clients": 4, "partition": {"name": "iid"}}
    training = {"name": "sgd", "lr": 0.1, "epochs": 2, "batch_size": 16}
    shape = {"model": {"name": "mlp", "hidden": [12]}, "training": training}
    federation = Federation.from_config({"data": data, **shape, "rounds": 1, "executor": "stacked"})
    looks = Attacks(presence=(ClientPresence("loss"), ClientPresence()))
    report = audit(federation, adversaries=["server"], attacks=looks, lies=None)
    (line,) = [line for line in card(report) if line.asset == "presence"]
    assert line.looks == 2
    assert line.figures["auc"].value == 1.0
    assert line.verdict == "leaks", line


def test_two_clients_of_whom_one_takes_part_say_the_same_twice():
    """What one of two has more, the other has less: counted as two, 8 in 100 plays leak."""
    rng, runs, leaks = torch.Generator().manual_seed(0), 2 * pairs_of(2), 0
    whose = torch.arange(2).repeat(runs)
    for _ in range(1000):
        looks, first = torch.randn(runs, generator=rng), torch.rand(runs // 2, generator=rng) < 0.5
        scores = torch.stack([looks, -looks], dim=1).flatten()
        present = torch.stack([first, ~first, ~first, first], dim=1).flatten()
        told = membership(scores, present, clusters=whose, tied=True)
        leaks += told.auc.low > 0.5
    assert leaks <= 25


def test_of_two_clients_an_audit_is_as_sure_as_of_one():
    data = {"name": "digits", "clients": 2, "partition": {"name": "iid"}}
    federation = Federation.from_config({"data": data, "rounds": 1, "executor": "sequential"})
    for seed in range(2):
        ground = divide(federation.scenario, 0.8, seed)
        notes, knows = AuditNotes([], {}, {}), Knowledge(auxiliary=ground.auxiliary, seed=seed)
        who, attacks = ["server"], [ClientPresence(target="sum")]
        attack_presence(
            notes, "l", federation, who, attacks, knows, ground, seed, None, planted=False
        )
        (finding,) = notes.findings
        assert finding.units == 2 * 2 * pairs_of(2)
        told, inside = finding.value, pairs_of(2)
        alone, twice = (auc_figure(told.value, many, many) for many in (inside, 2 * inside))
        assert told.low == pytest.approx(alone.low, abs=0.02)  # counted as two .07 higher
        assert told.low < twice.low - 0.04
        assert finding.verdict == "not found"
