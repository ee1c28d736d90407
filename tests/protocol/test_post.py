"""Signed, sealed mail: a relay speaks for nobody, on no channel of the catalogue, in no round and
in no key set-up; and parties notice nothing of it.
"""

import copy
import json
import os
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl import catalog
from privfl.aggregators import FLTrust
from privfl.core import (
    Abort,
    Bounded,
    ConfigError,
    Context,
    Faults,
    PrivflError,
    RoundPlan,
    Rows,
    StateKey,
    Total,
    client_party,
    drive_all,
    seal_state,
    unseal_state,
)
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.post import Post, drive_signed, round_scene, set_up_scene
from privfl.crypto.primitives import Directory, Identity
from privfl.engine import Session
from privfl.hybrid.two_server import TwoServer

D, N, VICTIM = 64, 4, 1
CHEAP = {"paillier": {"key_bits": 512, "insecure_for_tests": True}, "bucketed_secagg": {"size": 2}}
"""Smaller settings where the defaults are slow or need more clients; a channel that is not here is
tested as it is.
"""
NAMES = sorted(catalog.CHANNELS)
SECRET = [name for name in NAMES if name != "plain"]


def signs(seed, like=None, flips=D // 4):
    """Entries of one size, so that rows of signs keep all of it; ``flips`` of them as in no other
    row.
    """
    row = torch.ones(D) if like is None else like.clone()
    row[torch.randperm(D, generator=torch.Generator().manual_seed(seed))[:flips]] *= -1
    return row


SERVERS_OWN = signs(0) / D**0.5
"""What rules that need a direction compare rows with."""
HONEST = {i: 0.9 * signs(i + 1, SERVERS_OWN) for i in range(N)}
FORGED = 0.9 * signs(99, SERVERS_OWN)
"""What the relay enters in the name of others: it knows what to take off the result."""


def root(context):
    return SERVERS_OWN


def channel_of(name, cheap=CHEAP):
    maker = catalog.CHANNELS[name]
    needs = {"rule": FLTrust(root)} if "rule" in catalog.fields_of(maker)[1] else {}
    return catalog.build("channel", catalog.CHANNELS, {"name": name, **cheap.get(name, {})}, needs)


HELPED = {name: channel_of(name, {}).helpers for name in NAMES if channel_of(name, {}).helpers}
PLAN = RoundPlan(0, tuple(range(N)), d=D, l2=1.0, session=b"a session of its own")


def play(session, updates, faults=Faults(), plan=PLAN):
    session.inform(Context(plan, torch.zeros(D), torch.Generator().manual_seed(0)))
    bounded = {i: Bounded(i, row, 1.0) for i, row in updates.items()}
    return session.play(plan, bounded, faults, keep_bodies=True)


def vector_of(opened):
    what = opened.what
    return what.values.mean(dim=0) if isinstance(what, Rows) else what.mean()


def likeness(seen, row, known=FORGED):
    """How like a row the best of what was seen is, once what the relay put in itself is off."""
    rows = seen.values if isinstance(seen, Rows) else seen.value[None]

    def rest(v):
        return v - known * (v @ known) / (known @ known)

    return max(
        (float(torch.cosine_similarity(rest(v), rest(row), dim=0)) for v in rows), default=0.0
    )


# ---- parties notice nothing


@pytest.mark.parametrize("name", NAMES)
def test_every_channel_plays_rounds_through_signed_mail_with_the_same_result(name):
    results = {}
    for mail in ("bare", "signed"):
        session = Session(channel_of(name), mail)
        session.enrol(HONEST)
        assert session.setup_refused == ()
        for number in range(2):
            outcome = play(session, HONEST, plan=replace(PLAN, number=number))
            assert not outcome.aborts
            assert not outcome.refused
        results[mail] = outcome
    bare, signed = results["bare"].opened, results["signed"].opened
    assert torch.allclose(vector_of(bare), vector_of(signed), atol=1e-3)
    assert set(bare.survivors) == set(signed.survivors) == set(HONEST)
    assert bare.disclosed.keys() == signed.disclosed.keys()
    for receiver in session.members:
        bodies = [len(b) for mail in outcome.received({receiver})[receiver] for b in mail.values()]
        letters = [message.size for message in outcome.messages if message.receiver == receiver]
        more = 72 if receiver == "server" else 120
        assert sorted(letters) == sorted(size + more for size in bodies)


@pytest.mark.parametrize("name", NAMES)
def test_a_coalition_takes_the_post_off_with_its_own_keys_and_reads_what_it_reads_of_bare_mail(
    name,
):
    seen = {}
    for mail in ("bare", "signed"):
        session = Session(channel_of(name), mail)
        session.enrol(HONEST)
        outcome = play(session, HONEST)
        helpers = set(session.channel.helpers)
        seen[mail] = {}
        for who in ({"server"}, {client_party(0)}, helpers, {"server", *helpers}):
            mine = {party: session.members[party] for party in who}
            found = session.channel.decode(outcome.received(who), mine)
            seen[mail]["+".join(sorted(who))] = (type(found), getattr(found, "n", None))
        tap = session.channel.decode(outcome.received(session.members, keys=()), {})
        seen[mail]["tap"] = (type(tap), getattr(tap, "n", None))
    assert seen["bare"] == seen["signed"]


@pytest.mark.parametrize("name", NAMES)
def test_doubled_mail_is_dropped_as_a_replay_and_the_round_goes_on(name):
    session = Session(channel_of(name), "signed")
    session.enrol(HONEST, Faults(duplicated=frozenset(("server", "client/2"))))
    everybody = frozenset(session.members)
    outcome = play(session, HONEST, Faults(duplicated=everybody))
    assert set(outcome.opened.survivors) == set(HONEST)
    assert not outcome.aborts
    assert all(refusal.again for refusal in outcome.refused)


CHANGES = {
    "empty": lambda letter: b"",
    "cut": lambda letter: bytes(letter[:-1]),
    "longer": lambda letter: bytes(letter) + b"\0",
    "a bit": lambda letter: bytes(letter[:80]) + bytes([letter[80] ^ 1]) + bytes(letter[81:]),
    "number": lambda letter: bytes(letter[:4]) + b"\xff\xff\xff\xff" + bytes(letter[8:]),
}


@pytest.mark.parametrize("name", NAMES)
def test_what_was_changed_on_the_way_is_refused_by_name_and_costs_its_sender_alone(name):
    """Nor does it cost the sender a later round: all of them are of one session."""
    session = Session(channel_of(name), "signed")
    session.enrol(HONEST)
    for number, (words, change) in enumerate(CHANGES.items()):
        plan = replace(PLAN, number=number)
        outcome = play(session, HONEST, Faults(malformed={"client/2": change}), plan)
        assert {refusal.sender for refusal in outcome.refused} == {"client/2"}, words
        if name == "bucketed_secagg":  # a group of two without one of them stays closed
            assert 2 not in outcome.opened.survivors, words
        else:
            assert set(outcome.opened.survivors) == set(HONEST) - {2}, words
    outcome = play(session, HONEST, plan=replace(PLAN, number=len(CHANGES)))
    assert not outcome.refused
    assert set(outcome.opened.survivors) == set(HONEST)


# ---- the relay's attacks


class Script:
    """What one party of another federation said, said again."""

    def __init__(self, batches):
        self.batches = list(batches)

    def step(self, mail):
        return self.batches.pop(0) if self.batches else {}


class Impostor:
    """The relay in the place of a party: perfect messages of the protocol, from a federation of its
    own, under the party's name and keys that the directory does not know.
    """

    def __init__(self, honest, batches):
        self.post = replace(
            honest, identity=Identity.fresh(honest.identity.who), inner=Script(batches)
        )

    def step(self, mail):
        return replace(self.post, seen={}).step({})


def batches_of(outcome, who):
    """What a party sent, exchange by exchange."""
    sent = {}
    for message in outcome.messages:
        if message.sender == who:
            sent.setdefault(message.exchange, {})[message.receiver] = message.body
    return [sent[exchange] for exchange in sorted(sent)]


def impostors(channel, forged):
    """For key set-up and for the round: the relay's parties, from a federation of which it plays
    everybody.
    """
    members = Enrolled.fresh(channel, range(N)).members
    rounds = [drive_all({who: m.set_up() for who, m in members.items()}, keep_bodies=True)]
    if channel.able.informed:
        members["server"].inform(Context(PLAN, torch.zeros(D), torch.Generator()))
    parties = {
        who: member.enter(PLAN, Bounded(int(who[7:]), FORGED, 1.0))
        if who.startswith("client/")
        else member.enter(PLAN)
        for who, member in members.items()
    }
    rounds.append(drive_all(parties, keep_bodies=True))
    return members, *(
        Faults(
            relayed={
                who: lambda honest, batches=batches_of(said, who): Impostor(honest, batches)
                for who in forged
            }
        )
        for said in rounds
    )


class Relay:
    """The relay's own party in the place of another over bare mail: in what it writes to the others
    it says the public keys of the one whose place it takes, which everybody may know.
    """

    def __init__(self, party, says, among):
        self.party, self.says, self.among = party, says, among

    def step(self, mail):
        out = {}
        for to, body in self.party.step(mail).items():
            for own, true in self.says.items() if to not in self.among else ():
                body = bytes(body).replace(own, true)
            out[to] = body
        return out


class Relays:
    """The relay over bare mail in the place of some parties of a session, with keys of its own."""

    def __init__(self, session, names):
        self.session, self.names = session, names
        self.keys = {who: Identity.fresh(who) for who in names}
        self.members, self.says = {}, {}

    def set_up(self):
        return Faults(relayed={who: lambda _, who=who: self.begin(who) for who in self.names})

    def begin(self, who):
        if not self.members:  # it knows the public directory, and itself
            known = Directory()
            known.__setstate__(self.session.directory.__getstate__())
            for name, me in self.keys.items():
                if known.keys(name):
                    self.says[me.hello] = known.keys(name)[0] + known.boxes(name)[0]
                known.enrol(name, signing=me.public.signing, sealing=me.public.box)
            channel = self.session.channel
            for name, me in self.keys.items():
                self.members[name] = (
                    channel.client(int(name[7:]), me, known)
                    if name.startswith("client/")
                    else channel.helper(name, me, known)
                )
        return Relay(self.members[who].set_up(), self.says, self.names)

    def enter(self, *update):
        return Faults(
            relayed={
                who: lambda _, who=who: Relay(
                    self.members[who].enter(PLAN, *(make(who) for make in update)),
                    self.says,
                    self.names,
                )
                for who in self.names
            }
        )


def named(session, outcome):
    return {refusal.sender for refusal in (*session.setup_refused, *outcome.refused)}


@pytest.mark.parametrize("name", sorted(HELPED))
def test_over_bare_mail_a_relay_that_enters_its_own_helpers_reads_whom_it_hands_a_key(
    name,
):
    """Trust on first use: who hands out keys by mail hands them to whoever carries it."""
    channel = channel_of(name)
    session = Session(channel)
    relay = Relays(session, channel.helpers)
    session.enrol(HONEST, relay.set_up())
    # one-time keys: the set-up hands out an occasion, and boxes are sealed under the directory
    handed_out = bool(session.setup_messages) and name != "one_time_rlwe"
    outcome = play(session, HONEST, relay.enter())
    seen = channel.decode(
        outcome.received({"server", *channel.helpers}),
        {**relay.members, "server": session.members["server"]},
    )
    assert isinstance(seen, Rows) == handed_out
    if handed_out:
        assert likeness(seen, HONEST[VICTIM]) > 0.99


@pytest.mark.parametrize(
    ("name", "forged"),
    [
        (name, forged)
        for name, helpers in HELPED.items()
        for forged in dict.fromkeys((*((who,) for who in helpers), helpers))
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_over_signed_mail_a_relay_that_enters_its_own_helpers_reads_nobody_and_is_noticed(
    name, forged
):
    channel = channel_of(name)
    session = Session(channel, "signed")
    fakes, at_set_up, in_round = impostors(channel, forged)
    session.enrol(HONEST, at_set_up)
    outcome = play(session, HONEST, in_round)
    enough_left = name == "one_time_rlwe" and len(forged) == 1  # two of three decryptors open
    assert (outcome.opened is not None) == enough_left
    wrote = {
        message.sender
        for message in (*session.setup_messages, *outcome.messages)
        if message.sender in forged and message.receiver not in forged
    }
    assert named(session, outcome) == wrote
    assert len(wrote) > 0
    seen = channel.decode(
        outcome.received({"server", *forged}, keys={"server"}),
        {**{who: fakes[who] for who in forged}, "server": session.members["server"]},
    )
    assert isinstance(seen, Total) if enough_left else seen is None


PROVED = "two_server whose proofs stop one lying server"


@pytest.mark.parametrize("name", [*NAMES, PROVED])
def test_over_bare_mail_a_relay_that_speaks_for_all_clients_but_one_reads_that_one(name):
    """But where clients sign what they send: the directory knows whose signature it is not; and in
    a chain, whose sums are sealed to the next client's key of the directory, which the relay has
    not.
    """
    channel = TwoServer(security="malicious") if name == PROVED else channel_of(name)
    session = Session(channel)
    relay = Relays(session, tuple(client_party(i) for i in HONEST if i != VICTIM))
    session.enrol(HONEST, relay.set_up())
    clients_sign = bool(session.setup_messages)
    outcome = play(session, HONEST, relay.enter(lambda who: Bounded(int(who[7:]), FORGED, 1.0)))
    if clients_sign or name == "chain":
        assert outcome.opened is None
        return
    assert set(outcome.opened.survivors) == set(HONEST)
    assert likeness(outcome.opened.what, HONEST[VICTIM]) > 0.99


@pytest.mark.parametrize("name", NAMES)
def test_over_signed_mail_a_relay_that_speaks_for_all_clients_but_one_is_noticed(name):
    """Nothing opens; but the plain server still reads the one row that was sent to it, as it reads
    every row: signing hides nothing.
    """
    channel = channel_of(name)
    session = Session(channel, "signed")
    forged = {client_party(i) for i in HONEST if i != VICTIM}
    _, at_set_up, in_round = impostors(channel, forged)
    session.enrol(HONEST, at_set_up)
    outcome = play(session, HONEST, in_round)
    assert named(session, outcome) == forged
    if name == "plain":
        assert outcome.opened.survivors == (VICTIM,)
    else:
        assert outcome.opened is None


# ---- letters


class Says:
    """A party that says one thing when it begins, and keeps what it is told."""

    def __init__(self, first=None):
        self.first = first or {}
        self.heard = []

    def step(self, mail):
        self.heard.append({who: bytes(body) for who, body in mail.items()})
        return {} if mail else self.first


KEYS = {
    who: Identity.fresh(who)
    for who in ("client/1", "client/2", "server", "server/1", "server/2", "dealer")
}
KNOWN = Directory.of({who: identity.public for who, identity in KEYS.items()})
SCENE = round_scene([PLAN])


def posted(who, inner=None, scene=SCENE, known=KNOWN, keys=None):
    return Post(keys or KEYS[who], known, scene, inner or Says())


def written(who, to, body, scene=SCENE, keys=None, before=0):
    post = posted(who, Says({to: body}), scene, keys=keys)
    post.sent[to] = before - 1
    return post.step({})[to]


def why(post):
    return [refusal.why for refusal in post.refused]


@pytest.mark.parametrize("to", ["server", "server/1"])
def test_a_letter_arrives_and_its_body_is_open_to_the_servers_carrier_alone(to):
    post, letter = posted(to), written("client/1", to, b"a body to be read")
    assert post.step({"client/1": letter}) == {}
    assert post.inner.heard == [{"client/1": b"a body to be read"}]
    assert (b"a body to be read" in letter) == (to == "server")


@pytest.mark.parametrize("to", ["server", "server/1"])
def test_a_letter_serves_one_session_round_plan_sender_and_receiver(to):
    """The same bytes anywhere else are refused, in the name that they carry there."""
    elsewhere = [
        round_scene([replace(PLAN, number=1)]),
        round_scene([replace(PLAN, session=b"another")]),
        round_scene([replace(PLAN, l2=2.0)]),
        round_scene([replace(PLAN, models=("0" * 64,))]),
        round_scene([PLAN, replace(PLAN, part="control")]),
        round_scene([replace(PLAN, part="control")]),
        set_up_scene(PLAN.session),
    ]
    assert len({SCENE, *elsewhere}) == 8
    for scene in elsewhere:
        post = posted(to)
        assert post.step({"client/1": written("client/1", to, b"body", scene)}) == {}
        assert why(post) == [f"client/1 did not sign it for {to} in this session and round"]
        assert post.inner.heard == []
    letter = written("client/1", to, b"body")
    other = posted("server/2" if to == "server/1" else "server/1")
    other.step({"client/1": letter})
    renamed = posted(to)
    renamed.step({"client/2": letter, "client/01": letter, "client/3": letter})
    assert [refusal.sender for refusal in other.refused] == ["client/1"]
    assert [refusal.sender for refusal in renamed.refused] == ["client/2", "client/01", "client/3"]
    assert why(renamed)[1:] == ["the directory does not know that name"] * 2
    assert other.inner.heard == renamed.inner.heard == []


def test_a_letter_that_a_stranger_signed_is_refused_in_the_name_that_it_carries():
    post = posted("server")
    post.step({"client/1": written("client/1", "server", b"x", keys=Identity.fresh("client/1"))})
    assert str(post.refused[0]) == (
        "server refused a letter in the name of client/1: client/1 did not sign it for server in"
        " this session and round"
    )


def test_a_letter_that_came_before_is_dropped_and_so_is_one_that_a_later_one_overtook():
    post = posted("server")
    first, second, third = (written("client/1", "server", bytes([i]), before=i) for i in range(3))
    for letter in (first, first, third, second):
        post.step({"client/1": letter})
    assert post.inner.heard == [{"client/1": b"\0"}, {"client/1": b"\2"}]
    assert [refusal.again for refusal in post.refused] == [True, True]


def test_late_mail_keeps_its_order_and_arrives():
    class Counts(Says):
        def step(self, mail):
            super().step(mail)
            return {"server": bytes([len(self.heard)])} if len(self.heard) < 4 else {}

    class Answers(Says):
        def step(self, mail):
            super().step(mail)
            return dict.fromkeys(mail, b"go on")

    for faults in (Faults(late={"client/1": 2}), Faults(duplicated={"client/1", "server"})):
        server = Answers()
        keys = {who: KEYS[who] for who in ("client/1", "server")}
        outcome = drive_signed(
            {"client/1": Counts(), "server": server},
            faults,
            keys=keys,
            directory=KNOWN,
            scene=SCENE,
        )
        assert server.heard[1:] == [{"client/1": bytes([i])} for i in (1, 2, 3)]
        assert all(refusal.again for refusal in outcome.refused)
        assert bool(outcome.refused) == bool(faults.duplicated)


def test_a_party_whose_mail_is_dropped_whole_is_not_called_as_if_it_were_to_begin():
    post = posted("server/1", Says({"server": b"I begin"}))
    assert post.step({"client/1": b"nothing that can be used"}) == {}
    assert post.inner.heard == []
    assert post.step({}).keys() == {"server"}
    answered = post.step({"client/1": b"again", "client/2": written("client/2", "server/1", b"x")})
    assert answered == {}
    assert post.inner.heard == [{}, {"client/2": b"x"}]


def test_the_servers_mail_to_itself_goes_on():
    class Clock(Says):
        def step(self, mail):
            super().step(mail)
            return {"server": b"tick"} if len(self.heard) < 4 else {}

    clock = Clock()
    outcome = drive_signed({"server": clock}, keys=KEYS, directory=KNOWN, scene=SCENE)
    assert len(clock.heard) == 4
    assert not outcome.refused


def test_who_writes_to_somebody_whom_the_directory_does_not_know_gives_up():
    with pytest.raises(Abort, match="cannot write to key_holder"):
        posted("client/1", Says({"key_holder": b"hello"})).step({})


def test_a_body_may_be_a_view_of_a_buffer_that_is_written_to_again():
    buffer = bytearray(b"a row of the update matrix")
    letter = written("client/1", "server", memoryview(buffer))
    buffer[:5] = b"other"
    post = posted("server")
    post.step({"client/1": letter})
    assert post.inner.heard == [{"client/1": b"a row of the update matrix"}]


def test_two_letters_with_one_body_share_no_byte_of_what_is_sealed():
    one, other = (written("client/1", "server/1", bytes(64)) for _ in range(2))
    assert one[72:104] != other[72:104]
    assert one[104:] != other[104:]


@pytest.mark.parametrize("to", ["server", "server/1"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_bytes_under_no_name_make_a_post_crash(to, data):
    letter = written("client/1", to, b"a body")
    names = st.sampled_from(["client/1", "client/2", "server", ""]) | st.text(max_size=20)
    hostile = st.binary(max_size=200) | st.tuples(
        st.integers(0, len(letter)), st.binary(max_size=8)
    ).map(lambda cut: letter[: cut[0]] + cut[1] + letter[cut[0] + len(cut[1]) :][: len(letter)])
    mail = data.draw(st.dictionaries(names, hostile, max_size=4))
    post = posted(to)
    post.step(mail)
    taken = mail.get("client/1") == letter
    assert {refusal.sender for refusal in post.refused} == mail.keys() - (
        {"client/1"} if taken else set()
    )
    assert post.inner.heard == ([{"client/1": b"a body"}] if taken else [] if mail else [{}])


def test_a_post_sleeps_with_its_party_and_is_handed_the_directory_of_now_when_it_wakes():
    post, key = posted("server/1"), StateKey()
    post.step({"client/1": written("client/1", "server/1", b"one")})
    sealed = seal_state(post, key)
    with pytest.raises(PrivflError, match="hand in the one of now"):
        unseal_state(sealed, key, Post)
    newcomer = Identity.fresh("client/3")
    now = Directory.of({"client/3": newcomer.public, "client/1": KEYS["client/1"].public})
    awake = unseal_state(sealed, key, Post, lent=now)
    awake.step({"client/3": written("client/3", "server/1", b"two", keys=newcomer)})
    awake.step({"client/1": written("client/1", "server/1", b"one")})
    assert awake.inner.heard == [{"client/1": b"one"}, {"client/3": b"two"}]
    assert [refusal.again for refusal in awake.refused] == [True]


def streams(one, two, bodies):
    """Whether two letters' bodies were sealed with one keystream: their difference tells."""
    start = 8 + 64 + 32
    apart = bytes(a ^ b for a, b in zip(one[start:], two[start:], strict=True))[: len(bodies[0])]
    return apart == bytes(a ^ b for a, b in zip(*bodies, strict=True))


def test_letters_of_one_agreement_are_sealed_under_different_keys():
    bodies = [bytes([i]) * 64 for i in (1, 2)]
    post = posted("client/1", Says({"server/1": bodies[0]}))
    one = post.step({})["server/1"]
    post.inner = Says({"server/1": bodies[1]})
    two = post.step({})["server/1"]
    assert one[72:104] == two[72:104], "an agreement for each letter costs more than the letter"
    assert not streams(one, two, bodies)
    receiver = posted("server/1")
    for letter in (one, two):
        receiver.step({"client/1": letter})
    assert [heard["client/1"] for heard in receiver.inner.heard] == bodies


def test_a_post_that_wakes_twice_from_one_state_seals_nothing_under_one_key():
    """A process that died and began again may write another letter of the same number: under the
    same key the difference of both would be open to whoever carries them.
    """
    post, key = posted("client/1", Says({"server/1": b"a first one"})), StateKey()
    first = post.step({})["server/1"]
    asleep, bodies, letters = seal_state(post, key), (b"yes" * 20, b"no!" * 20), []
    for body in bodies:
        awake = unseal_state(asleep, key, Post, lent=KNOWN)
        awake.inner = Says({"server/1": body})
        letters.append(awake.step({})["server/1"])
    assert len({letter[72:104] for letter in (first, *letters)}) == 3
    assert not streams(*letters, bodies)


def test_two_processes_that_were_one_seal_nothing_under_one_key():
    """As above, where a process was forked in the middle of a round."""
    bodies = (b"yes" * 20, b"no!" * 20)
    post = posted("client/1", Says({"server/1": b"a first one"}))
    post.step({})
    (reads, writes), letter = os.pipe(), b""
    child = os.fork()
    try:
        post.inner = Says({"server/1": bodies[child == 0]})
        letter = bytes(post.step({})["server/1"])
    finally:
        if child == 0:
            os.write(writes, letter)
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writes)
    with os.fdopen(reads, "rb") as read:
        other = read.read()
    assert letter[72:104] != other[72:104]
    assert not streams(letter, other, bodies)


def test_a_scene_is_the_parts_of_one_round_each_once():
    for plans in ([], [PLAN, PLAN], [PLAN, replace(PLAN, number=1, part="control")]):
        with pytest.raises(ConfigError, match="the parts of one round, each once"):
            round_scene(plans)


def test_a_liar_lies_under_its_own_name_and_keys_and_the_post_accuses_nobody():
    class Garbles:
        def __init__(self, honest):
            self.honest = honest

        def step(self, mail):
            return dict.fromkeys(self.honest.step(mail), b"nonsense, and signed")

    session = Session(channel_of("plain"), "signed")
    session.enrol(HONEST)
    outcome = play(session, HONEST, Faults(byzantine={"client/2": Garbles}))
    assert outcome.refused == ()
    assert set(outcome.opened.survivors) == set(HONEST) - {2}
    assert "client/2" in outcome.opened.excluded


@pytest.mark.parametrize("mail", ["bare", "signed"])
@pytest.mark.parametrize("name", NAMES)
def test_a_client_that_trained_from_another_model_has_no_part_in_the_round(name, mail):
    """Its plan names another model, and so what it sends fits nobody's round: in the tags of every
    channel with a tag, and in every signature.
    """
    session, key = Session(channel_of(name), mail), StateKey()
    session.enrol(HONEST)
    plan, other = replace(PLAN, models=("cd" * 32,)), replace(PLAN, models=("ab" * 32,))
    asleep = seal_state(session.members["client/2"], key)
    member = unseal_state(asleep, key, object, lent=session.directory)
    stale = member.enter(other, Bounded(2, HONEST[2], 1.0))
    if mail == "signed":
        me = session.identity("client/2")
        stale = Post(me, session.directory, round_scene([other]), stale)
    outcome = play(session, HONEST, Faults(relayed={"client/2": lambda _: stale}), plan)
    if (name, mail) == ("plain", "bare"):
        assert 2 in outcome.opened.survivors  # a row in clear carries its round and no more
    else:
        assert outcome.opened is None or 2 not in outcome.opened.survivors
    assert {refusal.sender for refusal in outcome.refused} == (
        {"client/2"} if mail == "signed" else set()
    )


# ---- identities and the directory, on disk


def test_an_identity_comes_back_from_its_file_raw_or_sealed(tmp_path):
    me = Identity.fresh("server/1")
    for name, passphrase in (("raw", None), ("sealed", "correct horse")):
        path = tmp_path / name
        me.write(path, passphrase)
        assert path.stat().st_mode & 0o777 == 0o600
        assert Identity.read(path, passphrase).public == me.public
        assert Identity.read(path, passphrase).who == "server/1"
        assert (me.signing in path.read_bytes()) == (passphrase is None)
        with pytest.raises(ConfigError, match="never overwritten"):
            me.write(path, passphrase)
    for name, passphrase, message in (
        ("sealed", "wrong horse", "does not open"),
        ("sealed", None, "give its passphrase"),
        ("raw", "correct horse", "is not sealed"),
        ("none", None, "cannot read"),
    ):
        with pytest.raises(ConfigError, match=message):
            Identity.read(tmp_path / name, passphrase)
    (tmp_path / "raw").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        Identity.read(tmp_path / "raw")


def test_a_changed_identity_file_is_refused_and_a_sealed_one_to_the_last_byte(tmp_path):
    me = Identity.fresh("client/1")
    path = tmp_path / "key"
    me.write(path, "p")
    whole = path.read_bytes()
    for at in (0, 17, 18, 19, 21, 25, 30, 60, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ConfigError):
            Identity.read(path, "p")
    for at in range(len(whole)):
        path.write_bytes(whole[:at])
        with pytest.raises(ConfigError):
            Identity.read(path, "p")


def test_identities_and_posts_keep_their_secrets():
    for thing in (KEYS["server"], posted("server")):
        assert repr(thing).endswith("holds secrets>")
        with pytest.raises(TypeError, match="holds secrets"):
            copy.deepcopy(thing)


def test_a_directory_comes_back_from_its_file(tmp_path):
    path = tmp_path / "directory.json"
    KNOWN.enrol("client/9", signing=bytes(range(32)))
    KNOWN.write(path)
    again = Directory.read(path)
    assert again.parties == KNOWN.parties
    for who in KNOWN.parties:
        assert (again.keys(who), again.boxes(who)) == (KNOWN.keys(who), KNOWN.boxes(who))
    assert KEYS["server"].signing.hex() not in path.read_text()


HEX = "ab" * 32
ENTRY = f'{{"signing": ["{HEX}"], "sealing": []}}'


def in_file(parties):
    return f'{{"format": "privfl/directory/1", "parties": {parties}}}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no directory"),
        ("[" * 100_000, "no directory"),
        ("{}", "format"),
        ('{"format": "privfl/directory/2", "parties": {}}', "format"),
        (in_file("[]"), "an object"),
        (in_file(f'{{"client/1": {ENTRY}, "client/1": {ENTRY}}}'), "is there twice"),
        (in_file(f'{{"client/01": {ENTRY}}}'), "no party"),
        (in_file(f'{{"Server": {ENTRY}}}'), "no party"),
        (in_file(f'{{"client/\u0661": {ENTRY}}}'), "no party"),
        (in_file('{"server": []}'), "must have"),
        (in_file('{"server": {"signing": []}}'), "must have"),
        (in_file('{"server": {"signing": "ab", "sealing": []}}'), "a list"),
        (in_file(f'{{"server": {{"signing": ["{HEX[:-1]}"], "sealing": []}}}}'), "no key"),
        (in_file(f'{{"server": {{"signing": ["{HEX[:-2]}  "], "sealing": []}}}}'), "no key"),
        (in_file(f'{{"server": {{"signing": [], "sealing": ["{"00" * 32}"]}}}}'), "small order"),
        (in_file('{"server": {"signing": [1], "sealing": []}}'), "no key"),
    ],
    ids=range(16),
)
def test_what_is_no_directory_is_refused_with_a_sentence(tmp_path, text, message):
    path = tmp_path / "directory.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Directory.read(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_bytes_make_the_directory_reader_crash(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("directory") / "directory.json"
    whole = in_file(f'{{"client/1": {ENTRY}}}').encode()
    json_like = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=8,
    )
    content = data.draw(
        st.binary(max_size=100)
        | st.tuples(st.integers(0, len(whole)), st.binary(max_size=4)).map(
            lambda cut: whole[: cut[0]] + cut[1] + whole[cut[0] + len(cut[1]) :]
        )
        | json_like.map(lambda value: in_file(json.dumps(value)).encode())
    )
    path.write_bytes(content)
    try:
        found = Directory.read(path)
    except ConfigError:
        return
    assert all(len(key) == 32 for who in found.parties for key in found.keys(who))
