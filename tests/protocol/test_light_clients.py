"""What secure aggregation and additive sharing make of clients that weigh little: their weight has
words of its own, and how far their values are rounded is said before a run.
"""

import re

import pytest
import torch

from privfl import Federation
from privfl.core import Bounded, ConfigError, RoundPlan, client_party, drive
from privfl.crypto import AdditiveSharing, SecAgg
from privfl.crypto.enrolled import Enrolled

D = 8


def opened(channel, weights, max_weight):
    plan = RoundPlan(0, tuple(weights), D, 1.0, max_weight=max_weight)
    row = torch.full((D,), 0.9 / D**0.5)
    everybody = Enrolled.fresh(channel, weights)
    others = {
        client_party(c): m.enter(plan, Bounded(c, row, 1.0, weight=weights[c]))
        for c, m in everybody.clients.items()
    } | {who: m.enter(plan) for who, m in everybody.helpers.items()}
    outcome = drive(everybody.server.enter(plan), others)
    assert outcome.opened is not None, outcome.aborts
    return plan, outcome.opened.what, row


@pytest.mark.parametrize("bits", [8, 16, 24])
@pytest.mark.parametrize("most", [1e3, 1e5])
@pytest.mark.parametrize("kind", [SecAgg, AdditiveSharing])
def test_the_weights_of_light_clients_add_up_whatever_the_largest_weight_is(kind, most, bits):
    _, total, _ = opened(kind(bits=bits), dict.fromkeys(range(9), 1.0), most)
    assert total.weight == pytest.approx(9.0, rel=1e-3)
    _, mixed, _ = opened(kind(bits=bits), {0: most, 1: 1.0, 2: 0.25}, most)
    assert mixed.weight == pytest.approx(most + 1.25, rel=1e-7)


@pytest.mark.parametrize("bits", [16, 26])
def test_the_mean_of_light_clients_is_within_the_bound_that_the_encoding_states(bits):
    channel = SecAgg(bits=bits)
    plan, total, row = opened(channel, dict.fromkeys(range(9), 1.0), 1000.0)
    bound = channel.able.rounds_off(plan, 1.0)
    assert bound < (0.02 if bits == 16 else 2e-5)
    assert (total.mean() - row).abs().max() <= bound + 1e-6


def test_the_bound_is_met_by_an_update_halfway_between_two_steps():
    channel = SecAgg(bits=8)
    plan = RoundPlan(0, (0, 1), D, 1.0, max_weight=50.0)
    step = 50.0 / channel.code.scale(plan)
    update = Bounded(0, torch.full((D,), 0.499 * step), 1.0, weight=1.0)
    off = update.delta - channel.code.decode(channel.code.encode(update, plan), plan, 1).mean()
    assert off.abs().max() == pytest.approx(channel.able.rounds_off(plan, 1.0), rel=0.01)


def uneven(**channel):
    """Digits over clients of very different sizes."""
    split = {"name": "dirichlet", "alpha": 0.05}
    return {
        "data": {"name": "digits", "clients": 20, "partition": split},
        "channel": {"name": "secagg", **channel},
        "bound": {"name": "clip", "l2": 1.0},
        "rounds": 1,
    }


def test_a_run_whose_lightest_client_would_send_nothing_is_refused():
    with pytest.raises(ConfigError, match="nothing of its update is left"):
        Federation.from_config(uneven(bits=4)).run()


def test_a_report_says_how_far_the_lightest_clients_update_is_rounded():
    fact = Federation.from_config(uneven(bits=16)).run().summary["facts"]["rounding"]
    assert re.search(r"with \d+ samples \(the most: \d+\) is off by [\d.e-]+ times the bound", fact)
