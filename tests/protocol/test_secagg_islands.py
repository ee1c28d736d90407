"""A lying server on a sparse graph: whom it shows to whom, and what it says about whom, changes
nothing about whom a client trusts with its secrets.
"""

import pytest
import torch

from privfl.audit.protocol.islands import IslandServer
from privfl.core import Bounded, RoundPlan, client_party, drive
from privfl.crypto import SecAgg
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.primitives import fields
from privfl.crypto.secagg import boxes
from privfl.crypto.secagg.stage import Kind

D = 8


def scene(n, **settings):
    channel = SecAgg(mode="active", **settings)
    plan = RoundPlan(0, tuple(range(n)), d=D, l2=1.0, session=b"islands")
    return channel, plan, Enrolled.fresh(channel, plan.cohort)


def party(channel, everybody, plan, client, value):
    """A client's party, from a member of its own: a liar enters a round as often as it likes."""
    who = client_party(client)
    member = channel.client(client, everybody.keys[who], everybody.directory)
    return member.enter(plan, Bounded(client, torch.full((D,), value), 1.0))


def islands(n, corrupt, shown, **settings):
    """The island attack: what every island opened, and how its clients gave up."""
    channel, plan, everybody = scene(n, corrupt=corrupt, drop=0.05, **settings)
    friends = range(n - int(corrupt * n), n)
    server = IslandServer.of(
        lambda: everybody.server.enter(plan),
        shown,
        lambda: {client_party(c): party(channel, everybody, plan, c, 0.0) for c in friends},
    )
    honest = {
        client_party(c): party(channel, everybody, plan, c, 0.1) for island in shown for c in island
    }
    return server, drive(server, honest), channel.degree(n)


@pytest.mark.parametrize(
    ("n", "corrupt", "shown"),
    [
        (1000, 0.1, [[3]]),
        (1000, 0.05, [[3], [4], [500]]),
        (100, 0.1, [range(8), range(8, 16), range(16, 40), range(40, 90)]),
    ],
    ids=["a victim among the corrupt", "all singly", "islands of 8, 24 and 50"],
)
def test_clients_that_are_shown_an_island_find_too_few_of_their_share_holders(n, corrupt, shown):
    server, outcome, degree = islands(n, corrupt, shown)
    assert server.opened == [None] * len(shown)
    asked = {client_party(c) for island in shown for c in island}
    assert outcome.aborts.keys() == asked
    stages = {abort.stage for abort in outcome.aborts.values()}
    assert stages <= {"share_keys", "masked_input"}
    assert all(f"the threshold is {degree.t}" in str(abort) for abort in outcome.aborts.values())


def test_the_island_of_everybody_is_the_round_itself():
    """The attack is carried out as it should be: where nobody is left out, it opens."""
    server, outcome, _ = islands(60, 0.1, [range(54)])
    assert not outcome.aborts
    assert torch.allclose(server.opened[0].what.value, torch.full((D,), 5.4), atol=1e-2)


class Edits:
    """The honest server, some of whose letters are changed."""

    def __init__(self, honest, edit):
        self.honest, self.edit, self.result = honest, edit, None

    def step(self, mail):
        return {
            to: self.edit(to, body, Kind(body[4])) for to, body in self.honest.step(mail).items()
        }


def content(message):
    return memoryview(message.body)[fields.HEADER :]


@pytest.mark.parametrize(
    "settings", [{"graph": 8}, {"graph": "complete"}], ids=["sparse", "complete"]
)
def test_nobody_opens_the_vector_of_a_client_that_was_told_others_shared_keys(settings):
    """A server that lists fewer sharing clients to one of them thins out its masks."""
    n = 12
    channel, plan, everybody = scene(n, corrupt=0.0, **settings)
    parties = {client_party(c): party(channel, everybody, plan, c, 0.1) for c in plan.cohort}
    left_out = []

    def edit(to, body, kind):
        if kind is not Kind.INBOX or to != "client/0":
            return body
        sharing, rest = fields.read_most(memoryview(body)[fields.HEADER :], n)
        out = next(h for h in parties["client/0"].holders if h != 0)
        left_out.append(out)
        now, added = parties["client/0"].parameters, 32 if settings["graph"] == 8 else 0
        rows, end = boxes.read(now, rest, added)
        assert not end
        rest = boxes.write(now, {p: r for p, r in rows.items() if p != out}, added)
        return bytes(body[: fields.HEADER]) + fields.most(sharing - {out}, n) + rest

    outcome = drive(Edits(everybody.server.enter(plan), edit), parties, keep_bodies=True)
    assert left_out
    answers = [m for m in outcome.messages if m.receiver == "server" and m.body[4] == Kind.UNMASK]
    assert len(answers) > n // 2
    for message in answers:
        seeds, _ = fields.read_table(content(message), 32, n)
        assert 0 not in seeds or message.sender == "client/0"


def test_key_mail_grows_with_the_degree_and_not_with_the_cohort():
    """A client is told its own share holders' keys, whom it drew from the cohort of the plan."""
    n = 300
    channel, plan, everybody = scene(n, corrupt=0.05, drop=0.05)
    zeros = Bounded(0, torch.zeros(D), 1.0)
    members = everybody.clients
    adverts = {
        client_party(c): members[c].enter(plan, zeros).step({})["server"] for c in plan.cohort
    }
    server = everybody.server.enter(plan)
    server.step({})
    keys = server.step(adverts)
    assert len(keys) == n
    assert {len(body) for body in keys.values()} == {28 + 4 + 36 * channel.degree(n).k}
    assert max(len(body) for body in adverts.values()) <= 28 + 32 + 64 + 4 + 4 * channel.degree(n).k
    assert 36 * channel.degree(10_000).k < 10_000
