"""What an audit finds of liars: each lie that a channel declares, and lies in single frames of
either server, told through the real parties in a round of the run's own updates.
"""

import dataclasses

import pytest
import torch

from privfl import Federation
from privfl.attacks import LinearLeakage
from privfl.audit import adversaries_of, audit, told_lies, write_page
from privfl.audit.lying import last_contributions
from privfl.audit.rehearsal import rehearse
from privfl.core import Coalition, Liars, Lie

BASE = {
    "data": {"name": "digits", "clients": 5, "partition": {"name": "iid"}, "root": 60},
    "model": {"name": "mlp", "hidden": [2]},
    "training": {"name": "sgd", "lr": 0.1, "batch_size": 16, "steps": 2},
    "bound": {"name": "clip", "l2": 1.0},
    "rounds": 2,
    "executor": "stacked",
}
KRUM = {"name": "krum", "f": 1, "m": 3}
OPEN = {"name": "two_server", "reveal": "scores", "soundness": 20, "security": "semi_honest"}


def played(channel, aggregator="mean", frames=2):
    federation = Federation.from_config({**BASE, "channel": channel, "aggregator": aggregator})
    run = rehearse(federation, federation.scenario.clients, 2)
    return list(told_lies("layer", federation.scenario, run, frames))


def by(findings, who, **more):
    return [
        one
        for one in findings
        if one.liars == who and all(getattr(one, key) == value for key, value in more.items())
    ]


@pytest.fixture(scope="module")
def report():
    federation = Federation.from_config({**BASE, "channel": OPEN, "aggregator": "fltrust"})
    nothing = {"stream": (), "probe": (), "properties": ()}
    return audit(federation, adversaries=["server"], lies=1, **nothing)


def test_under_fltrust_with_open_scores_one_lying_server_reads_an_update_of_the_run(report):
    for who in ("server", "server/1"):
        (read, *_) = by(report.lies, who, met="read")
        assert read.read
        assert read.says == "read"
    assert not any(one.alarming for one in report.lies)


def test_where_the_rule_is_enforced_no_server_reads_and_lies_in_frames_end_the_round():
    found = played({**OPEN, "security": "malicious"}, "fltrust")
    assert not any(one.read or one.alarming for one in found)
    framed = [one for one in found if one.framed]
    assert {one.liars for one in framed} == {"server", "server/1"}
    ended = [one for one in framed if one.met == "abort"]
    assert len(ended) >= 4
    assert all("lied" in one.why or "is not" in one.why for one in ended)
    assert not any(one.telling for one in framed)


def test_a_server_with_a_client_is_played_too_where_both_servers_see_who_counts():
    filtered = {"name": "two_server", "reference": "previous", "security": "semi_honest"}
    (two,) = by(played(filtered, "cosine_filter"), "server with a client")
    assert (two.says, two.met) == (None, "read")


def test_a_lie_that_does_more_than_the_record_says_alarms():
    federation = Federation.from_config({**BASE, "channel": "secagg"})
    scenario = federation.scenario
    run = rehearse(federation, scenario.clients, 1)
    stolen = Lie(
        Coalition.of("server"),
        "abort",
        "is told a row by an oracle",
        lambda: Liars(took=lambda published: {2: last_contributions(scenario, run)[0].rows[2]}),
    )

    class Understates(type(scenario.channel)):
        @property
        def guarantee(self):
            return dataclasses.replace(super().guarantee, lies=(stolen,))

    channel = Understates()
    (found,) = told_lies("layer", dataclasses.replace(scenario, channel=channel), run)
    assert found.alarming
    assert found.read == (2,)


def test_updates_that_are_all_alike_are_not_read_from_their_mean():
    one_step = {**BASE["training"], "batch_size": 300, "steps": 1}
    federation = Federation.from_config({**BASE, "training": one_step, "channel": "secagg"})
    scenario = federation.scenario
    run = rehearse(federation, scenario.clients, 1)
    rows = last_contributions(scenario, run)[0].rows
    assert float(torch.cosine_similarity(rows.mean(0), rows[0], dim=0)) > 0.94
    known = Lie(
        Coalition.of("server"),
        "read",
        "takes the mean for everybody's update",
        lambda: Liars(took=lambda published: {0: rows.mean(0)}),
    )

    class Boasts(type(scenario.channel)):
        @property
        def guarantee(self):
            return dataclasses.replace(super().guarantee, lies=(known,))

    (found,) = told_lies("layer", dataclasses.replace(scenario, channel=Boasts()), run)
    assert found.met == "nothing"


def test_the_page_of_an_audit_shows_what_liars_get(report, tmp_path):
    page = write_page(report, tmp_path).read_text()
    assert "<h2>Liars</h2>" in page
    assert "reads the update of client/" in page
    assert "1 lies in single frames" in page


def test_an_audit_asks_both_servers_and_the_dealer_alone_and_with_a_client():
    asked = set(adversaries_of(Federation.from_config({**BASE, "channel": "two_server"})))
    assert {"server", "server/1", "dealer", "client/0"} <= asked
    assert {"colluders(client/0, server)", "colluders(client/0, server/1)"} <= asked


def test_an_ideal_run_has_no_parties_that_could_lie():
    assert played({"name": "secagg", "fidelity": "ideal"}) == []


def test_the_closed_form_says_that_a_sum_under_trust_shows_nothing_and_the_audit_goes_on():
    wide = {"model": {"name": "mlp", "hidden": [32]}, "data": {**BASE["data"], "clients": 8}}
    federation = Federation.from_config(
        {**BASE, **wide, "channel": OPEN, "aggregator": "fltrust", "rounds": 1}
    )
    closed = (LinearLeakage(target="sum"),)
    found = audit(
        federation, adversaries=["server"], stream=(), probe=closed, properties=(), lies=None
    )
    (row,) = found.rows
    assert "nothing above noise" in row["not applicable"]
