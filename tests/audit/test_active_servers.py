"""An active server on the report card: models that it sends in place of the round's own, beside the
same server that only looks.
"""

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from torch import nn

from benchmarks.privacy_attacks.nulls import found
from privfl import Federation
from privfl.attacks import LossThreshold
from privfl.audit import Attacks, audit, card, record
from privfl.audit.intervals import Figure
from privfl.audit.own_models import OwnModels, models_line
from privfl.audit.page.top import layer_card
from privfl.core import Attack
from privfl.data import load
from privfl.engine import Attacker

BASE = {
    "data": {"name": "digits", "clients": 6, "partition": {"name": "iid"}},
    "model": {"name": "mlp", "hidden": [32]},
    "training": {"name": "sgd", "lr": 0.1, "epochs": 2, "batch_size": 16},
    "rounds": 1,
    "bound": {"name": "clip", "l2": 2.0},
    "executor": "stacked",
}
LAYERS = {
    "in clear": {},
    "secagg": {"channel": "secagg"},
}


@pytest.fixture(scope="module")
def report():
    return audit(
        {name: Federation.from_config({**BASE, **more}) for name, more in LAYERS.items()},
        adversaries=["server"],
        attacks=Attacks(stream=(LossThreshold(),), active=True),
        lies=None,
    )


def of(report, layer, words):
    (one,) = [f for f in report.findings if f.layer == layer and words in f.attack]
    return one


def test_where_rows_are_read_the_push_leaks_and_tells_more_than_looking(report):
    active, passive = (of(report, "in clear", words) for words in ("active, each", "passive, each"))
    assert active.verdict == "leaks"
    assert active.value.value > passive.value.value
    assert report.threat_of(active).letter == "G"
    assert report.threat_of(passive).letter == "D"


def test_who_is_sent_a_model_of_its_own_is_in_nothing_that_is_opened(report):
    layer = "secagg"
    each, everybody = [one for one in report.models if one.layer == layer]
    assert each.refused == tuple(range(6))
    assert each.stopped
    assert each.why
    told = of(report, layer, "active, each")
    assert told.value is None
    assert told.verdict == "not found"  # that it was stopped is no theorem about the layer
    assert told.reason == each.why
    assert not everybody.refused
    assert everybody.words == "not stopped"
    assert everybody.active is not None


def test_the_card_and_the_record_say_which_layers_stop_it(report):
    page = "".join(layer_card(report, 0, layer, card(report)) for layer in LAYERS)
    assert "6 of 6 clients are in nothing that was opened" in page
    assert "each client a model of its own: not stopped" in page
    held = json.loads(json.dumps(record(report)))["models"]
    assert [one["refused"] for one in held if one["layer"] == "secagg"] == [[*range(6)], []]
    (line,) = [one for one in record(report)["card"] if one["layer"] == "in clear"][1:2]
    assert line["asset"] == "membership"
    assert line["threat"]["letter"] in ("D", "G")


class Mute:
    """A party that never says a word."""

    def __init__(self, honest):
        self.honest = honest

    def step(self, mail):
        return {}


@dataclass(frozen=True)
class Silent(Attack):
    """A client whose machine is off when its contribution is due, whatever it was sent."""

    seats: ClassVar = frozenset({"party"})

    def poison_party(self, honest, plan, client):
        return Mute(honest)


def models_of(silent):
    fed = Federation.from_config({**BASE, "channel": "secagg"})
    off = Attacker("off", Silent(), frozenset(silent))
    told = audit(
        fed.with_scenario(replace(fed.scenario, attackers=(off,))),
        adversaries=["server"],
        attacks=Attacks(active=True),
        lies=None,
    )
    return told.models, models_line(told.models)


def test_who_drops_out_is_not_counted_among_those_who_refused():
    (each, everybody), line = models_of([2, 4])
    assert each.refused == (0, 1, 3, 5)
    assert each.anyway == (2, 4)
    assert each.stopped
    assert "4 of 6 clients are in nothing that was opened" in each.words
    assert "client 2 did not" not in each.why
    assert everybody.refused == ()
    assert everybody.anyway == (2, 4)
    assert everybody.words.startswith("not stopped; 2 of 6 clients are missing whatever")
    assert ">sent<" in line


def test_no_server_is_stopped_by_drop_outs_that_leave_nothing_to_open():
    (each, everybody), line = models_of([1, 2, 4])
    for one in (each, everybody):
        assert one.active is None
        assert one.refused == ()
        assert one.anyway == tuple(range(6))
        assert not one.stopped
        assert one.words.startswith("nobody refused it, and nothing could be scored")
    assert ">stopped<" not in line


def test_a_client_that_is_not_there_makes_no_server_stopped():
    area = Figure(0.6, 0.5, 0.7)
    one = OwnModels("plain", "all", 6, refused=(2,), why="client/2 dropped out", active=area)
    assert one.words.startswith("not stopped")
    assert ">stopped<" not in models_line([one])


class Looks(nn.Module):
    """What it computes hangs on a number, at which nobody can look for all samples at once."""

    def forward(self, x):
        return x if x.sum() > 0 else 2 * x


def test_a_model_that_cannot_be_pushed_ends_no_audit_and_is_said_to_be_undone():
    """There is no vectorised loss of each sample."""
    data = load("digits").train
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), Looks())
    told = audit(
        Federation(net, [data.take(range(k, 90, 3)) for k in range(3)], data.take(range(90, 150))),
        adversaries=["server"],
        attacks=Attacks(active=True),
        lies=None,
    )
    assert len(told.models) == 2
    assert all("RuntimeError" in one.undone for one in told.models)
    assert all("RuntimeError" in one.undone for one in told.findings)
    assert len(told.findings) == 4


def test_a_push_finds_nothing_of_samples_that_nobody_trained_on():
    """Nominal 95 % intervals: of three, none holds the null with a chance of 1e-4; the
    benchmark plays 200."""
    runs = [found(seed, ["active"]) for seed in range(3)]
    for attack in runs[0]:
        assert sum(run[attack] for run in runs) >= 1, attack
