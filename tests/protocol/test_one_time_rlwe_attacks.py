"""What lying clients, decryptors and servers try on one-time-pad RLWE, each through the real
parties, and what one lying client does to the multi-party scheme beside it.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from Crypto.Cipher import AES

from privfl.core import Abort, Bounded, Faults, RoundPlan, client_party, drive, drive_all
from privfl.crypto import MultiPartyRLWE, OneTimeRLWE
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.he.boxes import letter
from privfl.crypto.he.client import posted
from privfl.crypto.he.mprlwe.keys import TernaryPart, partial, plain_bits, to_bytes
from privfl.crypto.he.mprlwe.ring import LIMBS, N
from privfl.crypto.he.onetime import dealing, opening, view
from privfl.crypto.he.onetime.dealing import Dealing
from privfl.crypto.he.onetime.lies import AnswersAnother, Bent, DealsBadly, TurnsDown
from privfl.crypto.he.onetime.message import (
    BOXES,
    CONTRIBUTION,
    OPEN,
    PROOF,
    contribution_in,
    dealt_message,
    dealt_parts,
    id_of,
    ids_bytes,
)
from privfl.crypto.he.onetime.pad import ShortStream, encrypted
from privfl.crypto.he.onetime.parameters import P
from privfl.crypto.he.wire import SignedMessage, pack, unpack
from privfl.crypto.primitives import Identity

CLIENTS = 5
LIAR = "client/4"
TOP = (1 << 15) - 1


class Session:
    """Five clients, the last of whom may lie, set up."""

    def __init__(self, channel, d=60, seed=8, n=CLIENTS):
        self.channel, self.d, self.n, self.number = channel, d, n, 0
        self.all = Enrolled.fresh(channel, range(n))
        self.members = dict(self.all.members)
        self.set_up()
        self.draw(seed)

    def set_up(self):
        drive_all({who: member.set_up() for who, member in self.members.items()})

    def draw(self, seed):
        rows = torch.randn(self.n, self.d, generator=torch.Generator().manual_seed(seed))
        self.rows = 0.9 * rows / rows.norm(dim=1, keepdim=True)

    def plan(self, number):
        return RoundPlan(number, tuple(range(self.n)), self.d, l2=1.0, session=b"s")

    def entered(self, plan):
        out = {
            client_party(i): self.members[client_party(i)].enter(
                plan, Bounded(i, self.rows[i], 1.0)
            )
            for i in range(self.n)
        }
        return out | {who: self.members[who].enter(plan) for who in self.channel.helpers}

    def play(self, liars=None, plan=None, faults=Faults(), server=None):
        """A round in which some parties are replaced by what these make of them."""
        self.number += 1
        plan = plan or self.plan(self.number)
        parties = self.entered(plan)
        for who, lie in (liars or {}).items():
            parties[who] = lie(parties[who])
        opener = self.members["server"].enter(plan)
        return drive(
            opener if server is None else server(opener), parties, faults, keep_bodies=True
        )

    def integers(self, i):
        plan = self.plan(0)
        return self.channel.scheme.encode(Bounded(i, self.rows[i], 1.0), plan)[:-1]

    def deviation(self, outcome):
        """What was opened less the honest clients' sum, in integers; None where nothing was."""
        if outcome.opened is None:
            return None
        opened = np.rint(outcome.opened.what.value.double().numpy() * TOP).astype(np.int64)
        honest = sum(self.integers(i) for i in outcome.opened.survivors if i != CLIENTS - 1)
        return tuple(opened - honest)

    def messages(self, plan):
        """What every client sends in a round."""
        return [
            SignedMessage.read(party.step({})["server"])
            for who, party in self.entered(plan).items()
            if who.startswith("client/")
        ]

    def assert_sum(self, outcome, survivors):
        assert outcome.opened is not None, outcome.aborts
        assert outcome.opened.survivors == tuple(survivors)
        exact = self.rows[list(survivors)].sum(dim=0)
        assert (outcome.opened.what.value - exact).abs().max() < 3e-4


@dataclass
class Hostile:
    """A client that sends what ``make`` makes of its honest party and update."""

    honest: object
    make: object
    done: bool = False

    def step(self, mail):
        if self.done or mail:
            return {}
        self.done = True
        return {"server": self.make(self.honest)}


