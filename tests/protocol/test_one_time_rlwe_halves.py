"""One-time-pad RLWE where two coefficients share a value, in whole rounds: exact at the extremes,
and what a client can do that lies about one of the two; and boxes that are sealed by pieces.
"""

import itertools

import numpy as np
import pytest
import torch

from privfl.core import Bounded, Faults, RoundPlan, client_party, drive, drive_all
from privfl.crypto import OneTimeRLWE
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.he.boxes import seal_into
from privfl.crypto.he.mprlwe.ring import LIMBS, N
from privfl.crypto.he.onetime import message
from privfl.crypto.he.onetime.dealing import Dealing
from privfl.crypto.he.onetime.lies import _client
from privfl.crypto.he.onetime.pad import ShortStream, encrypted
from privfl.crypto.he.wire import Refused
from privfl.crypto.primitives import Identity
from privfl.crypto.primitives.pyca import Pyca
from privfl.crypto.primitives.pycryptodome import Pycryptodome
from privfl.crypto.primitives.sealed_box import OVERHEAD

CLIENTS, POLYNOMIALS = 10, 7
D = POLYNOMIALS * N - 1


class Shifted:
    """A client that adds to words of its contribution [blocks, 3, N] before it seals them."""

    def __init__(self, party, shift):
        self.honest, self.shift = _client(party), shift

    def step(self, mail):
        honest = self.honest
        if honest.update is None:
            return {}
        update, honest.update = honest.update, None
        settings, plan, who = honest.settings, honest.plan, honest.identity.who
        topic, layout = settings.topic(plan), settings.layout(plan)
        short = ShortStream(settings.secrets).take(1)[0]
        numbers = settings.scheme.encode(update, plan)
        body = b"".join(encrypted(numbers, short, settings.secrets, topic, layout))
        limbs = np.frombuffer(body, dtype="<u4").reshape(layout.blocks, LIMBS, N).copy()
        self.shift(limbs, layout)
        parts = message.dealt_parts(
            Dealing(short, settings.threshold),
            [limbs.tobytes()],
            topic,
            who,
            honest.occasions.heard,
            honest.directory,
        )
        return {"server": message.dealt_message(honest.identity, topic, parts).to_bytes()}


@pytest.fixture(scope="module")
def played():
    """Rounds of one set-up, by the integers that clients send: the integers of the sum."""
    channel = OneTimeRLWE(bits=20)
    everybody = Enrolled.fresh(channel, range(CLIENTS))
    drive_all({who: member.set_up() for who, member in everybody.members.items()})
    numbers = iter(range(1000))

    def play(rows, faults=Faults(), lie=None):
        plan = RoundPlan(next(numbers), tuple(range(CLIENTS)), D, l2=1.0, session=b"halves")
        assert channel.layout(plan).halves == 1
        scale = channel.code.scale(plan)
        others = {who: member.enter(plan) for who, member in everybody.helpers.items()}
        for i, member in everybody.clients.items():
            update = Bounded.claimed(i, torch.from_numpy(rows[i] / scale), 1.0)
            others[client_party(i)] = member.enter(plan, update)
        if lie is not None:
            others["client/0"] = Shifted(others["client/0"], lie)
        outcome = drive(everybody.server.enter(plan), others, faults)
        if outcome.opened is None:
            return outcome, None
        return outcome, np.rint(outcome.opened.what.value.double().numpy() * scale)

    return play


TOP = OneTimeRLWE(bits=20).code.top
ROWS = {
    "all at the top": np.full((CLIENTS, D), TOP),
    "all at the bottom": np.full((CLIENTS, D), -TOP),
    "in turn": TOP * (-1) ** np.arange(CLIENTS * D).reshape(CLIENTS, D),
    "around zero": np.random.default_rng(1).integers(-3, 4, (CLIENTS, D)),
}


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("gone", [(), (0, 4, 5)])
def test_a_sum_at_the_extremes_is_exact_and_no_alarm_rings(played, kind, gone):
    rows = ROWS[kind]
    outcome, total = played(rows, Faults(silent_from={client_party(i): 0 for i in gone}))
    assert outcome.opened is not None, outcome.aborts
    left = [i for i in range(CLIENTS) if i not in gone]
    exact = rows[left].sum(axis=0)
    assert np.abs(total - exact).max() <= np.abs(exact).max() * 2.0**-23
    assert outcome.opened.excluded == {}


