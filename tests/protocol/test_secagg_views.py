"""A liar among the clients does not blind who looks: what its server opened is what the server's
mail is decoded to, and what a coalition reads it reads.
"""

import copy
import dataclasses
import pickle
import secrets

import pytest
import torch

from privfl.core import Bounded, Faults, RoundPlan, Rows, SecretsStay, Total, client_party, drive
from privfl.crypto import SecAgg
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.primitives import fields
from privfl.crypto.secagg import boxes, keys, wire
from privfl.crypto.secagg.parameters import degree_for
from privfl.crypto.secagg.stage import Kind
from privfl.crypto.secagg.view import SecAggCoalitionView

N, D = 7, 5
WAYS = {
    "another tag": lambda b: b[:12] + bytes(16) + b[28:],
    "a false byte": lambda b: b[:-3] + bytes([b[-3] ^ 255]) + b[-2:],
    "a byte more": lambda b: b + b"x",
    "cut": lambda b: b[: len(b) // 2],
    "no field element": lambda b: b[:60] + b"\xff" * (len(b) - 60),
    "another's place": lambda b: b[:8] + (4).to_bytes(4, "little") + b[12:],
    "another ring": lambda b: b[:5] + b"\x10" + b[6:],
}
STAGES = (Kind.ADVERTISE, Kind.SHARES, Kind.MASKED, Kind.CONSISTENCY, Kind.UNMASK)


def run(settings, spoil, liar="client/0"):
    channel = SecAgg(corrupt=0.0, forward_secrecy=False, **settings)
    plan = RoundPlan(0, tuple(range(N)), d=D, l2=1.0, session=b"views")
    everybody = Enrolled.fresh(channel, plan.cohort)
    parties = {
        client_party(c): m.enter(plan, Bounded(c, torch.full((D,), 0.05 * (c + 1)), 1.0))
        for c, m in everybody.clients.items()
    }
    outcome = drive(
        everybody.server.enter(plan), parties, Faults(malformed={liar: spoil}), keep_bodies=True
    )
    return channel, everybody, outcome


@pytest.mark.parametrize("settings", [{"graph": "complete"}, {"mode": "active", "graph": 4}])
@pytest.mark.parametrize("kind", [*STAGES, None], ids=[*(k.name for k in STAGES), "always"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("liar", ["client/0", "client/6"])
def test_what_was_opened_is_what_the_servers_mail_decodes_to(settings, kind, way, liar):
    def spoil(body):
        body = bytes(body)
        return WAYS[way](body) if kind is None or body[4] == kind else body

    channel, everybody, outcome = run(settings, spoil, liar)
    seen = channel.decode(outcome.received({"server"}), {"server": everybody.server})
    if outcome.opened is None:
        assert seen is None
        return
    assert isinstance(seen, Total)
    assert torch.equal(seen.value, outcome.opened.what.value)
    assert seen.count == outcome.opened.what.count


@pytest.mark.parametrize("way", WAYS)
def test_a_coalition_reads_rows_through_a_liars_mail(way):
    channel, everybody, outcome = run({"graph": "complete"}, lambda b: WAYS[way](bytes(b)))
    who = ["server", *(client_party(c) for c in range(1, 6))]
    members = {w: everybody.members[w] for w in who}
    seen = channel.decode(outcome.received(who), members)
    assert isinstance(seen, Rows)
    assert 6 in seen.ids
    assert torch.allclose(seen.values[seen.ids.index(6)], torch.full((D,), 0.35), atol=1e-3)


class GoesOn:
    """A client whose keys nobody signed, and which goes on as if it had been heard."""

    def __init__(self, honest):
        self.honest, self.stage = honest, 0

    def step(self, mail):
        self.stage += 1
        now, place = self.honest.parameters, self.honest.position
        holders = self.honest.drawn or [i for i in range(now.n) if i != place]
        said = {}
        if self.stage == 1:
            body = bytes(self.honest.step({})["server"])
            said = {"server": body[:60] + bytes(64) + body[124:]}
        if self.stage == 3:
            rows = {j: secrets.token_bytes(keys.AGREED) for j in holders}
            said = {"server": self.written(Kind.SHARES, bytes(32), boxes.write(now, rows))}
        if self.stage == 5:
            vector = bytes(now.length * now.ring // 8)
            words = bytes(keys.WORD * len(holders))
            said = {"server": self.written(Kind.MASKED, self.honest.facts, vector, words)}
        return {**said, "client/0": b"wait"} if self.stage < 6 else {}

    def written(self, kind, *parts):
        now = self.honest.parameters
        return wire.write(kind, now.ring, self.honest.position, now.tag, *parts)


def lookers(channel, everybody, outcome):
    """The server; everybody's wires, tapped; the server with a client, and with all but two."""
    parties = list(everybody.members)
    yield channel.decode(outcome.received({"server"}), {"server": everybody.server})
    yield channel.decode(outcome.received(parties), {})
    for some in (2, N - 2):
        who = ["server", *(client_party(c) for c in range(1, some))]
        yield channel.decode(outcome.received(who), {w: everybody.members[w] for w in who})


@pytest.mark.parametrize("graph", ["complete", 6])
def test_who_was_not_heard_is_not_heard_by_who_looks(graph):
    """Only the directory says that its keys are nobody's; whoever taps all wires sees that the
    server wrote it of no keys.
    """
    n = 9
    channel = SecAgg(corrupt=0.0, mode="active", graph=graph)
    plan = RoundPlan(0, tuple(range(n)), d=D, l2=1.0, session=b"views")
    everybody = Enrolled.fresh(channel, plan.cohort)
    parties = {
        client_party(c): m.enter(plan, Bounded(c, torch.full((D,), 0.04 * (c + 1)), 1.0))
        for c, m in everybody.clients.items()
    }
    faults = Faults(byzantine={"client/0": GoesOn})
    outcome = drive(everybody.server.enter(plan), parties, faults, keep_bodies=True)
    assert outcome.opened.survivors == tuple(range(1, n))
    for seen in lookers(channel, everybody, outcome):
        assert isinstance(seen, Total)
        assert torch.equal(seen.value, outcome.opened.what.value)


@pytest.mark.parametrize("settings", [{}, {"mode": "active"}, {"graph": 6}])
@pytest.mark.parametrize("leaves", [1, 2, 4])
@pytest.mark.parametrize("lost", [(), (3,), tuple(range(N))])
def test_rounds_whose_keys_came_ahead_are_seen_as_well(settings, leaves, lost):
    """One client leaves after so many exchanges; some lost their keys, and are called or drop."""
    channel = SecAgg(**{"graph": "complete", "corrupt": 0.0, "carry": True, **settings})
    everybody = Enrolled.fresh(channel, range(N))
    for number in (0, 1):
        plan = RoundPlan(number, tuple(range(N)), d=D, l2=1.0, session=b"views")
        parties = {
            client_party(c): m.enter(plan, Bounded(c, torch.full((D,), 0.05 * (c + 1)), 1.0))
            for c, m in everybody.clients.items()
        }
        faults = Faults(silent_from={"client/2": leaves} if number else {})
        opener = everybody.server.enter(plan)
        outcome = drive(opener, parties, faults, keep_bodies=True)
        if not number:
            for c in lost:
                if len(lost) > 1:
                    everybody.server.ahead.clear()
                everybody.clients[c].ahead.clear()
    if outcome.opened is None:
        assert len(lost) > 1
        return
    seen = list(lookers(channel, everybody, outcome))
    for what in seen[:3]:
        assert isinstance(what, Total)
        assert torch.equal(what.value, outcome.opened.what.value)
    assert isinstance(seen[3], Total | Rows)


@pytest.mark.parametrize(
    ("ring", "d", "n"),
    [
        (0, 1 << 33, 2),
        (0, 1 << 62, 2),
        (7, 1 << 40, 2),
        (32, 1 << 62, 2),
        (255, 5, 2),
        (0, 5, 1 << 20),
    ],
)
def test_a_length_that_nobody_sent_costs_no_memory(ring, d, n):
    """Two liars of one mind whose vectors are said to be longer than any machine."""
    facts = fields.facts(RoundPlan(0, (0, 1), d=d, l2=1.0))
    facts = facts[:32] + n.to_bytes(4, "little") + facts[36:]

    def written(kind, place, *parts):
        return wire.write(kind, ring, place, bytes(16), *parts)

    def sealed(place):
        return fields.table({1 - place: bytes(keys.SEALED)})

    mails = [
        {f"client/{i}": written(Kind.ADVERTISE, i, secrets.token_bytes(64)) for i in (0, 1)},
        {f"client/{i}": written(Kind.SHARES, i, bytes(32), sealed(i)) for i in (0, 1)},
        {f"client/{i}": written(Kind.MASKED, i, facts, bytes(ring * 6 // 8)) for i in (0, 1)},
    ]
    channel = SecAgg(graph="complete", corrupt=0.0)
    assert channel.decode({"server": mails}, {}) is None


def test_what_a_view_and_an_unmasking_know_is_not_printed():
    channel, everybody, outcome = run({"graph": "complete"}, bytes)
    view = SecAggCoalitionView.of(
        channel, outcome.received({"server"}), [everybody.clients[0].kept]
    )
    assert view.opened() is not None
    known = [share for shares in view.seeds.values() for share in shares.values()]
    assert known
    assert not any(str(share) in repr(view) + str(view) for share in known)
    for way in (dataclasses.asdict, pickle.dumps, copy.copy):
        with pytest.raises(SecretsStay):
            way(view)


def test_a_liars_facts_name_no_million_clients_to_who_looks(monkeypatch):
    """In a round that did not finish nobody's facts are known, and a liar's are tried as well."""
    large = fields.facts(RoundPlan(0, tuple(range(1 << 20)), d=D, l2=1.0, session=b"views"))

    def spoil(body):
        body = bytes(body)
        return body[:12] + bytes(16) + large + bytes(99) if body[4] == Kind.MASKED else body

    channel, everybody, plan = _scene({"mode": "active"})
    parties = {
        client_party(c): m.enter(plan, Bounded(c, torch.zeros(D), 1.0))
        for c, m in everybody.clients.items()
    }
    faults = Faults(
        malformed={"client/0": spoil}, silent_from={client_party(c): 6 for c in range(1, N)}
    )
    outcome = drive(everybody.server.enter(plan), parties, faults, keep_bodies=True)
    assert outcome.opened is None
    asked = []

    def counted(settings, n):
        asked.append(n)
        return degree_for(settings, n if n <= N else 2)

    monkeypatch.setattr("privfl.crypto.secagg.view.degree_for", counted)
    assert channel.decode(outcome.received({"server"}), {"server": everybody.server}) is None
    assert max(asked) == N


def _scene(settings):
    channel = SecAgg(corrupt=0.0, **settings)
    plan = RoundPlan(0, tuple(range(N)), d=D, l2=1.0, session=b"views")
    return channel, Enrolled.fresh(channel, plan.cohort), plan