def hostile(make):
    return {LIAR: lambda honest: Hostile(honest, make)}


def signed(honest, parts):
    topic = honest.settings.topic(honest.plan)
    return dealt_message(honest.identity, topic, tuple(parts)).to_bytes()


def parts_of(honest, body, short, kind=Dealing):
    """A well-formed dealing of any key beside any contribution."""
    topic, who = honest.settings.topic(honest.plan), honest.identity.who
    dealt = kind(np.asarray(short), honest.settings.threshold)
    return dealt_parts(dealt, [body], topic, who, honest.occasions.heard, honest.directory)


def as_body(limbs):
    """Limbs [3, blocks, N] as a contribution."""
    return np.asarray(limbs, dtype=np.uint64).astype("<u4").swapaxes(0, 1).tobytes()


def limbs_of(body, layout):
    """And back."""
    return np.frombuffer(body, dtype="<u4").reshape(layout.blocks, LIMBS, N).swapaxes(0, 1)


def whole(*what):
    """An encrypted contribution in one piece."""
    return b"".join(encrypted(*what))


def layout_of(honest):
    return honest.settings.layout(honest.plan)


def body_of(values, layout):
    """These integers [blocks, N], 96 bits each, as a contribution."""
    wide = [[int(v) % (1 << 96) for v in row] for row in np.asarray(values, dtype=object)]
    limbs = [[[v >> 32 * limb & 0xFFFFFFFF for v in row] for row in wide] for limb in range(LIMBS)]
    return as_body(limbs)


# ---- one client against the multi-party scheme, and the same against this one


def test_one_lying_client_reads_the_joint_key_and_with_the_server_every_update():
    """Under the multi-party scheme a client picks its own c1: c1 = K makes the published sum hold
    K times the joint secret.
    """
    session = Session(MultiPartyRLWE(), d=5000)
    factor = 40_000

    def chosen(honest):
        ring, plan = honest.ring, honest.plan
        blocks = ring.key().blocks(plan)
        step = 96 - plain_bits(plan, ring.key().top)
        c1 = np.zeros((LIMBS, blocks, N), dtype=np.uint32)
        c1[1, 0, 0], c1[2, 0, 0] = (factor << step) >> 32 & 0xFFFFFFFF, (factor << step) >> 64
        return posted(ring, plan, (bytes(4 * blocks * N), to_bytes(c1)))

    outcome = session.play(hostile(chosen))
    assert outcome.opened.survivors == tuple(range(CLIENTS)), "the server takes it for honest"
    published = outcome.opened.what.value.double().numpy() * TOP
    taken = np.rint(published[:N] / factor).astype(np.int8)
    pieces = {
        p: part for who in session.channel.helpers for p, part in session.members[who].held.items()
    }
    secret = sum(part.coefficients.astype(int) for part in pieces.values())
    assert (taken == secret).sum() == N
    key = TernaryPart()
    key.coefficients = taken  # all that the attacker has beside what travels
    plan, public = session.plan(session.number), session.members["client/4"].ring.key()
    server = session.members["server"].ring.identity  # the server that colludes opens its letters
    for i in range(CLIENTS - 1):
        sent = next(m.body for m in outcome.messages if m.sender == client_party(i))
        c0, c1 = SignedMessage.read(letter(server, sent, client_party(i))).whole()
        share = partial([key], bytes(c1), public.blocks(plan), None)
        read = public.opened(bytes(c0), [share], plan)[:-1]
        assert (read == session.integers(i)).all()