def low_half_alone(limbs, layout):
    """A step of a value in one of its coefficients, so that the two contradict each other."""
    limbs[0, 2, 5:6] += np.uint32(1 << 32 - layout.half_bits)


def high_half_alone(limbs, layout):
    """The same in the other."""
    limbs[layout.halves, 2, 5:6] += np.uint32(1 << 32 - layout.sum_bits)


def both(limbs, layout):
    """A larger value than a client may send, in both coefficients."""
    for block, bits in ((0, layout.half_bits), (layout.halves, layout.sum_bits)):
        limbs[block, 2, 5:6] += np.uint32(((1 << 20) << 32 - bits) & 0xFFFFFFFF)


@pytest.mark.parametrize("lie", [low_half_alone, high_half_alone, both])
def test_a_client_that_lies_about_half_a_value_shifts_it_alone_or_ends_the_round(played, lie):
    found = set()
    for world in range(3):
        rows = np.random.default_rng(world).integers(-TOP // 8, TOP // 8, (CLIENTS, D))
        outcome, total = played(rows, lie=lie)
        if total is None:
            assert "nobody can tell wh" in str(outcome.aborts["server"])
            found.add("closed")
            continue
        assert outcome.opened.excluded == {}
        moved = total - rows.sum(axis=0)
        moved[np.abs(moved) < 1] = 0
        assert set(np.flatnonzero(moved)) <= {D - N + 1 + 5}, "the value that it lies about"
        found.add(moved.sum())
    assert len(found) == 1, "the same in every world"
    assert found == ({1 << 20} if lie is both else {"closed"})


def test_what_making_the_pieces_of_a_box_raises_is_not_put_on_its_receiver():
    me = Identity.fresh("server")

    def pieces():
        yield b"one"
        raise ValueError("out of range")

    with pytest.raises(ValueError, match="out of range"):
        seal_into(me.hello[32:], pieces(), b"purpose", memoryview(bytearray(6 + OVERHEAD)))
    with pytest.raises(Refused, match="nobody can hold"):
        seal_into(bytes(32), [b"three"], b"purpose", memoryview(bytearray(5 + OVERHEAD)))
    for size in (4, 6):
        with pytest.raises(ValueError):
            seal_into(me.hello[32:], [b"th", b"ree"], b"p", memoryview(bytearray(size + OVERHEAD)))


@pytest.mark.parametrize("library", [Pyca(), Pycryptodome()], ids=lambda library: library.name)
def test_however_a_plaintext_is_cut_the_box_is_the_same_and_opens_whole_or_not_at_all(library):
    key, nonce, plain = bytes(range(32)), bytes(12), bytes(range(256)) * 3
    whole = library.seal(key, nonce, plain, b"bound")
    for cuts in ([0], [1], [15, 31, 32, 33], [len(plain) - 1], [256, 512]):
        edges = [0, *cuts, len(plain)]
        out = bytearray(len(plain) + 16)
        pieces = (plain[a:b] for a, b in itertools.pairwise(edges))
        library.seal_into(key, nonce, pieces, b"bound", memoryview(out))
        assert bytes(out) == whole
    for wrong in (
        whole[:-1],
        whole[16:],
        whole + bytes(16),
        whole[16:32] + whole[:16] + whole[32:],
        whole[:256] + whole[:256] + whole[512:],
    ):
        assert library.unseal(key, nonce, wrong, b"bound") is None
    assert library.unseal(key, nonce, whole, b"bound to another") is None
