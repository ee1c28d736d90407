"""What guards members between rounds, and settings and values that are refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from privfl.core import (
    BadUpdate,
    Bounded,
    ConfigError,
    NotVisible,
    RoundPlan,
    client_party,
    drive,
    drive_parts,
)
from privfl.crypto import AdditiveSharing, FixedPoint, SecAgg
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.secagg import graph, members
from privfl.crypto.sharing import PackedShamir, Shamir
from privfl.engine.session import Session


def plan_of(n, number=0):
    return RoundPlan(number, tuple(range(n)), d=4, l2=1.0, session=b"guards")


def zeros(client):
    return Bounded(client, torch.zeros(4), 1.0)


def played(everybody, plan, clients):
    parties = {client_party(c): everybody.clients[c].enter(plan, zeros(c)) for c in clients}
    parties |= {who: helper.enter(plan) for who, helper in everybody.helpers.items()}
    return drive(everybody.server.enter(plan), parties)


@pytest.mark.parametrize("mail", ["bare", "signed"])
def test_a_newcomer_takes_nobodys_identity_nor_what_guards_it_from_replays(mail):
    session = Session(SecAgg(mode="active", graph="complete", corrupt=0.0), mail)
    session.enrol(range(5))
    plan, before = plan_of(5), dict(session.members)
    parties = {client_party(c): session.members[client_party(c)] for c in range(5)}
    entered = {who: member.enter(plan, zeros(c)) for c, (who, member) in enumerate(parties.items())}
    assert drive(session.members["server"].enter(plan), entered).opened is not None
    identities = {who: session.identity(who) for who in before}
    session.enrol(range(7))
    assert all(session.members[who] is member for who, member in before.items())
    assert all(session.identity(who) is known for who, known in identities.items())
    assert "client/6" in session.directory.parties
    again = {who: member.enter(plan, zeros(c)) for c, (who, member) in enumerate(parties.items())}
    replay = drive(session.members["server"].enter(plan), again)
    assert replay.opened is None
    assert all("entered before" in str(a) for w, a in replay.aborts.items() if w != "server")
    larger = plan_of(7, number=1)
    everybody = {
        client_party(c): session.members[client_party(c)].enter(larger, zeros(c)) for c in range(7)
    }
    assert drive(session.members["server"].enter(larger), everybody).opened.survivors == (
        *range(7),
    )


def test_a_second_server_of_additive_sharing_sums_one_plan_once():
    """The difference of two sums over sets that differ in one client is that client's update."""
    everybody, plan = Enrolled.fresh(AdditiveSharing(bits=8), range(6)), plan_of(6)
    assert played(everybody, plan, range(6)).opened.survivors == tuple(range(6))
    second = played(everybody, plan, range(5))
    assert second.opened is None
    assert "entered before" in str(second.aborts["server/1"])
    assert played(everybody, plan_of(6, number=1), range(5)).opened.survivors == tuple(range(5))


@pytest.mark.parametrize("settings", [{}, {"mode": "active"}, {"graph": 4}])
def test_a_client_that_lost_its_carried_keys_drops_out_and_the_others_finish(settings):
    channel = SecAgg(carry=True, **{"graph": "complete", "corrupt": 0.0, **settings})
    everybody = Enrolled.fresh(channel, range(8))
    assert played(everybody, plan_of(8), range(8)).opened is not None
    everybody.clients[3].ahead.clear()
    outcome = played(everybody, plan_of(8, number=1), range(8))
    assert outcome.opened.survivors == (0, 1, 2, 4, 5, 6, 7)
    assert "which it has lost" in str(outcome.aborts["client/3"])
    assert outcome.aborts["client/3"].blamed is None
    assert not outcome.opened.excluded
    assert played(everybody, plan_of(8, number=2), range(8)).opened.survivors == tuple(range(8))