@pytest.mark.parametrize("where", ["contribution", "key", "both"])
def test_the_same_client_learns_nothing_of_anybodys_key_here(where):
    """There is no c1. What it adds to the contribution, or deals as a key, comes back as it is."""
    session = Session(OneTimeRLWE(), d=5000)
    factor = 40_000

    def chosen(honest):
        layout, topic = layout_of(honest), honest.settings.topic(honest.plan)
        short = np.zeros(N, dtype=np.int8)
        short[0] = 24 if where != "contribution" else 0
        digits = np.zeros(honest.plan.d + 1, dtype=np.int64)
        digits[-1] = TOP
        body = whole(digits, short, "binomial", topic, layout)
        limbs = limbs_of(body, layout).copy()
        if where != "key":
            limbs[0, 0, 0] += np.uint32(factor * layout.step % (1 << 32))
        return signed(honest, parts_of(honest, as_body(limbs), short))

    deviations = set()
    for seed in range(5):
        session.draw(seed)
        deviations.add(session.deviation(session.play(hostile(chosen))))
    assert len(deviations) == 1, "the sum tells as much of the others whatever they hold"
    (only,) = deviations
    assert only is not None
    assert np.count_nonzero(only) <= 1


# ---- clients


def opened_by_the_server(session, victim, honest):
    """A victim's encrypted contribution, which the server alone can take out of its box."""
    server = session.members["server"].identity
    return contribution_in(victim, server, layout_of(honest).size)


def copied(make_body):
    """A copy of a victim's contribution under a dealing of one's own."""

    def make(honest):
        short = ShortStream("binomial").take(1)[0]
        return signed(honest, parts_of(honest, make_body(honest), short))

    return make


def with_victim(session, make_of):
    """Play a round in which the liar has client/0's message of that round before it speaks."""
    plan = session.plan(session.number + 1)
    seen = []
    parties = session.entered(plan)
    victim = parties["client/0"].step({})
    seen.append(SignedMessage.read(victim["server"]))

    class Sends:
        def step(self, mail):
            return {} if mail else victim

    return session.play({"client/0": lambda honest: Sends(), **hostile(make_of(seen))}, plan)


def test_a_copied_contribution_ends_the_round_and_nobody_is_blamed():
    """The server has to open the victim's box for the client that copies."""
    session = Session(OneTimeRLWE())

    def lie(seen):
        return copied(lambda honest: opened_by_the_server(session, seen[0], honest))

    outcome = with_victim(session, lie)
    assert outcome.opened is None
    abort = outcome.aborts["server"]
    assert abort.blamed is None
    assert "a client's contribution does not fit the key that it dealt" in str(abort)


@pytest.mark.parametrize("dealing_of", ["its own", "the victim's"])
def test_a_client_that_taps_the_wires_has_nothing_to_copy_and_is_named_if_it_tries(dealing_of):
    session = Session(OneTimeRLWE())

    def lie(seen):
        def make(honest):
            parts = list(map(bytes, seen[0].parts))
            if dealing_of == "its own":
                parts[PROOF:] = parts_of(honest, b"", np.zeros(N, dtype=np.int64))[PROOF:]
            return signed(honest, parts)

        return make

    outcome = with_victim(session, lie)
    session.assert_sum(outcome, range(CLIENTS - 1))
    assert outcome.opened.excluded == {LIAR: "a sealed box does not open"}


def test_a_copy_of_somebody_elses_boxes_does_not_open_and_its_sender_is_named():
    session = Session(OneTimeRLWE())

    def lie(seen):
        def make(honest):
            parts = SignedMessage.read(honest.step({})["server"]).parts
            return signed(honest, [*parts[:PROOF], *map(bytes, seen[0].parts[PROOF:])])

        return make

    outcome = with_victim(session, lie)
    session.assert_sum(outcome, range(CLIENTS - 1))
    assert outcome.opened.excluded.keys() == {LIAR}
    assert "found its dealing bad" in outcome.opened.excluded[LIAR]


def test_a_copy_with_an_encryption_of_zero_added_is_a_copy():
    """What is malleable elsewhere: four times a victim in a verified sum."""
    session = Session(OneTimeRLWE())

    def more(seen):
        def make(honest):
            layout, topic = layout_of(honest), honest.settings.topic(honest.plan)
            short = ShortStream("binomial").take(1)[0]
            zero = -np.full(layout.slots * layout.blocks * N, layout.top)
            body = whole(zero, short, "binomial", topic, layout)
            wide = [
                [limbs_of(b, layout).astype(object)[limb] << 32 * limb]
                for b in (body, opened_by_the_server(session, seen[0], honest))
                for limb in range(LIMBS)
            ]
            total = sum(part[0] for part in wide)
            return signed(honest, parts_of(honest, body_of(total, layout), short))

        return make

    outcome = with_victim(session, more)
    assert outcome.opened is None
    assert outcome.aborts["server"].blamed is None


