"""A run whose mail is signed: the same model, the same views, and a relay that is named."""

import pytest
import torch

from privfl import Federation
from privfl.core import Faults, NotVisible, Rows, Total

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
