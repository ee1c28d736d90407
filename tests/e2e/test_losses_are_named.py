"""Whoever does not get through is named, whichever part it is missing from, ends no run, and
remembers nothing of what the server did not apply.
"""

from dataclasses import dataclass

import pytest
import torch

from privfl import Federation
from privfl.core import Faults, Party, pack_parts, unpack_parts

BASE = {
    "data": {"name": "digits", "clients": 6},
    "training": {"name": "sgd", "lr": 0.3, "steps": 1, "batch_size": 32},
    "rounds": 2,
    "bound": {"name": "clip", "l2": 1.0},
    "executor": "sequential",
}
SCAFFOLD = {
    "training": {"name": "scaffold", "lr": 0.1, "steps": 1, "batch_size": 32},
    "bound": {**BASE["bound"], "parts": {"control": 5.0}},
}


class TalksToItself:
    """A party that writes to itself for ever, and to the server never."""

    def __init__(self, honest):
        self.honest = honest

    def step(self, mail):
        return {"client/1": b"and?"}


@pytest.mark.parametrize("mail", ["bare", "signed"])
@pytest.mark.parametrize("parts", [{}, SCAFFOLD], ids=["one part", "two parts"])
@pytest.mark.parametrize("channel", ["plain", "secagg"])
def test_a_liar_that_talks_without_end_is_dropped_and_named_and_the_rounds_go_on(
    mail, parts, channel
):
    config = {**BASE, **parts, "mail": mail, "channel": channel}
    run = Federation.from_config(config).run(faults=Faults(byzantine={"client/1": TalksToItself}))
    for record in run.history:
        assert record.survivors == 5
        assert any("client/1" in said and "still talking" in said for said in record.incidents)


@dataclass
class Keeps:
    """What stands before a client and keeps back one part of all that it sends."""

    honest: Party
    part: str

    def step(self, mail):
        out = {}
        for to, frame in self.honest.step(mail).items():
            bodies = {p: body for p, body in unpack_parts(frame).items() if p != self.part}
            out[to] = pack_parts(bodies)
        return out


@pytest.mark.parametrize("channel", ["plain", "additive_sharing"])
@pytest.mark.parametrize("part", ["delta", "control"])
def test_a_client_that_is_missing_from_one_part_alone_is_an_incident_that_names_the_part(
    channel, part
):
    faults = Faults(relayed={"client/1": lambda honest: Keeps(honest, part)})
    run = Federation.from_config({**BASE, **SCAFFOLD, "channel": channel}).run(faults=faults)
    for record in run.history:
        [said] = record.incidents
        assert "client" in said
        assert "1" in said
        assert ("(control)" in said) == (part == "control")


def test_a_client_that_is_missing_from_every_part_is_named_once():
    run = Federation.from_config({**BASE, **SCAFFOLD, "channel": "plain"}).run(
        faults=Faults(silent_from={"client/1": 0})
    )
    assert [record.incidents for record in run.history] == [("client 1 did not get through",)] * 2


# ---- SCAFFOLD: c is the mean of the c_i of all clients, whoever gets through


def controls(run, clients=6):
    """The server's c, and each client's c_i: zero where it took part in no round."""
    c = run.state.method["method.control"]
    states = [run.state.clients.get(i) for i in range(clients)]
    zero = torch.zeros_like(c)
    return c, [zero if one is None else one.vectors.get("control", zero) for one in states]


def scaffold(faults=None, **changes):
    return Federation.from_config({**BASE, **SCAFFOLD, **changes}).run(faults=faults)


LOSSES = {
    "everybody": Faults(),
    "silent": Faults(silent_from={"client/1": 0}),
    "no control": Faults(relayed={"client/1": lambda honest: Keeps(honest, "control")}),
    "no delta": Faults(relayed={"client/1": lambda honest: Keeps(honest, "delta")}),
    "garbled": Faults(malformed={"client/1": lambda body: b"nothing"}),
    "talks": Faults(byzantine={"client/1": TalksToItself}),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("channel", ["plain", "additive_sharing"])
@pytest.mark.parametrize("l2", [5.0, 0.01], ids=["free", "clipped"])
def test_the_servers_control_is_the_mean_of_the_clients_whoever_gets_through(loss, channel, l2):
    bound = {**BASE["bound"], "parts": {"control": l2}}
    sampler = {"name": "fixed_size", "size": 4}
    run = scaffold(LOSSES[loss], channel=channel, bound=bound, rounds=3, sampler=sampler)
    c, own = controls(run)
    assert float(c.norm()) > 0
    assert float((c - torch.stack(own).mean(dim=0)).norm()) < 1e-3 * float(c.norm())
    if loss not in ("everybody", "no delta"):
        assert not own[1].any()


def test_a_public_denominator_is_what_the_servers_control_divides_by():
    rule = {"name": "mean", "weighted": False, "denominator": 3}
    c, own = controls(scaffold(aggregator=rule, channel="plain"))
    torch.testing.assert_close(c, torch.stack(own).mean(dim=0))


@pytest.mark.parametrize(
    "closed",
    [
        {"aggregator": {"name": "krum", "f": 1}, "channel": "plain"},
        {"channel": "secagg"},
    ],
    ids=["a rule refuses", "nothing opens"],
)
def test_a_round_that_the_server_does_not_apply_moves_nobodys_control(closed):
    faults = Faults(silent_from={f"client/{i}": 0 for i in range(4)})
    c, own = controls(scaffold(faults, **closed))
    assert not c.any()
    assert not torch.stack(own).any()


@pytest.mark.parametrize("attack", ["skip_clip", "withhold", "sign_flip"])
def test_attackers_remember_no_more_than_what_got_through_either(attack):
    run = scaffold(attacks=[{"name": attack, "clients": [2]}], channel="plain", rounds=3)
    c, own = controls(run)
    torch.testing.assert_close(c, torch.stack(own).mean(dim=0))
