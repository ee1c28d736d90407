"""How many share holders a cohort needs: the bounds on rounds that fail are what enumeration of all
draws gives, and what real rounds do.
"""

import math
from fractions import Fraction
from itertools import combinations

import pytest
import torch

from privfl.core import Bounded, Faults, RoundPlan, client_party, drive
from privfl.crypto import SecAgg
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.secagg import graph


def expected_failures(n, k, t, gone):
    """How many clients' secrets cannot be opened, on average over every draw of k holders: the
    first ``gone`` clients leave, the others answer and hold a share of their own.
    """
    total = Fraction(0)
    for client in range(n):
        others = [other for other in range(n) if other != client]
        draws = list(combinations(others, k))
        needed = t if client < gone else t - 1
        lost = sum(sum(holder >= gone for holder in drawn) < needed for drawn in draws)
        total += Fraction(lost, len(draws))
    return total


@pytest.mark.parametrize(("n", "k", "t", "gone"), [(10, 5, 4, 3), (9, 6, 5, 3), (11, 4, 3, 5)])
@pytest.mark.parametrize("active", [False, True])
def test_how_often_a_round_is_late_is_what_enumeration_gives(n, k, t, gone, active):
    _, late = graph.fails(n, graph.Degree(k, t), 0.0, gone / n, active)
    exact = expected_failures(n, k, t, gone)
    assert exact > 0
    assert 2**late == pytest.approx(min(1.0, float(exact)), rel=1e-9)


@pytest.mark.parametrize("mode", ["semi_honest", "active"])
@pytest.mark.parametrize("gone", [2, 3])
def test_a_round_finishes_where_the_bound_says_never_late_and_not_where_it_says_always(mode, gone):
    n, plan = 5, RoundPlan(0, tuple(range(5)), d=2, l2=1.0)
    channel = SecAgg(mode=mode, graph="complete", corrupt=0.0)
    now = Enrolled.fresh(channel, range(n))
    parties = {
        client_party(i): member.enter(plan, Bounded(i, torch.full((2,), 0.1), 1.0))
        for i, member in now.clients.items()
    }
    masked = 6 if mode == "semi_honest" else 8
    silent = Faults(silent_from={client_party(i): masked for i in range(gone)})
    outcome = drive(now.server.enter(plan), parties, silent)
    _, late = graph.fails(n, channel.degree(n), 0.0, gone / 5, mode == "active")
    assert late == (-math.inf if gone == 2 else 0.0)
    assert (outcome.opened is not None) == (gone == 2)


def test_no_smaller_degree_keeps_the_promises_of_a_thousand_clients():
    found = graph.degree(1000, corrupt=0.05, drop=0.05, active=True)
    assert found == graph.Degree(59, 41)
    for k in range(2, found.k):
        t = graph.threshold_for(1000, k, 0.05, 40, active=True)
        private, late = graph.fails(1000, graph.Degree(k, t), 0.05, 0.05, True)
        assert t > k + 1 or private > -40 or late > -30
