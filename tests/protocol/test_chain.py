"""A chain of clients: the exact sum of who is there, what two neighbours read, and how a dead link,
a lying client and a lying server end a round.
"""

from dataclasses import dataclass, field

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
    LINK,
    ORDER,
    bound_to,
    parameters_of,
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

    def opened_is_exactly(self, outcome, survivors):
        assert outcome.opened is not None, {who: str(a) for who, a in outcome.aborts.items()}
        assert outcome.opened.survivors == tuple(survivors)
        code = self.channel.code
        exact = code.decode(
            sum(code.encode(self.updates[i], self.plan) for i in survivors),
            self.plan,
            len(survivors),
        )
        assert torch.equal(outcome.opened.what.value, exact.value)
        assert outcome.opened.what.weight == exact.weight

    def seen(self, outcome, *who):
        members = {party: self.all.members[party] for party in who}
        return self.channel.decode(outcome.received(who), members)

    def row(self, client):
        code = self.channel.code
        return code.decode(code.encode(self.updates[client], self.plan), self.plan, 1)


@pytest.mark.parametrize(("ring", "bits"), [(16, 8), (24, 16), (32, 20), (None, 16)])
def test_the_sum_is_exactly_the_sum_of_the_quantised_updates(ring, bits):
    scene = Scene(Chain(ring=ring, bits=bits))
    scene.opened_is_exactly(scene.run(), scene.plan.cohort)


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
    scene.opened_is_exactly(outcome, [2, 3, 5])
    assert "stage here" in outcome.opened.excluded["client/4"]


@pytest.mark.parametrize("client", [1, 2, 3, 4, 5])
def test_a_link_that_dies_after_it_was_named_ends_the_round_in_a_sentence_without_blame(client):
    scene = Scene()
    outcome = scene.run(Faults(silent_from={client_party(client): 2}))
    assert outcome.opened is None
    abort = outcome.aborts["server"]
    assert (abort.stage, abort.blamed, abort.who) == ("chain", None, (client_party(client),))
    assert f"client/{client} passed no sum on" in str(abort)


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
    scene.opened_is_exactly(outcome, scene.plan.cohort)


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
    return open_one(content[1:], 32, first.identity, seed_bound_to(now.tag, bits, "client/1"))


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
