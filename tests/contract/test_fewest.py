"""How few contributions a channel says that it opens is how few its parties open."""

import pytest
import torch

from privfl import catalog
from privfl.aggregators import FLTrust
from privfl.core import Bounded, PrivflError, RoundPlan, seal_state
from privfl.core.sealed_state import StateKey
from privfl.crypto.enrolled import Enrolled
from privfl.engine import Session, too_few
from privfl.hybrid import TwoServer

SMALL = {"paillier": {"key_bits": 512, "insecure_for_tests": True}}


@pytest.mark.parametrize("name", sorted(set(catalog.CHANNELS) - set(catalog.HYBRIDS)))
def test_a_channel_opens_as_few_contributions_as_it_says_and_no_fewer(name):
    channel = catalog.CHANNELS[name](**SMALL.get(name, {}))
    session, n = Session(channel), 4
    session.enrol(range(n))
    fewest = channel.able.fewest(n)
    assert not too_few(channel, n)
    assert bool(too_few(channel, 1)) == (channel.able.fewest(1) > 1)
    for number, m in enumerate((n, fewest, fewest - 1)):
        plan = RoundPlan(number, tuple(range(n)), 3, 1.0, session=b"fewest")
        outcome = session.play(plan, {c: Bounded(c, torch.full((3,), 0.1), 1.0) for c in range(m)})
        assert (outcome.opened is not None) == (m >= fewest)


def test_a_party_whose_rule_holds_a_local_function_says_so_when_it_is_put_to_rest():
    key = StateKey()
    channel = TwoServer(rule=FLTrust(lambda context: torch.ones(3)))
    for awake in Enrolled.fresh(channel, range(3)).members.values():
        with pytest.raises(PrivflError, match="a lambda or a local function"):
            seal_state(awake, key)
