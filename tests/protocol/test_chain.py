"""A chain of clients: the exact sum of who is there, what two neighbours read, and how a dead link,
a lying client and a lying server end a round.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from privfl import Federation
from privfl.core import (
    Bounded,
    ConfigError,
    Faults,
    NotVisible,
    RoundPlan,
    Rows,
    SecretsStay,
    Total,
    client_party,
    drive,
    seal_state,
)
from privfl.core.sealed_state import StateKey
from privfl.crypto import Chain
from privfl.crypto.chain.parameters import (
    FORMAT,
    HERE,
    LINK,
    ORDER,
    READY,
    TOKEN,
    bound_to,
    parameters_of,
    read_order,
    seal_for,
    seed_bound_to,
)
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.lies import Alters
from privfl.crypto.primitives import backend, fields, mask, open_one
from privfl.crypto.ring import lift, word


def updates_for(plan):
    g = torch.Generator().manual_seed(plan.number)
    made = {}
    for who in plan.cohort:
        x = torch.randn(plan.d, generator=g)
        made[who] = Bounded(who, 0.99 * x / x.norm(), 1.0, weight=1.0 + who % 3)
    return made


@dataclass
class Scene:
    channel: Chain = field(default_factory=Chain)
    n: int = 5
    d: int = 33

    def __post_init__(self):
        self.plan = RoundPlan(
            0, tuple(range(1, self.n + 1)), d=self.d, l2=1.0, max_weight=4.0, session=b"test"
        )
        self.all = Enrolled.fresh(self.channel, self.plan.cohort)
        self.updates = updates_for(self.plan)

    def run(self, faults=Faults()):
        parties = {
            client_party(i): c.enter(self.plan, self.updates[i])
            for i, c in self.all.clients.items()
        }
        server = self.all.server.enter(self.plan)
        return drive(server, parties, faults, keep_bodies=True)

    def exact_sum_of(self, clients):
        """The values and the weight of the sum of what these clients encode."""
        code = self.channel.code
        words = sum(code.encode(self.updates[i], self.plan) for i in clients)
        exact = code.decode(words, self.plan, len(clients))
        return exact.value.tolist(), exact.weight

    def seen(self, outcome, *who):
        members = {party: self.all.members[party] for party in who}
        return self.channel.decode(outcome.received(who), members)

    def row(self, client):
        code = self.channel.code
        return code.decode(code.encode(self.updates[client], self.plan), self.plan, 1)


def values_of(opened):
    return opened.what.value.tolist(), opened.what.weight


@pytest.mark.parametrize(("ring", "bits"), [(16, 8), (24, 16), (32, 20), (32, 29), (None, 16)])
def test_the_sum_is_exactly_the_sum_of_the_quantised_updates(ring, bits):
    scene = Scene(Chain(ring=ring, bits=bits))
    opened = scene.run().opened
    assert opened.survivors == scene.plan.cohort
    assert values_of(opened) == scene.exact_sum_of(scene.plan.cohort)


@pytest.mark.parametrize("n", [3, 9])
def test_a_client_sends_one_vector_and_a_chain_of_n_takes_n_exchanges_and_three(n):
    scene = Scene(Chain(ring=24), n=n, d=2_000)
    outcome = scene.run()
    for client in scene.plan.cohort:
        assert outcome.bytes_sent(client_party(client)) < 3 * 2_002 + 300
    assert outcome.exchanges == n + 3
    assert max(message.exchange for message in outcome.messages) == n + 3


def test_two_neighbours_read_the_client_between_them_and_nobody_else():
    scene = Scene()
    outcome = scene.run()
    seen = scene.seen(outcome, "client/1", "client/3")
    assert isinstance(seen, Rows)
    assert seen.ids == (2,)
    row = scene.row(2)
    assert torch.allclose(seen.values[0], row.value / row.weight)
    assert seen.weights[0] == pytest.approx(row.weight)
    assert scene.seen(outcome, "client/1", "client/4") is None
    assert scene.seen(outcome, "client/2", "client/3") is None


def test_the_server_is_the_neighbour_of_the_first_and_the_last():
    scene = Scene()
    outcome = scene.run()
    for colluder, read in ((2, (1,)), (4, (5,))):
        assert scene.seen(outcome, "server", client_party(colluder)).ids == read
    for who in ("client/1", "client/3", "client/5"):
        assert isinstance(scene.seen(outcome, "server", who), Total)


def test_an_audit_shows_what_two_colluding_clients_read():
    run = Federation.from_config(
        {
            "data": {"name": "digits", "clients": 4},
            "model": {"name": "softmax"},
            "training": {"name": "sgd", "steps": 1, "batch_size": 8},
            "bound": {"name": "clip", "l2": 1.0},
            "rounds": 1,
            "executor": "sequential",
            "channel": "chain",
            "audit": {"keep": "all"},
        }
    ).run()
    rows = run.view("colluders(client/0, client/2)", 0).rows
    sent = run.transcripts[0].updates[1]
    assert rows.ids == (1,)
    assert torch.allclose(rows.values[0], sent.delta, atol=2e-3)
    for blind in ("outsider", "server", "client(1)", "colluders(client/0, client/3)"):
        with pytest.raises(NotVisible):
            _ = run.view(blind, 0).rows


def test_members_forget_what_they_added_to_older_rounds():
    scene = Scene(Chain(history=2))
    outcomes = []
    for number in range(3):
        scene.plan = RoundPlan(number, scene.plan.cohort, d=33, l2=1.0, max_weight=4.0)
        outcomes.append(scene.run())
    seen = [scene.seen(outcome, "client/1", "client/3") for outcome in outcomes]
    assert [isinstance(view, Rows) for view in seen] == [False, True, True]


def test_who_is_not_there_or_cannot_be_read_is_passed_over_by_name():
    scene = Scene()
    outcome = scene.run(Faults(silent_from={"client/1": 0}, malformed={"client/4": lambda b: b""}))
    assert outcome.opened.survivors == (2, 3, 5)
    assert values_of(outcome.opened) == scene.exact_sum_of([2, 3, 5])
    assert "stage here" in outcome.opened.excluded["client/4"]


@pytest.mark.parametrize("client", [1, 2, 3, 4, 5])
def test_a_link_that_dies_after_it_was_named_ends_the_round_in_a_sentence_without_blame(client):
    scene = Scene()
    outcome = scene.run(Faults(silent_from={client_party(client): 2}))
    assert outcome.opened is None
    abort = outcome.aborts["server"]
    assert (abort.stage, abort.blamed, abort.who) == ("chain", None, (client_party(client),))
    assert f"client/{client} passed no sum on" in str(abort)


@dataclass
class WaitsTooEarly:
    """The second client, which says that it waits for the first before the first could have passed
    anything on: it writes to itself, to be asked once more.
    """

    honest: object
    body: bytes

    def step(self, mail):
        name = client_party(self.honest.who)
        if not mail:
            return {**self.honest.step(mail), name: b"again"}
        if mail.keys() == {name}:
            return {"server": self.body}
        return self.honest.step(mail)


@pytest.mark.parametrize("guess", [b"", bytes(TOKEN)])
def test_a_lying_second_client_does_not_name_the_first(guess):
    scene = Scene()
    early = parameters_of(scene.channel, scene.plan).write(READY, 1, guess)
    liar = {"client/2": lambda honest: WaitsTooEarly(honest, early)}
    outcome = scene.run(Faults(byzantine=liar))
    assert outcome.aborts == {}
    assert outcome.opened.survivors == scene.plan.cohort


def test_fewer_than_the_threshold_open_nothing():
    scene = Scene(Chain(threshold=0.8))
    outcome = scene.run(Faults(silent_from={"client/1": 0, "client/2": 0}))
    assert outcome.opened is None
    assert set(outcome.aborts["server"].who) == {"client/1", "client/2"}


def edited_order(chain, only=None):
    """A server that tells these clients (all if None) of another chain."""

    def change(to, body):
        if body[4] != ORDER or (only is not None and to not in only):
            return body
        return body[:28] + fields.bit_set(chain, 5) + body[29:]

    return Faults(byzantine={"server": lambda honest: Alters(honest, change)})


def test_a_server_that_tells_two_clients_of_two_chains_opens_no_sum_of_fewer_than_the_quorum():
    """The second would be the last, and send the server the sum of two."""
    scene = Scene(n=5, channel=Chain(threshold=0.6))
    faults = edited_order([0, 1], only={"client/2"})
    outcome = scene.run(faults)
    assert outcome.opened is None
    assert "threshold is 3" in str(outcome.aborts["client/2"])
    scene = Scene()
    outcome = scene.run(edited_order([0, 1, 2], only={"client/3"}))
    assert outcome.opened is None
    assert "another chain" in str(outcome.aborts["client/3"])
    assert outcome.aborts["client/3"].blamed is None
    assert not any(
        FORMAT.read(m.body).kind == LINK for m in outcome.messages if m.receiver == "server"
    )


def test_what_comes_twice_is_ignored():
    scene = Scene()
    outcome = scene.run(Faults(duplicated={"client/1", "client/2", "client/5", "server"}))
    assert outcome.opened.survivors == scene.plan.cohort
    assert values_of(outcome.opened) == scene.exact_sum_of(scene.plan.cohort)


def test_a_client_adds_to_one_chain_a_round():
    scene = Scene()
    scene.run()
    outcome = scene.run()
    assert outcome.opened is None
    assert "was entered before" in str(outcome.aborts["client/3"])


def test_who_knows_the_sum_stands_in_for_the_server_beside_the_first_and_the_last():
    """The record says so: everybody knows the sum of a model that is published."""
    scene = Scene()
    outcome = scene.run()
    assert "closes the chain to a ring" in scene.channel.describe()
    assert scene.seen(outcome, "client/1", "client/4") is None  # by their mail alone
    (tag,) = scene.all.clients[1].added[scene.plan.part]
    first, fourth = (scene.all.members[who] for who in ("client/1", "client/4"))
    (mail,) = [m for m in outcome.received(["client/4"])["client/4"] if "client/3" in m]
    assert tag == FORMAT.read(mail["client/3"]).tag
    seeds = scene.all.server.seeds[scene.plan.part]
    now = parameters_of(scene.channel, scene.plan)
    mask_of_all = np.zeros(now.length, dtype=word(now.ring))
    mask(mask_of_all, [(opened_seed(now, first, outcome), 1)], backend())
    passed = opened_link(now, fourth, mail["client/3"], 2) + fourth.added[scene.plan.part][tag][1]
    code = scene.channel.code
    total = sum(code.encode(scene.updates[i], scene.plan) for i in scene.plan.cohort)
    row = lift((mask_of_all + total.astype(mask_of_all.dtype) - passed), now.ring)
    assert torch.equal(code.decode(row, scene.plan, 1).value, scene.row(5).value)
    assert seeds[tag] == opened_seed(now, first, outcome)


def opened_seed(now, first, outcome):
    """What the first client opens of the server's letter."""
    bodies = [m["server"] for m in outcome.received(["client/1"])["client/1"] if "server" in m]
    content = FORMAT.read(next(b for b in bodies if FORMAT.read(b).kind == ORDER)).content
    bits = fields.bit_set(range(5), 5)
    _, _, sealed = read_order(content, 5)
    return open_one(sealed, 32, first.identity, seed_bound_to(now.tag, bits, "client/1"))