class BentEverywhere(Dealing):
    def share(self, point):
        values = super().share(point)
        return (values + point * point * np.eye(1, len(values), dtype=np.int64)[0]) % P


@pytest.mark.parametrize(
    ("settings", "kind", "survivors"),
    [
        ({}, Bent, 5),
        ({}, BentEverywhere, 4),
        ({"threshold": 3}, Bent, 4),
        ({"holders": 5, "threshold": 3}, Bent, 5),
        ({"holders": 5, "threshold": 3}, BentEverywhere, 4),
    ],
)
def test_shares_on_no_polynomial_never_make_a_wrong_sum(settings, kind, survivors):
    session = Session(OneTimeRLWE(**settings))
    outcome = session.play({LIAR: lambda honest: DealsBadly(honest, kind)})
    session.assert_sum(outcome, range(survivors))
    said = outcome.opened.excluded
    if kind is BentEverywhere and settings.get("threshold", 2) < settings.get("holders", 3):
        assert said.keys() == {LIAR}
    else:
        assert said.keys() == {LIAR, "decryptor/0"}
        assert all("one of the two lied" in why for why in said.values())


def test_fifty_of_fifty_shares_with_one_wrong_word_are_found():
    generator = np.random.default_rng(0)
    short = ShortStream("binomial").take(1)[0]
    for trial in range(50):
        dealt = Dealing(short, 3)
        challenge = dealing.challenge(trial.to_bytes(4, "little"))
        proof = dealt.proof(challenge)
        share = dealt.share(4)
        assert dealing.fits(share, 4, proof, challenge)
        word = generator.integers(len(share))
        share[word] = (share[word] + generator.integers(1, P)) % P
        assert not dealing.fits(share, 4, proof, challenge)


