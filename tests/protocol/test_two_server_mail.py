"""Whoever carries the mail writes in the name of a server, or of the dealer: what the others make
of it over bare mail, and over signed mail.
"""

import secrets
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from privfl import Federation
from privfl.aggregators import Mean
from privfl.core import Bounded, Faults, RoundPlan
from privfl.crypto.primitives import fields, seal_to
from privfl.engine import Session
from privfl.federation.summary import _described, guarantees_of
from privfl.hybrid.two_server import TwoServer
from privfl.hybrid.two_server.parameters import DEAL, DEALT
from privfl.hybrid.two_server.sealing import SEED_SIZE, seal_dealt

N, D = 4, 6
PLAN = RoundPlan(0, tuple(range(N)), D, l2=1.0, session=b"carried")
SENT = {i: Bounded(i, 0.3 * torch.randn(D).clamp(-1, 1), 1.0) for i in range(N)}
SECURITY = pytest.mark.parametrize("security", ["semi_honest", "malicious"])


@dataclass
class Garbles:
    """Changes the last byte of what a party writes to another one, of one kind."""

    honest: Any
    to: str
    kind: int

    def step(self, mail):
        out = dict(self.honest.step(mail))
        if self.to in out and out[self.to][4] == self.kind:
            body = bytes(out[self.to])
            out[self.to] = body[:-1] + bytes([body[-1] ^ 1])
        return out


@dataclass
class WritesItself:
    """The carrier, which lets a party speak, but for its letters to one other party."""

    honest: Any
    to: str
    letter: bytes

    def step(self, mail):
        out = dict(self.honest.step(mail))
        return {**out, self.to: self.letter} if self.to in out else out


def carried(mail, security, name, to, letter_of):
    session = Session(TwoServer(Mean(weighted=False), bits=8, security=security), mail=mail)
    session.enrol(SENT)
    letter = letter_of(session)
    lie = Faults(relayed={name: lambda party: WritesItself(party, to, letter)})
    return session.play(PLAN, SENT, lie)


def for_the_dealer(session):
    """What ``server/1`` writes to the dealer, with seeds of the carrier's own."""
    now = session.channel.round(PLAN)
    size = SEED_SIZE * (1 + N)
    boxes = session.directory.boxes("dealer")
    sealed = seal_to(
        boxes, secrets.token_bytes(size), now.bound_to("deal", "server/1"), now.library
    )
    return now.write(DEAL, 1, fields.bit_set(range(N), N), sealed)


def for_the_second_server(session):
    """What the dealer writes to ``server/1``, under a seed that the carrier has guessed."""
    now = session.channel.round(PLAN)
    return now.write(DEALT, 0, seal_dealt(now, secrets.token_bytes(32), secrets.token_bytes(64)))


@SECURITY
def test_over_signed_mail_the_dealer_refuses_a_letter_in_a_servers_name_and_nobody_is_blamed(
    security,
):
    outcome = carried("signed", security, "server/1", "dealer", for_the_dealer)
    (refusal,) = outcome.refused
    assert (refusal.receiver, refusal.sender) == ("dealer", "server/1")
    assert outcome.opened is None
    assert all(abort.blamed is None for abort in outcome.aborts.values())


@SECURITY
def test_over_bare_mail_a_letter_in_a_servers_name_ends_the_round_and_the_dealer_is_not_blamed(
    security,
):
    outcome = carried("bare", security, "server/1", "dealer", for_the_dealer)
    assert outcome.opened is None
    assert outcome.aborts
    assert all(abort.blamed is None for abort in outcome.aborts.values())


@SECURITY
@pytest.mark.parametrize("to", ["server", "server/1"])
def test_the_dealer_is_blamed_for_a_garbled_letter_where_it_signed_it_and_only_there(security, to):
    def garbled(party):
        return Garbles(party, to, DEALT)

    def played(mail, lie):
        session = Session(TwoServer(Mean(weighted=False), bits=8, security=security), mail=mail)
        session.enrol(SENT)
        outcome = session.play(PLAN, SENT, lie)
        assert outcome.opened is None
        return outcome.aborts[to]

    bare = played("bare", Faults(relayed={"dealer": garbled}))
    assert (bare.blamed, bare.letter_of) == (None, "dealer")
    assert "a letter in the name of dealer" in str(bare)
    signed = played("signed", Faults(byzantine={"dealer": garbled}))
    assert signed.blamed == "dealer"


def test_a_run_over_unsigned_mail_says_what_whoever_carries_it_can_do_and_a_signed_one_does_not():
    config = {
        "data": {"name": "digits", "clients": 6},
        "bound": {"name": "clip", "l2": 1.0},
        "channel": {"name": "two_server", "security": "malicious"},
        "rounds": 1,
    }
    for mail, says in (("bare", True), ("signed", False)):
        scenario = Federation.from_config({**config, "mail": mail}).scenario
        told = guarantees_of(scenario)["channel"]
        assert ("over unsigned mail" in told) == says
        assert ("promises nothing" in told["in sentences"]) == says
        assert ("promises nothing" in _described(scenario)) == says


@SECURITY
@pytest.mark.parametrize("mail", ["bare", "signed"])
def test_nobody_writes_in_the_dealers_name_to_a_server_whose_seed_only_the_dealer_has(
    mail, security
):
    outcome = carried(mail, security, "dealer", "server/1", for_the_second_server)
    assert outcome.opened is None
    if mail == "signed":
        (refusal,) = outcome.refused
        assert (refusal.receiver, refusal.sender) == ("server/1", "dealer")
    else:
        assert "not sealed by the dealer" in str(outcome.aborts["server/1"])
