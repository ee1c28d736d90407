"""Of few clients, and of clients of few samples, what somebody gets who saw nothing is no leak more
often than intervals promise.
"""

from itertools import combinations, product

import pytest
import torch

from privfl import Federation
from privfl.attacks import ClientPresence, Knowledge
from privfl.audit.games import AuditNotes, attack_presence
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


def test_two_clients_of_whom_one_takes_part_say_the_same_twice():
    """What one of two has more, the other has less: in 1 of 6 plays both seem to be found."""
    data = {"name": "digits", "clients": 2, "partition": {"name": "iid"}}
    federation = Federation.from_config({"data": data, "rounds": 1, "executor": "sequential"})
    ranked = []
    for seed in range(40):
        ground = divide(federation.scenario, 0.8, seed)
        notes, knows = AuditNotes([], {}, {}), Knowledge(auxiliary=ground.auxiliary, seed=seed)
        who, attacks = ["server"], [ClientPresence(target="sum")]
        attack_presence(
            notes, "l", federation, who, attacks, knows, ground, seed, None, planted=False
        )
        (finding,) = notes.findings
        ranked.append(finding.value.value)
        assert finding.verdict == "not found", finding.value
        if ranked[-1] == 1.0:
            break
    assert ranked[-1] == 1.0, "no play was lucky: nothing was tested"
