"""A run whose mail is signed: the same model, the same views, and a relay that is named."""

from dataclasses import replace

import pytest
import torch

from privfl import Federation, assembly
from privfl.config import load
from privfl.core import Bounded, ConfigError, Faults, NotVisible, RoundPlan, Rows, Total
from privfl.crypto import Plain
from privfl.engine import Engine, Session
from privfl.training import executors

BASE = {
    "data": {"name": "digits", "clients": 6},
    "training": {"name": "sgd", "lr": 0.3, "batch_size": 32},
    "rounds": 2,
    "bound": {"name": "clip", "l2": 1.0},
    "executor": "sequential",
    "audit": {"keep": "all"},
}


def ran(mail, faults=None, **changes):
    return Federation.from_config({**BASE, "mail": mail, **changes}).run(faults=faults)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "training": {"name": "scaffold", "lr": 0.1},
            "bound": {**BASE["bound"], "parts": {"control": 5.0}},
        },
        {"bound": {"name": "adaptive_clip", "initial": 0.5}},
        {"channel": "secagg"},
        {"channel": "bucketed_secagg", "aggregator": "median"},
        {"channel": "two_server", "aggregator": {"name": "krum", "f": 1, "m": 3}},
    ],
    ids=["plain", "two parts", "bits", "secagg", "groups", "a hosted rule"],
)
def test_a_run_through_signed_mail_ends_with_the_same_model_and_views(changes):
    bare, signed = ran("bare", **changes), ran("signed", **changes)
    assert torch.allclose(bare.parameters, signed.parameters, atol=1e-5)
    assert not any(record.incidents for record in signed.history)
    assert signed.history[0].bytes_sent > bare.history[0].bytes_sent
    for who in ("outsider", "server", "client(1)", "colluders(server, client(1))"):
        one, other = bare.view(who, 1), signed.view(who, 1)
        assert one.opened.keys() == other.opened.keys()
        assert one.disclosed.keys() == other.disclosed.keys()
        for part, what in one.opened.items():
            values = [
                x.values if isinstance(x, Rows) else x.value for x in (what, other.opened[part])
            ]
            assert values[0].shape == values[1].shape


def test_the_report_says_whether_mail_is_signed():
    for mail, says in (("bare", "not signed, all parties in one process"), ("signed", "signed by")):
        assert says in ran(mail, rounds=1).summary["facts"]["mail"]


def test_an_outsider_reads_no_sealed_letter_and_every_row_of_the_plain_channel():
    assert ran("signed").view("outsider", 1).rows.n == 6
    run = ran("signed", channel="additive_sharing")
    tap = run.view("outsider", 1)
    with pytest.raises(NotVisible):
        _ = tap.rows
    assert all(len(body) < 72 or b"PAS" not in body[72:] for body in bodies(tap, "server/1"))
    assert any(b"PAS" in body for body in bodies(tap, "server"))
    assert isinstance(run.view("colluders(server, server/1)", 1).opened["delta"], Rows)
    assert isinstance(run.view("server", 1).opened["delta"], Total)


def bodies(view, receiver):
    return [message.body for message in view.wire if message.receiver == receiver]


def test_a_client_in_whose_name_a_relay_speaks_is_named_and_loses_its_round():
    class Stranger:
        def step(self, mail):
            return {} if mail else {"server": bytes(200)}

    run = ran("signed", Faults(relayed={"client/2": lambda honest: Stranger()}))
    for record in run.history:
        assert record.survivors == 5
        assert any(
            "server refused a letter in the name of client/2" in what for what in record.incidents
        )


def test_a_doubled_letter_is_no_incident():
    run = ran("signed", Faults(duplicated={"client/1", "client/2"}))
    assert not any(record.incidents for record in run.history)
    assert run.history[0].survivors == 6


def engine_of(**changes):
    scenario = assembly.scenario(load({**BASE, "mail": "signed", **changes}))
    executor, _ = executors(scenario.workload, scenario.clients, "sequential", seed=scenario.seed)
    return Engine(scenario, executor)


@pytest.mark.parametrize("channel", ["plain", "secagg"])
def test_letters_of_a_first_play_are_refused_where_the_same_state_is_played_again(channel):
    """Whoever carries the mail kept what client 2 signed, and hands it on in place of its new
    letters.
    """
    engine = engine_of(channel=channel)
    state = engine.begin("sequential")
    first = engine.play(state, keep=True).transcript
    letters = [m for m in first.carried.messages if m.sender == "client/2"]

    class Replays:
        def __init__(self, honest):
            self.left = list(letters)

        def step(self, mail):
            if not self.left:
                return {}
            now = self.left[0].exchange
            out = {m.receiver: m.body for m in self.left if m.exchange == now}
            self.left = [m for m in self.left if m.exchange != now]
            return out

    engine.carrier.faults = Faults(relayed={"client/2": Replays})
    second = engine.play(state, keep=True).transcript
    assert second.plan.session != first.plan.session
    assert 2 not in second.carried.opened["delta"].survivors
    said = [incident.what for incident in second.incidents]
    assert any("client/2 did not sign it for server" in what for what in said)


def test_a_session_does_not_play_the_same_signed_round_twice():
    session = Session(Plain(), "signed")
    session.enrol(range(2))
    plan = RoundPlan(0, (0, 1), 2, 1.0, session=b"one")
    updates = {c: Bounded(c, torch.zeros(2), 1.0) for c in range(2)}
    assert session.play(plan, updates).opened.survivors == (0, 1)
    with pytest.raises(ConfigError, match="another session"):
        session.play(plan, updates)
    assert session.play(replace(plan, session=b"two"), updates).opened.survivors == (0, 1)