def test_a_challenge_is_the_words_in_the_field_of_aes_128_ctr_under_shake_256():
    """By the definition, in another library; and uniform."""
    key = hashlib.shake_256(b"privfl/onetime/challenge/2\x00root").digest(16)
    cipher = AES.new(key, AES.MODE_CTR, nonce=bytes(12), initial_value=2)
    stream = np.frombuffer(cipher.encrypt(bytes(100_000)), dtype="<u2")
    found = dealing.challenge(b"root")
    assert (found.reshape(-1) == stream[stream < P][: found.size]).all()
    many = np.concatenate([dealing.challenge(bytes([i])).reshape(-1) for i in range(10)])
    counts = np.bincount(many * 16 // P, minlength=16)
    expected = len(many) / 16
    assert ((counts - expected) ** 2 / expected).sum() < 45  # 15 degrees of freedom: p < 1e-4


def test_one_share_fewer_than_the_threshold_is_uniform_whatever_the_key():
    for value in (0, 24):
        short = np.full(N, value, dtype=np.int8)
        drawn = np.concatenate([Dealing(short, 2).share(1)[:N] for _ in range(25)])
        counts = np.bincount(drawn * 16 // P, minlength=16)
        expected = len(drawn) / 16
        assert ((counts - expected) ** 2 / expected).sum() < 45  # 15 degrees of freedom: p < 1e-4


@pytest.mark.parametrize("part", [CONTRIBUTION, PROOF, BOXES, BOXES + 2])
@pytest.mark.parametrize("trial", range(4))
def test_a_changed_and_newly_signed_message_makes_no_wrong_sum(part, trial):
    session = Session(OneTimeRLWE())
    generator = np.random.default_rng(100 * part + trial)

    def make(honest):
        parts = [bytearray(p) for p in SignedMessage.read(honest.step({})["server"]).parts]
        place = generator.integers(len(parts[part]))
        parts[part][place] ^= 1 << int(generator.integers(8))
        return signed(honest, [bytes(p) for p in parts])

    outcome = session.play(hostile(make))
    session.assert_sum(outcome, [i for i in outcome.opened.survivors if i < CLIENTS] or ())
    assert outcome.opened.survivors[:4] == (0, 1, 2, 3)
    named = outcome.opened.excluded
    assert LIAR in named
    assert all("one of the two lied" in named[who] for who in named if who != LIAR)


# ---- non-interference


def honest_parts(honest, scale=0, error=0, key=None, where=slice(None)):
    """The liar's own contribution of zeros with something added to words of its first block."""
    layout, topic = layout_of(honest), honest.settings.topic(honest.plan)
    short = np.zeros(N, dtype=np.int64) if key is None else key
    numbers = np.zeros(honest.plan.d + 1, dtype=np.int64)
    numbers[-1] = TOP
    small = short.astype(np.int8)
    body = whole(numbers, small, "binomial", topic, layout)
    limbs = limbs_of(body, layout).astype(np.int64)
    limbs[0, 0, where] += scale * layout.step + error
    for limb in range(LIMBS - 1):
        limbs[limb + 1] += limbs[limb] >> 32
    return as_body(limbs & 0xFFFFFFFF), short


def fixed_key(seed):
    return np.random.default_rng(seed).integers(-12, 13, N)


def random_body(honest):
    size = layout_of(honest).size
    return np.random.default_rng(3).integers(0, 256, size, dtype=np.uint8).tobytes(), fixed_key(1)


MESSAGES = {
    "zeros": honest_parts,
    "a chosen constant": lambda h: honest_parts(h, scale=40_000, where=slice(1)),
    "a chosen vector": lambda h: honest_parts(h, scale=123, key=fixed_key(0)),
    "a digit too many": lambda h: honest_parts(h, scale=1 << 30, where=slice(1)),
    "half a step": lambda h: honest_parts(h, error=layout_of(h).step // 2),
    "half a step in one word": lambda h: honest_parts(
        h, error=layout_of(h).step // 2, where=slice(7, 8)
    ),
    "a long key": lambda h: (honest_parts(h)[0], np.full(N, 1000)),
    "another key": lambda h: (honest_parts(h, key=fixed_key(4))[0], fixed_key(5)),
    "random": random_body,
    "all ones": lambda h: (b"\xff" * layout_of(h).size, fixed_key(2)),
    "all zeros": lambda h: (bytes(layout_of(h).size), np.zeros(N, dtype=np.int64)),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_what_a_hostile_client_moves_does_not_hang_on_what_the_others_hold(name):
    """The deviation from the honest sum is the same in 20 worlds, and so is whether one opens."""
    session = Session(OneTimeRLWE())

    def make(honest):
        body, short = MESSAGES[name](honest)
        return signed(honest, parts_of(honest, body, short))

    seen = Counter()
    for world in range(20):
        session.draw(world)
        outcome = session.play(hostile(make))
        seen[session.deviation(outcome)] += 1
        if outcome.opened is None:
            assert outcome.aborts["server"].blamed is None
    assert len(seen) == 1, [value and value[:4] for value in seen]


# ---- decryptors


def errors(kind, rng):
    if kind == "random":
        return rng.integers(0, P, N)
    return np.ones(N, dtype=np.int64) if kind == "one" else np.eye(1, N, dtype=np.int64)[0]


@pytest.mark.parametrize("kind", ["random", "one", "one word"])
@pytest.mark.parametrize(
    ("holders", "threshold", "liars", "opens", "named"),
    [(3, 2, 1, True, 1), (5, 3, 1, True, 1), (5, 3, 2, True, 0), (3, 3, 1, False, 0)],
)
def test_a_decryptor_cannot_move_the_sum(holders, threshold, liars, opens, named, kind):
    session = Session(OneTimeRLWE(holders=holders, threshold=threshold))
    rng = np.random.default_rng(holders)
    who = [f"decryptor/{i}" for i in range(liars)]
    lying = {w: (lambda p, e=errors(kind, rng): AnswersAnother(p, e)) for w in who}
    outcome = session.play(lying)
    if not opens:
        assert outcome.opened is None
        assert outcome.aborts["server"].blamed is None
        return
    session.assert_sum(outcome, range(CLIENTS))
    assert set(outcome.opened.excluded) <= set(who)
    assert len(outcome.opened.excluded) >= named


@pytest.mark.parametrize(
    ("holders", "threshold", "liars"), [(3, 2, 1), (4, 2, 2), (5, 3, 2), (5, 2, 3), (9, 5, 4)]
)
def test_any_group_of_right_answers_gives_the_key(holders, threshold, liars):
    rng = np.random.default_rng(holders * liars)
    short = rng.integers(-100, 101, N)
    for _ in range(6):
        coefficients = np.vstack([short % P, rng.integers(0, P, (threshold - 1, N))])
        answers = {x: dealing.value_at(coefficients, x) for x in range(1, holders + 1)}
        wrong = rng.choice(np.arange(1, holders + 1), liars, replace=False)
        for x in wrong:
            answers[x] = (answers[x] + rng.integers(1, P, N)) % P
        found = opening.solve(answers, threshold, 240, lambda s: bool((s == short).all()))
        assert (found.short == short).all()
        assert found.liars <= set(wrong.tolist())


def test_liars_that_leave_the_key_right_have_nobody_honest_blamed():
    """Decryptors 1 and 2 of 5 err by x(x - 3): the group 1, 2, 3 gives the right key, and the
    honest 4 and 5 look off.
    """
    session = Session(OneTimeRLWE(holders=5, threshold=3))
    one = np.ones(N, dtype=np.int64)
    lying = {
        f"decryptor/{x - 1}": (lambda p, e=one * (x * (x - 3)) % P: AnswersAnother(p, e))
        for x in (1, 2)
    }
    outcome = session.play(lying)
    session.assert_sum(outcome, range(CLIENTS))
    assert not {"decryptor/2", "decryptor/3", "decryptor/4"} & outcome.opened.excluded.keys()


@pytest.mark.parametrize(("holders", "threshold"), [(3, 2), (4, 3), (5, 3), (5, 4), (9, 5)])
def test_fewer_liars_than_the_threshold_never_have_anybody_honest_blamed(holders, threshold):
    """Liars that keep the key right on purpose: every false polynomial through 0 and some honest
    answers.
    """
    rng = np.random.default_rng(holders + threshold)
    for _ in range(40):
        coefficients = rng.integers(0, P, (threshold, 4))
        answers = {x: dealing.value_at(coefficients, x) for x in range(1, holders + 1)}
        short = dealing.centred(coefficients[0])
        points = rng.permutation(np.arange(1, holders + 1)).tolist()
        liars, met = points[: threshold - 1], points[threshold - 1 : 2 * threshold - 3]
        scale = int(rng.integers(1, P))
        for x in liars:
            error = scale * x
            for point in met:
                error = error * (x - point) % P
            answers[x] = (answers[x] + error) % P
        found = opening.solve(answers, threshold, P, lambda s, k=short: bool((s == k).all()))
        assert found is not None
        assert found.liars <= set(liars), (holders, threshold, liars, met)


@pytest.mark.parametrize(
    ("holders", "threshold", "liars", "victim"),
    [(3, 2, (1,), 3), (3, 2, (3,), 1), (5, 3, (1, 2), 5)],
)
def test_a_client_that_works_with_decryptors_has_nobody_honest_blamed_for_certain(
    holders, threshold, liars, victim
):
    """The client encrypts under the key that it dealt and e more, and the liars move their shares
    by a polynomial that is e at 0: all but one honest decryptor lie on it.
    """
    session = Session(OneTimeRLWE(holders=holders, threshold=threshold))
    e = np.eye(1, N, dtype=np.int64)[0]
    honest = [x for x in range(1, holders + 1) if x not in liars and x != victim]

    def error(x):
        value = 1
        for met in honest[: threshold - 1]:
            value = value * (x - met) * pow(-met, -1, P) % P
        return e * value

    def moved(honest):
        settings, plan = honest.settings, honest.plan
        topic, layout = settings.topic(plan), settings.layout(plan)
        short = ShortStream("binomial").take(1)[0]
        numbers = settings.scheme.encode(honest.update, plan)
        body = whole(numbers, (short + e).astype(np.int8), "binomial", topic, layout)
        return signed(honest, parts_of(honest, body, short))

    lying = {
        f"decryptor/{x - 1}": (lambda party, moved=error(x): AnswersAnother(party, moved))
        for x in liars
    }
    outcome = session.play({**hostile(moved), **lying})
    session.assert_sum(outcome, range(CLIENTS))
    assert outcome.opened.excluded.keys() == {f"decryptor/{victim - 1}"}
    (why,) = outcome.opened.excluded.values()
    assert "it lied, or another decryptor did together with a client" in why


def test_a_decryptor_that_finds_good_dealings_bad_is_done_without_and_both_are_named():
    session = Session(OneTimeRLWE())
    outcome = session.play({"decryptor/1": TurnsDown})
    session.assert_sum(outcome, range(CLIENTS))
    said = outcome.opened.excluded
    assert "decryptor/1" in said
    assert all("one of the two lied" in why for why in said.values())
    session = Session(OneTimeRLWE(threshold=3))
    outcome = session.play({"decryptor/1": TurnsDown})
    session.assert_sum(outcome, range(3))


# ---- servers


class Asked:
    """A round in which the test is the server: decryptors that have checked all dealings."""

    def __init__(self, session):
        self.session = session
        session.number += 1
        self.plan = session.plan(session.number)
        self.messages = session.messages(self.plan)
        self.server = session.members["server"]
        self.topic = session.channel.topic(self.plan)
        self.decryptors = {
            who: session.members[who].enter(self.plan) for who in session.channel.helpers
        }

    def bundle(self, who, messages=None):
        index = int(who[-1])
        left_out = {0, *range(2, 2 + self.session.channel.holders)} - {2 + index}
        return pack([m.without(left_out).rope() for m in messages or self.messages])

    def check(self, who, messages=None):
        return self.decryptors[who].step({"server": self.bundle(who, messages)})

    def request(self, messages, identity=None):
        ids = ids_bytes([id_of(m) for m in messages])
        made = SignedMessage.signed(
            identity or self.server.identity, OPEN, self.topic, "server", (ids,)
        )
        return {"server": made.to_bytes()}

    def ask(self, who, messages):
        return self.decryptors[who].step(self.request(messages))

    def read(self, messages, answers):
        """The sum of these messages from these decryptors' answers."""
        shares = {}
        for who, out in answers.items():
            said = SignedMessage.read(out["server"])
            received = {"server": [{who: said.to_bytes()}]}
            assert received
            shares[who] = said
        mail = {"server": [{m.sender: m.to_bytes()} for m in messages]}
        mail["server"].append({who: said.to_bytes() for who, said in shares.items()})
        return view.opened(self.session.channel, mail, {"server": self.server})


@pytest.fixture
def asked():
    made = Asked(Session(OneTimeRLWE()))
    for who in made.decryptors:
        made.check(who)
    return made


def test_a_server_that_asks_for_two_sets_of_a_round_reads_one_of_them_at_most(asked):
    every, less = asked.messages, asked.messages[:-1]
    answers = {"decryptor/0": asked.ask("decryptor/0", every)}
    answers["decryptor/1"] = asked.ask("decryptor/1", less)
    assert asked.read(every, answers) is None
    answers["decryptor/2"] = asked.ask("decryptor/2", every)
    opened = asked.read(every, answers)
    assert (opened.value - asked.session.rows.sum(dim=0)).abs().max() < 3e-4
    for who in asked.decryptors:
        with pytest.raises(Abort, match=r"did not find good|already opened") as refusal:
            asked.ask(who, less if who != "decryptor/1" else every)
        assert refusal.value.blamed == "server"


def test_a_round_is_opened_once_by_new_parties_too(asked):
    asked.ask("decryptor/0", asked.messages)
    again = asked.session.members["decryptor/0"].enter(asked.plan)
    again.step({"server": asked.bundle("decryptor/0")})
    with pytest.raises(Abort, match="already opened"):
        again.step(asked.request(asked.messages[:-1]))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_sum_of_too_few_stays_closed_for_a_lying_server(asked, count):
    with pytest.raises(Abort, match="fewer than 3 clients stay closed") as refusal:
        asked.ask("decryptor/0", asked.messages[:count])
    assert refusal.value.blamed == "server"


def test_messages_that_were_not_checked_or_that_the_server_made_are_not_opened(asked):
    stranger = replace(asked.messages[0], sender="client/3")
    with pytest.raises(Abort, match="did not find good"):
        asked.ask("decryptor/0", [*asked.messages[:3], stranger])
    fresh = asked.session.members["decryptor/1"].enter(asked.plan)
    with pytest.raises(Abort, match="did not find good"):
        fresh.step(asked.request(asked.messages))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda ms: [ms[0], *ms], "twice"),
        (lambda ms: [*ms[:4], replace(ms[0], sender="client/4")], "signature"),
        (lambda ms: [*ms[:4], replace(ms[4], sender="client/9")], "not in the cohort"),
        (lambda ms: [*ms[:4], replace(ms[4], kind=OPEN)], "where a"),
        (lambda ms: [*ms[:4], replace(ms[4], topic=replace(ms[4].topic, number=77))], "round 77"),
    ],
)
def test_a_bundle_that_no_honest_server_sends_is_refused(change, why):
    made = Asked(Session(OneTimeRLWE()))
    with pytest.raises(Abort, match=why) as refusal:
        made.check("decryptor/0", change(made.messages))
    assert refusal.value.blamed == "server"


@pytest.mark.parametrize("body", [b"", b"x", b"\xff" * 40, b"PFH", b"PFH\x01" + bytes(300)])
def test_garbage_from_the_server_is_an_abort_that_blames_it(asked, body):
    fresh = asked.session.members["decryptor/1"].enter(asked.plan)
    with pytest.raises(Abort) as refusal:
        fresh.step({"server": body})
    assert refusal.value.blamed == "server"
    if body[:3] != b"PFH":  # another bundle, after one that was answered, is not read
        assert asked.decryptors["decryptor/0"].step({"server": body}) == {}


def test_a_request_that_the_server_did_not_sign_is_refused(asked):
    mallory = Identity.fresh("server")
    with pytest.raises(Abort, match="signature"):
        asked.decryptors["decryptor/0"].step(asked.request(asked.messages, mallory))


def test_what_was_dealt_in_an_earlier_session_does_not_open_in_a_later_one():
    """Identities outlive sessions, and a restarted decryptor has forgotten what it opened."""
    session = Session(OneTimeRLWE())
    before = Asked(session)
    for who in before.decryptors:
        before.check(who)
        assert before.ask(who, before.messages)
    session.set_up()
    for who in session.channel.helpers:
        party = session.members[who].enter(before.plan)
        out = SignedMessage.read(party.step({"server": before.bundle(who)})["server"])
        assert bytes(out.whole()[0]) == b"", "none of the old dealings is good"


def test_a_round_that_began_before_a_new_set_up_is_not_opened_after_it(asked):
    """Otherwise a second party of the same round, begun before, would open another sum of it."""
    second = asked.session.members["decryptor/0"].enter(asked.plan)
    second.step({"server": asked.bundle("decryptor/0")})
    asked.ask("decryptor/0", asked.messages)
    asked.session.set_up()
    with pytest.raises(Abort, match="a new session has begun"):
        second.step(asked.request(asked.messages[:-1]))


def test_a_decryptor_that_tells_a_client_nothing_does_not_have_it_named_for_certain():
    session = Session(OneTimeRLWE())
    session.members["client/2"].occasions.heard["decryptor/1"] = b""
    outcome = session.play()
    session.assert_sum(outcome, range(CLIENTS))
    assert "or heard nothing of them in the set-up" in outcome.opened.excluded["client/2"]


def test_a_server_that_leaves_a_client_out_at_one_decryptor_alone_gains_nothing():
    session = Session(OneTimeRLWE())

    class Splits:
        def __init__(self, honest):
            self.honest = honest

        def step(self, mail):
            out = dict(self.honest.step(mail))
            for who, body in out.items():
                if who == "decryptor/0" and bytes(body[:3]) != b"PFH":
                    out[who] = pack(list(unpack(body))[:-1])
            return out

        @property
        def result(self):
            return self.honest.result

    outcome = session.play(server=Splits)
    session.assert_sum(outcome, range(CLIENTS))