def test_keys_that_came_ahead_are_kept_for_each_part_of_a_round():
    """Entering a second part forgot what the first one was sent."""
    everybody = Enrolled.fresh(SecAgg(carry=True, graph="complete"), range(4))
    for number, uploads in enumerate((4, 3)):
        plans = [replace(plan_of(4, number), part=part) for part in ("delta", "control")]
        openers = {plan.part: everybody.server.enter(plan) for plan in plans}
        parties = {
            client_party(c): {plan.part: m.enter(plan, zeros(c)) for plan in plans}
            for c, m in everybody.clients.items()
        }
        outcome = drive_parts(openers, parties)
        assert all(opened is not None for opened in outcome.opened.values())
        assert sum(m.sender == "client/0" for m in outcome.messages) == uploads


def test_members_that_carry_keys_do_not_grow_with_the_rounds(monkeypatch):
    """Nor does a client keep keys of a round that it was not in; an old round's view says why it
    is none.
    """
    monkeypatch.setattr(members, "KEPT", 3)
    channel = SecAgg(carry=True, graph="complete")
    everybody = Enrolled.fresh(channel, range(5))
    outcomes = []
    for number in range(6):
        cohort = tuple(c for c in range(5) if c != number)
        plan = replace(plan_of(5, number), cohort=cohort)
        parties = {client_party(c): everybody.clients[c].enter(plan, zeros(c)) for c in cohort}
        outcomes.append(drive(everybody.server.enter(plan), parties, keep_bodies=True))
    assert len(everybody.server.began) == 3
    assert len(everybody.server.ahead) == 1
    assert all(len(client.ahead) == 1 for client in everybody.clients.values())
    server = {"server": everybody.server}
    assert channel.decode(outcomes[5].received({"server"}), server).count == 5
    with pytest.raises(NotVisible, match="3 rounds"):
        channel.decode(outcomes[1].received({"server"}), server)


@pytest.mark.parametrize("mode", ["semi_honest", "active"])
def test_a_graph_by_hand_that_protects_nobody_is_refused_with_its_figures(mode):
    """Of 800 clients with two neighbours each, about 32 have only corrupt ones where a fifth is."""
    with pytest.raises(ConfigError, match=r"probability 2\^0|may be corrupt need"):
        SecAgg(graph=2, corrupt=0.2, mode=mode).degree(800)
    said = SecAgg(graph=40, corrupt=0.1).guarantee.settings(800)["privacy fails"]
    assert said.startswith("with probability 2^-")


def test_the_figures_of_a_graph_are_those_of_a_brute_force_draw():
    n, found, corrupt = 60, graph.Degree(8, 5), 0.3
    rng, bad, trials = np.random.default_rng(0), set(range(18)), 400
    opened = 0
    for trial in range(trials):
        tag = trial.to_bytes(16, "little")
        order = rng.permutation(n)
        opened += any(
            len(bad & {int(order[j]) for j in graph.neighbours(tag, n, found.k, i)}) >= found.t
            for i in range(n)
        )
    private, _ = graph.fails(n, found, corrupt, 0.0, False)
    assert opened / trials <= 2**private
    assert graph.fails(n, graph.Degree(n - 1, 31), corrupt, 0.3, False)[0] == -math.inf


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("rotation", [False, True])
def test_what_is_not_finite_is_not_encoded(value, rotation):
    row = torch.tensor([0.1, value, 0.0, 0.0])
    code = FixedPoint(8, rotation=rotation)
    with pytest.raises(BadUpdate, match="NaN or infinite"):
        code.encode(Bounded.claimed(0, row, 1.0), plan_of(2))
    with pytest.raises(BadUpdate, match="not finite"):
        code.arrives(row, plan_of(2))


@pytest.mark.parametrize("holder", [-1, 4, 9])
def test_packed_shares_of_a_holder_that_there_is_not_are_refused(holder):
    sharing = PackedShamir(t=1, n=4, pack=2)
    shares = sharing.share(np.arange(4))
    with pytest.raises(ConfigError, match=f"holder {holder} of 4"):
        sharing.reconstruct({0: shares[0], 1: shares[1], holder: shares[2]}, length=4)


@pytest.mark.parametrize("holder", [0, 4])
def test_shares_of_a_holder_that_there_is_not_are_refused(holder):
    shares = Shamir(2, 3).share(b"seed")
    with pytest.raises(ConfigError, match=f"holder {holder} of 3"):
        Shamir(2, 3).reconstruct({1: shares[1], holder: shares[2]})