def opened_link(now, receiver, body, position):
    """What a client opens of its neighbour's letter."""
    bits = fields.bit_set(range(5), 5)
    boxes = fields.after_facts(FORMAT.read(body).content, fields.facts(now.plan))[1:]
    context = bound_to(now.tag, bits, position, receiver.identity.who)
    packed = open_one(boxes, now.length * now.ring // 8, receiver.identity, context)
    return fields.unpack(memoryview(packed), now.ring, now.length)


@pytest.mark.parametrize("n", [2, 901])
def test_a_cohort_that_is_too_small_or_too_long_is_refused(n):
    plan = RoundPlan(0, tuple(range(n)), d=2, l2=1.0)
    with pytest.raises(ConfigError, match="a chain has 3 to 900 clients"):
        Enrolled.fresh(Chain(), [0]).server.enter(plan)


def test_secrets_of_members_and_parties_stay():
    scene = Scene()
    party = scene.all.clients[1].enter(scene.plan, scene.updates[1])
    for secret in (scene.all.clients[1], scene.all.server, party):
        with pytest.raises(SecretsStay):
            secret.__reduce_ex__(4)
        assert "secrets" in repr(secret)
        seal_state(secret, StateKey())


@dataclass
class TwoChains:
    """A server that names two chains side by side, each of half of those who are there."""

    honest: object
    halves: list = field(default_factory=list)

    def step(self, mail):
        if mail and not self.halves:
            who, lowered = sorted(mail), replace(self.honest.round, quorum=1)
            for half in (who[: len(who) // 2], who[len(who) // 2 :]):
                own = type(self.honest)(
                    lowered, self.honest.identity, self.honest.directory, bytes(32)
                )
                self.halves.append((half, own))
        out = {}
        for half, own in self.halves:
            out |= own.step({who: body for who, body in mail.items() if who in half})
        return out


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_a_server_opens_no_two_sums_of_a_round(threshold):
    """A quorum is more than half, whatever the threshold."""
    scene, told = Scene(Chain(threshold=threshold), n=6), []

    def lies(honest):
        told.append(TwoChains(honest))
        return told[0]

    outcome = scene.run(Faults(byzantine={"server": lies}))
    assert [half.result for _, half in told[0].halves] == [None, None]
    assert len(told[0].halves) == 2
    for client in scene.plan.cohort:
        assert "threshold is 4" in str(outcome.aborts[client_party(client)])
    assert [scene.channel.able.fewest(n) for n in (3, 4, 5, 6, 7)] == [3, 3, 3, 4, 4]


@dataclass
class Forks:
    """A server that tells every client of a chain of its own, at an end of it, beside a client that
    it colludes with; nobody else of such a chain hears of it.
    """

    honest: object
    at: int
    letters: dict = field(default_factory=dict)

    def step(self, mail):
        now = self.honest.round
        if any(now.repeats(body, LINK) for body in mail.values()):
            self.letters |= {who: body for who, body in mail.items() if now.repeats(body, LINK)}
            return {}
        if self.letters or not any(now.repeats(body, HERE) for body in mail.values()):
            return {}
        out = {}
        for victim in set(range(now.plan.n)) - {self.at}:
            to, order = now.name(victim), forked(now, self.at, victim)
            bits = fields.bit_set(order, now.plan.n)
            seed = b""
            if victim < self.at:
                context = seed_bound_to(now.tag, bits, to)
                seed = seal_for(self.honest.directory, to, self.honest.seed, context, "auto")
            out[to] = now.write(ORDER, 0, bits, bytes(TOKEN), seed)
        return {**out, now.name(self.at): b"go"}


def forked(now, at, victim):
    """The chain of quorum clients that a victim is told of."""
    others = range(at) if victim > at else range(at + 1, now.plan.n)
    return frozenset({at, victim, *list(others)[: now.quorum - 2]})


@dataclass
class PassesNothing:
    """The client in the middle: it passes zeros on to everybody after it."""

    honest: object
    mail: dict = field(default_factory=dict)

    def step(self, mail):
        if "server" not in mail:
            self.mail |= mail
            return {} if mail else self.honest.step(mail)
        now, at = self.honest.round, self.honest.position
        zeros = np.zeros(now.length, dtype=word(now.ring))
        after = [(now.name(victim), victim) for victim in range(at + 1, now.plan.n)]
        return {
            to: now.link(at, forked(now, at, victim), zeros, to, self.honest.directory)
            for to, victim in after
        }


def test_a_server_and_one_client_in_the_middle_read_everybody_in_one_round():
    """Nobody can tell: each is in one chain, of a quorum, and is asked once."""
    scene, liars = Scene(n=6), {}

    def takes_over(who, liar):
        def lies(honest):
            liars[who] = liar(honest)
            return liars[who]

        return lies

    middle = "client/3"
    forks = takes_over("server", lambda honest: Forks(honest, at=2))
    outcome = scene.run(
        Faults(byzantine={"server": forks, middle: takes_over(middle, PassesNothing)})
    )
    assert outcome.aborts == {}
    server, colluder = liars["server"], liars[middle]
    now, read = server.honest.round, {}
    mask_of_all = np.zeros(now.length, dtype=word(now.ring))
    mask(mask_of_all, [(server.honest.seed, 1)], backend())
    mails = [(server.letters, server.honest), (colluder.mail, colluder.honest)]
    for letters, reader in mails:
        for who, body in letters.items():
            to, place = reader.identity.who, int(who.removeprefix("client/")) - 1
            order = forked(now, 2, place)
            bits = fields.bit_set(order, 6)
            boxes = fields.after_facts(FORMAT.read(body).content, fields.facts(now.plan))[1:]
            packed = open_one(
                boxes,
                now.length * now.ring // 8,
                reader.identity,
                bound_to(now.tag, bits, place, to),
            )
            words = fields.unpack(memoryview(packed), now.ring, now.length)
            row = words - mask_of_all if to == middle else words
            read[place + 1] = scene.channel.code.decode(lift(row, now.ring), scene.plan, 1)
    assert set(read) == {1, 2, 4, 5, 6}
    assert all(torch.equal(row.value, scene.row(client).value) for client, row in read.items())


def says_that_it_waits(honest):
    """The last client, which says in everybody's turn that it waits for the one before it."""

    @dataclass
    class Waits:
        begun: bool = False

        def step(self, mail):
            out = dict(honest.step(mail))
            if mail and "server" not in out:
                out["server"] = honest.round.write(READY, honest.position)
            return out

    return Waits()


def test_who_says_in_anothers_turn_that_it_waits_has_nobody_named():
    scene = Scene()
    outcome = scene.run(Faults(byzantine={"client/5": says_that_it_waits}))
    assert outcome.aborts == {}
    assert outcome.opened.survivors == scene.plan.cohort
