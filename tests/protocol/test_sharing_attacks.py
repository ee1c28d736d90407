"""Attacks on additive sharing, with and without proofs, that go around the round: two plans of one
name, a round played again, a channel whose noise is another's.
"""

from dataclasses import replace

import pytest
import torch

from privfl.aggregators import Krum, Mean
from privfl.core import (
    Bounded,
    Faults,
    OsNoise,
    RoundPlan,
    SeededNoise,
    client_party,
    drive,
)
from privfl.crypto import AdditiveSharing
from privfl.crypto.abort import StageAbort
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.lies import Hears
from privfl.crypto.primitives import fields
from privfl.dp import DistributedSkellam
from privfl.hybrid import TwoServer

PLAIN, PROVED = AdditiveSharing(bits=12), AdditiveSharing(bits=12, proof="pine")
BOTH = pytest.mark.parametrize("channel", [PLAIN, PROVED], ids=["plain", "proved"])
PLAN = RoundPlan(0, (1, 2, 3, 4), d=3, l2=1.0, session=b"run")
ROWS = {i: Bounded(i, torch.tensor([0.1 * i, -0.2, 0.3]), 1.0) for i in PLAN.cohort}


class Recorded:
    """A client whose letters of an earlier round come again."""

    def __init__(self, letters):
        self.letters = letters

    def step(self, mail):
        return {} if mail else self.letters


def letters_of(everybody, plan, rows=ROWS):
    """What each client says in a round, as whoever carries the mail can keep it."""
    return {
        client_party(i): {
            to: bytes(body) for to, body in member.enter(plan, rows[i]).step({}).items()
        }
        for i, member in everybody.clients.items()
    }


def play(everybody, plan, letters, faults=Faults(), sleep=lambda party: party):
    """A round of these letters, with whatever the servers make of them."""
    parties = {who: Recorded(said) for who, said in letters.items()}
    parties |= {who: sleep(member.enter(plan)) for who, member in everybody.helpers.items()}
    return drive(everybody.server.enter(plan), parties, faults)


class Deaf(Hears):
    @property
    def result(self):
        return self.honest.result


def told_apart(first, second):
    """What the sums of a round that was played twice say of the client that is in one alone."""
    if first.opened is None or second.opened is None:
        return None
    return first.opened.what.value - second.opened.what.value


def twice(channel, everybody, plans, letters, sleep=lambda party: party):
    """The second server and the clients honest; the first one plays a round twice, the second time
    anew and without client/1.
    """
    first = play(everybody, plans[0], letters[0], sleep=sleep)
    deaf = Faults(byzantine={"server": lambda party: Deaf(party, lambda who: who != "client/1")})
    server = channel.server(everybody.keys["server"], everybody.directory)
    return first, play(replace(everybody, server=server), plans[1], letters[1], deaf, sleep=sleep)


@BOTH
def test_two_plans_are_never_one_round(channel):
    """Else the second server, which enters each once, sums the same shares of two sets."""
    everybody = Enrolled.fresh(channel, PLAN.cohort)
    one, two = replace(PLAN, session=b"run\0x"), replace(PLAN, part="x\0delta")
    letters = letters_of(everybody, one)
    renamed = {  # to the first server clients say the plan aloud
        who: {**said, "server": said["server"].replace(fields.facts(one), fields.facts(two))}
        for who, said in letters.items()
    }
    assert told_apart(*twice(channel, everybody, (one, two), (letters, renamed))) is None


@BOTH
@pytest.mark.parametrize("again", [False, True], ids=["the same letters", "fresh letters"])
def test_a_round_that_is_played_twice_tells_no_client_apart(channel, again, restless):
    everybody = Enrolled.fresh(channel, PLAN.cohort)
    letters = letters_of(everybody, PLAN)
    fresh = letters_of(everybody, PLAN) if again else letters
    found = twice(
        channel,
        everybody,
        (PLAN, PLAN),
        (letters, fresh),
        lambda party: restless(party, everybody.directory),
    )
    assert told_apart(*found) is None
    assert "entered before" in str(found[1].aborts["server/1"])


@pytest.mark.parametrize("channel", [PLAIN, PROVED], ids=["plain", "proved"])
def test_a_channels_noise_is_from_its_own_source(channel):
    """Not from that of an equal channel that played the same plan before it."""
    noise = DistributedSkellam(noise_multiplier=0.5)
    sums = []
    for source in (SeededNoise(1), OsNoise(), SeededNoise(1)):
        noisy = replace(channel, noise=noise, noise_source=source)
        everybody = Enrolled.fresh(noisy, PLAN.cohort)
        sums.append(play(everybody, PLAN, letters_of(everybody, PLAN)).opened.what.value)
    assert torch.equal(sums[0], sums[2])
    assert not torch.equal(sums[0], sums[1])


@BOTH
def test_servers_that_were_not_set_to_the_same_noise_open_nothing(channel):
    """The noise of one server is charged: of the one that may be set to add none."""
    noisy = replace(channel, noise=DistributedSkellam(noise_multiplier=0.5))
    everybody = Enrolled.fresh(noisy, PLAN.cohort)
    letters = letters_of(everybody, PLAN)
    bare = channel.helper("server/1", everybody.keys["server/1"], everybody.directory)
    mixed = replace(everybody, helpers={"server/1": bare})
    assert play(mixed, PLAN, letters).opened is None


@pytest.mark.parametrize("rule", [Mean(), Krum(f=0, m=2)], ids=["mean", "krum"])
def test_under_two_server_a_round_that_is_played_twice_tells_no_client_apart(rule):
    channel = TwoServer(rule)
    everybody = Enrolled.fresh(channel, PLAN.cohort)
    letters = letters_of(everybody, PLAN)
    assert play(everybody, PLAN, letters).opened is not None
    with pytest.raises(StageAbort, match="entered before") as refused:
        everybody.helpers["server/1"].enter(PLAN)
    assert refused.value.blamed == "server"
