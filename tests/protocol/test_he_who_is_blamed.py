"""What a liar of a homomorphic channel sends is refused by a typed error, and nobody honest is
blamed for it.
"""

import pytest
import torch

from privfl.core import Abort, Bounded, Faults, RoundPlan, client_party, drive, drive_all
from privfl.crypto import BFV, MultiPartyRLWE, Paillier
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.he.client import posted
from privfl.crypto.he.decryption_policy import SUM
from privfl.crypto.he.mprlwe import lies as joint_lies
from privfl.crypto.he.paillier import PaillierPublic
from privfl.crypto.he.paillier.keys import from_primes
from privfl.crypto.he.paillier.safe_primes import safe_prime
from privfl.crypto.he.wire import Refused, SignedMessage, pack
from privfl.testing.played_rounds import PlayedRound, contributions

SMALL = {"key_bits": 512, "insecure_for_tests": True}


def started(channel, d=20, n=4):
    """Everybody's party in a round, after a set-up; the members."""
    members = dict(Enrolled.fresh(channel, range(n)).members)
    drive_all({who: member.set_up() for who, member in members.items()})
    plan = RoundPlan(1, tuple(range(n)), d, l2=1.0, session=b"s")
    update = torch.full((d,), 0.1)
    parties = {
        client_party(i): members[client_party(i)].enter(plan, Bounded(i, update, 1.0))
        for i in range(n)
    }
    return members, plan, parties | {who: members[who].enter(plan) for who in channel.helpers}


class Says:
    def __init__(self, body):
        self.body = body

    def step(self, mail):
        return {} if mail else {"server": self.body}


@pytest.mark.parametrize(
    "settings", [{}, {"verify_sum": False}, {"keys": "shared"}, {"keys": "threshold"}]
)
def test_a_client_whose_plaintext_is_no_update_does_not_have_the_server_blamed(settings):
    channel = Paillier(**settings, **SMALL)
    members, plan, parties = started(channel)
    ring = members["client/1"].ring
    public = ring.key()
    count = public.slots(plan).plaintexts(plan.d + 1)
    junk = public.blinded([public.n // 2] * count, public.fresh_blinding(count))
    parties["client/1"] = Says(posted(ring, plan, junk))
    outcome = drive(members["server"].enter(plan), parties)
    assert outcome.opened is None
    assert {abort.blamed for abort in outcome.aborts.values()} == {None}


@pytest.mark.parametrize("channel", [BFV(verify_sum=False), BFV(keys="shared")])
@pytest.mark.parametrize("length", [0, 3, 5, 5000])
def test_a_sum_that_says_its_count_in_another_form_is_an_abort_that_blames_the_server(
    channel, length
):
    members, plan, parties = started(channel)
    who = "client/0" if channel.keys == "shared" else "decryptor/0"
    ring, part = members["server"].ring, b"x" * 8
    parts = b"\xff" * length, part
    lie = SignedMessage.signed(ring.identity, SUM, ring.topic(plan), "server", parts).to_bytes()
    with pytest.raises(Abort, match="another form") as refusal:
        parties[who].step({"server": lie})
    assert refusal.value.blamed == "server"


def test_a_blinding_base_whose_powers_hide_nothing_is_no_key():
    secret = from_primes(safe_prime(128), safe_prime(128), 16)
    n, honest = secret.public.n, secret.public.to_bytes()
    assert PaillierPublic.from_bytes(honest, least_bits=256).key_id == secret.public.key_id
    for base in (1, n * n - 1, n * n + 1, n):
        public = PaillierPublic(n, base, 16)
        with pytest.raises(Refused, match="degenerate h_s"):
            PaillierPublic.from_bytes(public.to_bytes(), least_bits=256)
    with pytest.raises(Refused):
        PaillierPublic.from_bytes(pack([b"paillier"]), least_bits=256)


class Loses:
    """Around a party, on its way: one of its messages, by number, gets lost."""

    def __init__(self, honest, number):
        self.honest, self.number, self.said = honest, number, -1

    def step(self, mail):
        out = self.honest.step(mail)
        self.said += bool(out)
        return {} if out and self.said == self.number else out


def test_a_server_whose_decryptors_answers_get_lost_asks_nobody_twice_for_one_piece():
    """Of decryptor/0 the first answer is lost, so that decryptor/1 is asked anew; then its own."""
    members, plan, parties = started(MultiPartyRLWE())
    lost = {"decryptor/0": 1, "decryptor/1": 2}
    relayed = {
        who: lambda party, number=number: Loses(party, number) for who, number in lost.items()
    }
    outcome = drive(members["server"].enter(plan), parties, Faults(relayed=relayed))
    assert outcome.opened is None
    assert {abort.blamed for abort in outcome.aborts.values()} == {None}


class HandsOut:
    """A key maker that hands out something in the place of the key."""

    def __init__(self, party, body):
        self.party, self.body = party, body

    def step(self, mail):
        return dict.fromkeys(self.party.step(mail), self.body)


@pytest.mark.parametrize("body", [b"junk", pack([b"x"] * 6)], ids=["no message", "no key"])
@pytest.mark.parametrize("channel", [BFV(), Paillier(**SMALL)], ids=["bfv", "paillier"])
def test_a_maker_that_hands_out_no_key_is_blamed_and_a_silent_one_is_not(channel, body):
    members = dict(Enrolled.fresh(channel, range(3)).members)
    maker = members["client/0"].ring.arrangement.maker
    clients = [client_party(i) for i in range(3)]

    def set_up(faults):
        return drive_all({who: member.set_up() for who, member in members.items()}, faults)

    lies = set_up(Faults(byzantine={maker: lambda party: HandsOut(party, body)})).aborts
    assert {who: lies[who].blamed for who in clients} == dict.fromkeys(clients, maker)
    assert not set_up(Faults(silent_from={maker: 0})).aborts
    for who in clients:
        with pytest.raises(Abort, match="is silent, or the mail of the set-up is lost") as told:
            members[who].ring.key()
        assert told.value.blamed is None


def test_a_part_moved_past_the_end_of_a_word_is_a_lie_and_no_crash(monkeypatch):
    channel, half_a_word = MultiPartyRLWE(), 1 << 18  # of 19 bits of plaintext
    monkeypatch.setattr(joint_lies, "CONSTANT", half_a_word)
    for _ in range(8):  # each crosses the end in one of two, by the noise in the part
        liars = joint_lies.moves_the_sum()
        lied = PlayedRound.play(channel, contributions(), liars, set(channel.helpers))
        assert lied.published is not None
