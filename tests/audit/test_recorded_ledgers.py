"""A ledger that was recorded is looked at whole, and the audit says how much of a run it played."""

from dataclasses import replace

import pytest

from benchmarks.dp_lies import HALF, SGD, run
from privfl.audit import Settings, audit_claims
from privfl.audit.dp.neighbours import Search
from privfl.core import Ledger

QUICK = Settings(canaries=0, pairs=4, climb=1, values=4_000, inclusions=600, most_rounds=30)


@pytest.mark.parametrize(("settings", "left_out"), [({}, 0), ({}, 3), (HALF, 3), (SGD, 3)], ids=str)
def test_a_round_left_out_of_a_recorded_ledger_is_seen(settings, left_out):
    with run(**settings) as federation:
        played = federation.run().ledger
        less = Ledger(tuple(one for one in played.charges if one.round != left_out))
        (honest,) = audit_claims(federation, recorded=played, settings=QUICK)
        (claim,) = audit_claims(federation, recorded=less, settings=QUICK)
    assert honest.verdict == "not refuted"
    assert f"leaves out {left_out}" in {a.name: a.seen for a in claim.alarms}["ledger, whole"]


def test_an_audit_says_how_many_rounds_it_played_and_whose_epsilon_it_checks():
    with run() as federation:
        ledger = federation.run().ledger
        (whole,) = audit_claims(federation, recorded=ledger, settings=QUICK)
        few = replace(QUICK, most_rounds=9)
        (part,) = audit_claims(federation, recorded=ledger, settings=few)
    assert whole.covers == "audits 5 of 5 rounds"
    words = "audits 4 of 5 rounds: the claimed epsilon here is that of the first 4, and not the "
    assert part.covers.startswith(words)
    assert part.row()["covers"] == part.covers
    assert part.claimed < whole.claimed


def test_every_client_may_have_a_turn_as_the_one_that_changes_however_few_pairs_there_are():
    with run() as federation:
        scenario, met = federation.scenario, set()
        for seed in range(12):
            own = [at for *_, at, _, _ in Search(scenario, seed)._everybody(4)]
            assert len(set(own)) == 4
            met |= set(own)
        everybody = [at for *_, at, _, _ in Search(scenario)._everybody(len(scenario.clients))]
    assert met == set(range(len(scenario.clients)))
    assert sorted(everybody) == sorted(met)
