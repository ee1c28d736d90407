"""A ciphertext is not its sender's alone: an encryption of zero added to it makes another one of
the same vector. Whoever sees it and signs the new one has it counted twice.
"""

import pytest
import torch

from privfl.core import Bounded, Liars, RoundPlan, client_party, drive, drive_all
from privfl.crypto import BFV, CKKS, MultiPartyRLWE, Paillier
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.he.boxes import letter
from privfl.crypto.he.client import posted
from privfl.crypto.he.decryption_policy import CIPHERTEXT
from privfl.crypto.he.paillier import PaillierPublic
from privfl.crypto.he.wire import Refused, SignedMessage, unpack
from privfl.testing import PlayedRound, contributions

SMALL = {"key_bits": 512, "insecure_for_tests": True}
CHANNELS = {
    "bfv": BFV(),
    "ckks": CKKS(),
    "paillier": Paillier(**SMALL),
    "paillier-threshold": Paillier(keys="threshold", **SMALL),
    "mp-rlwe": MultiPartyRLWE(),
}
every_channel = pytest.mark.parametrize("channel", CHANNELS.values(), ids=CHANNELS)
N, D, COPIERS = 6, 40, (3, 4, 5)


class Tap:
    """A session whose copiers tap all wires, and send when the victim has sent."""

    def __init__(self, channel):
        self.channel = channel
        self.members = dict(Enrolled.fresh(channel, range(N)).members)
        drive_all({who: member.set_up() for who, member in self.members.items()})
        rows = torch.randn(N, D, generator=torch.Generator().manual_seed(2))
        self.rows = 0.9 * rows / rows.norm(dim=1, keepdim=True)
        self.number = 0

    def play(self, copy):
        """One round; ``copy`` makes a copier's letter of the victim's, or None."""
        self.number += 1
        plan = RoundPlan(self.number, tuple(range(N)), D, l2=1.0, session=b"s")
        parties = {
            client_party(i): self.members[client_party(i)].enter(
                plan, Bounded(i, self.rows[i], 1.0)
            )
            for i in range(N)
        }
        tapped = parties["client/0"].step({})["server"]
        parties["client/0"] = Says(tapped)
        for i in COPIERS:
            parties[client_party(i)] = Says(copy(self.members[client_party(i)].ring, plan, tapped))
        parties |= {who: self.members[who].enter(plan) for who in self.channel.helpers}
        outcome = drive(self.members["server"].enter(plan), parties, keep_bodies=True)
        self.wires = [bytes(message.body) for message in outcome.messages]
        return outcome


class Says:
    def __init__(self, body):
        self.body = body

    def step(self, mail):
        return {} if mail or self.body is None else {"server": self.body}


def again(ring, plan, message):
    """The same vector, re-randomised, as this party's own."""
    zero = ring.scheme.encode(Bounded(0, torch.zeros(plan.d), plan.l2), plan) * 0
    key = ring.public
    if isinstance(key, PaillierPublic):  # its packing shifts every contribution, zero too
        count = key.slots(plan).plaintexts(plan.d + 1)
        blank = key.blinded([0] * count, key.fresh_blinding(count))
        return key.add([message.whole(), blank], plan)
    return key.add([message.whole(), key.encrypt(zero, plan)], plan)


def readable(body):
    """The ciphertexts that somebody without a key finds in a letter."""
    found = []
    for item in (body, *_list(body)):
        try:
            found.append(SignedMessage.read(item))
        except Refused:
            continue
    return [m for m in found if m.kind == CIPHERTEXT and None not in m.parts]


def _list(body):
    try:
        return unpack(body)
    except Refused:
        return []


@every_channel
def test_clients_that_tap_the_wires_do_not_have_a_victim_counted_again(channel):
    tap = Tap(channel)

    def copy(ring, plan, tapped):
        seen = readable(tapped)
        return posted(ring, plan, again(ring, plan, seen[0])) if seen else None

    outcome = tap.play(copy)
    opened = outcome.opened
    assert opened is None or 0 in opened.survivors
    if opened is not None:
        exact = tap.rows[list(opened.survivors)].sum(dim=0)
        assert (opened.what.value - exact).abs().max() < 3e-4
        assert not set(opened.survivors) & set(COPIERS)
    assert not [message for body in tap.wires for message in readable(body)]


@every_channel
def test_a_letter_sent_on_as_ones_own_is_refused_by_name(channel):
    tap = Tap(channel)
    outcome = tap.play(lambda ring, plan, tapped: bytes(tapped))
    assert outcome.opened is None
    assert all(f"client/{i}" in str(outcome.aborts["server"]) for i in COPIERS)


@every_channel
def test_the_same_ciphertext_under_two_names_is_left_out_of_the_sum(channel):
    """Whose it is nobody can tell; an honest client's is never another's."""
    tap, server = Tap(channel), None

    def copy(ring, plan, tapped):
        if ring.who != "client/3":
            return None
        server = tap.members["server"].ring.identity  # it works with whoever reads the letter
        message = SignedMessage.read(letter(server, tapped, "client/0"))
        return posted(ring, plan, message.whole())

    outcome = tap.play(copy)
    assert server is None
    assert outcome.opened is None
    said = str(outcome.aborts["server"])
    assert "client/0: it sent the same ciphertext as client/3" in said
    assert "client/3: it sent the same ciphertext as client/0" in said


class SendsAgain:
    """A server that waits for a victim's ciphertext, has it re-randomised and signed by a client
    that works with it, and takes that in place of the client's own.
    """

    def __init__(self, honest, friend):
        self.honest, self.friend = honest, friend

    def step(self, mail):
        changed, ring = dict(mail), self.friend
        if ring.who in mail and bytes(mail[ring.who])[:3] == b"PFS":
            plan, who = self.honest.plan, f"client/{N - 1}"
            message = SignedMessage.read(letter(self.honest.ring.identity, mail[who], who))
            changed[ring.who] = posted(ring, plan, again(ring, plan, message))
        return self.honest.step(changed)


@every_channel
def test_the_server_with_a_client_counts_a_victim_twice_as_the_channel_says_aloud(channel):
    def enter(plan, honest):
        return {**honest, "server": SendsAgain(honest["server"], honest["client/0"].ring)}

    liars = Liars(enter=enter)
    played = PlayedRound.play(channel, contributions(), liars, ["server", "client/0"])
    weights = torch.linalg.lstsq(contributions().rows.double().T, played.mean[:, None])
    counted = weights.solution[:, 0] * N
    assert counted.round().tolist() == [0, 1, 1, 1, 1, 2]
    assert "sent again, re-randomised, and nobody can tell" in channel.describe()
