"""Whoever does not get through is named, whichever part it is missing from, and ends no run."""

from dataclasses import dataclass

import pytest

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
