"""Cheaper lies than the proofs of enforced rules allow for: proofs that are searched, references
that wrap around, rows that are dropped on a server's word, rounds that are entered twice.
"""

import dataclasses
import hashlib
import itertools

import numpy as np
import pytest
import torch

from benchmarks.hybrid.lying_servers import ENFORCED, SERVERS, D, N, Told, held
from privfl.aggregators import CosineFilter, Krum
from privfl.core import Bounded, Context, Faults, RoundPlan, client_party, drive
from privfl.crypto.abort import StageAbort
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.mpc.authentication import OpenChecked
from privfl.crypto.mpc.words import pack, packed_size, unpack
from privfl.hybrid.two_server import TwoServer
from privfl.hybrid.two_server.fixed_checks import Announce
from privfl.hybrid.two_server.fixed_choice import HIDDEN
from privfl.hybrid.two_server.fixed_lies import hides_a_norm
from privfl.hybrid.two_server.parameters import Direction
from privfl.testing import PlayedRound, contributions

HONEST = {"server": "server/1", "server/1": "server"}
POWER = 56
"""An error of 2^56 leaves 8 bits of each of two keys to guess."""


def explained(step, machine, told, nonce):
    """The words by which a proof of the other's is what it sent: the liar's own, off by an error
    of 2^56 times some 8 bits of each key; or nothing.
    """
    other = machine.names[machine.first].encode()
    head = b"privfl/1/mpc/opened/" + machine.tag + other + b"/" + step.what.name.encode()
    head += machine.at.to_bytes(4, "little") + nonce
    for guess in itertools.product(range(1 << (64 - POWER)), repeat=2):
        words = machine.unchecked[1].copy()
        words[0] += np.array([part << POWER for part in guess], dtype=np.uint64)
        words = words if machine.first else np.uint64(0) - words
        if hashlib.sha256(head + words.astype("<u8").tobytes()).digest() == told:
            return words
    return None


class Searches:
    """A rushing server that opens a first value off by 2^56, and looks in what the other sends for
    the words that it should have proved.
    """

    def __init__(self):
        self.heard, self.found = [], []

    def __call__(self, step, machine, mine, theirs):
        if not isinstance(step, OpenChecked) or step.what != HIDDEN:
            return mine, theirs
        if machine.unchecked is None:
            words = unpack(mine, 64, len(mine) // 8)
            words[:1] += np.uint64(1 << POWER)
            return pack(words, 64), theirs
        self.heard.append(theirs)
        if len(self.heard) == 2:
            self.found.append(explained(step, machine, *self.heard))
            return mine, theirs
        self.found.append(explained(step, machine, theirs, b""))
        return mine, theirs


@pytest.mark.parametrize("liar", SERVERS)
def test_who_hears_the_others_proof_first_has_committed_to_its_own(liar):
    searches = Searches()
    told = Told(ENFORCED["cosine filter, aggregate, malicious"], liar, searches)
    first, then = searches.found
    assert first is None  # a commitment tells nothing
    assert then is not None  # and what opens it comes too late
    assert not told.passed
    assert "what was shared" in str(told.aborts[HONEST[liar]])


def drops(places):
    """A server by whose word the clients at these places lied about their norms."""

    def off(machine, said):
        size = packed_size(machine.ring, machine.n)
        words = unpack(said[-size:], machine.ring, machine.n)
        words[places] += np.uint64(1)
        return said[:-size] + pack(words, machine.ring)

    def forge(step, machine, mine, theirs):
        if not isinstance(step, Announce):
            return mine, theirs
        return off(machine, mine), off(machine, theirs)

    return forge


@pytest.mark.parametrize("liar", SERVERS)
def test_a_row_that_is_dropped_on_a_servers_word_is_none_of_krums_byzantine_rows(liar):
    """Of these rows less the last Krum with f=0 chooses others than with f=1."""
    rows = held(4)
    told = Told(ENFORCED["krum, scores, malicious"], liar, drops([6]), rows)
    assert told.passed
    assert not told.wrong
    narrow = TwoServer(Krum(f=2, m=3), reveal="scores", bits=8, security="malicious")
    told = Told(narrow, liar, drops([6]), rows)
    assert not told.passed
    assert "6 rows are there" in str(told.aborts[HONEST[liar]])


@pytest.mark.parametrize("liar", SERVERS)
def test_who_is_dropped_on_a_servers_word_is_not_said_to_have_failed(liar):
    told = Told(ENFORCED["mean, selection, malicious"], liar, drops([2]))
    honest = told.machines[HONEST[liar]].machine
    assert set(honest.excluded) == {"client/2"}
    who = f"by its word, or that of {liar} or the dealer"
    assert honest.excluded["client/2"] == f"{who}, its norm is another"


@pytest.mark.parametrize("security", ["semi_honest", "malicious"])
@pytest.mark.parametrize("entry", [1 << 24, (1 << 31) - 1])
def test_a_reference_that_products_cut_off_or_that_wraps_around_is_refused(security, entry):
    """Of 2^24 the product takes no digit: the reference has a single coordinate in truth."""
    channel = TwoServer(CosineFilter(0.0, along), bits=8, security=security)
    plan = RoundPlan(0, tuple(range(N)), D, l2=1.0, session=b"wraps")
    made = Enrolled.fresh(channel, plan.cohort)
    made.server.inform(Context(plan, torch.zeros(D), torch.Generator()))
    parties = {
        client_party(i): member.enter(plan, Bounded(i, held()[i], 1.0))
        for i, member in made.clients.items()
    }
    parties |= {who: helper.enter(plan) for who, helper in made.helpers.items()}

    def wraps(party):
        party.direction = Direction.of(np.array([1, entry] + [0] * (D - 2)), 1.0)
        return party

    outcome = drive(made.server.enter(plan), parties, Faults(byzantine={"server": wraps}))
    assert outcome.opened is None
    assert "longer than any" in str(outcome.aborts["server/1"])


def along(rows, context):
    return torch.ones(D)


@pytest.mark.parametrize("security", ["semi_honest", "malicious"])
def test_a_dealer_deals_once_in_a_round(security):
    """Of two letters that hide R A + z under one pad z the difference is that of the keys R, times
    the masks A.
    """
    channel = TwoServer(Krum(f=1, m=3), reveal="scores", bits=8, security=security)
    plan = RoundPlan(0, tuple(range(N)), D, l2=1.0, session=b"again")
    dealer = Enrolled.fresh(channel, plan.cohort).helpers["dealer"]
    dealer.enter(plan)
    with pytest.raises(StageAbort, match="entered before"):
        dealer.enter(plan)
    dealer.enter(dataclasses.replace(plan, number=1))


def test_a_row_of_a_colluding_client_that_is_longer_than_its_norm_is_in_no_sum_of_krums():
    channel = TwoServer(Krum(f=1, m=3), reveal="scores", security="malicious")
    liars = {"server", "client/0"}
    assert not [lie for lie in channel.guarantee.lies if lie.how is hides_a_norm]
    told = PlayedRound.play(channel, contributions(), hides_a_norm(), liars)
    assert told.published is None
    assert "not one that was proved" in str(told.outcome.aborts["server/1"])
