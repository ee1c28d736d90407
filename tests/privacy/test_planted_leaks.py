"""Deployments that leak by construction: an audit never calls one of them blind or proves that an
attack does not apply to it.
"""

from dataclasses import replace

import pytest

from privfl import Federation
from privfl.attacks import (
    GradientInversion,
    Knowledge,
    LabelCounts,
    LinearLeakage,
    PropertyInference,
    ShadowMembership,
    UpdateMembership,
)
from privfl.audit import audit
from privfl.audit.games import AuditNotes, Truth, attack_probe, attack_stream
from privfl.audit.rehearsal import divide, rehearse

BASE = {
    "data": {"name": "digits", "clients": 8, "partition": {"name": "iid"}},
    "model": {"name": "mlp", "hidden": [32]},
    "training": {"name": "sgd", "lr": 0.1, "batch_size": 16, "epochs": 2},
    "rounds": 2,
    "executor": "stacked",
}
CLIP = {"bound": {"name": "clip", "l2": 1.0}}
FEW = {"data": {"name": "digits", "clients": 2, "partition": {"name": "iid"}}}
SUMMED = {**CLIP, "channel": {"name": "secagg", "fidelity": "ideal"}}
WIDE = {
    **CLIP,
    "model": {"name": "mlp", "hidden": [256]},
    "channel": {"name": "secagg", "fidelity": "ideal", "bits": 24},
}
PAIRS = {**CLIP, "channel": {"name": "bucketed_secagg", "size": 2}}
SAMPLES, LABELS = LinearLeakage(), LabelCounts()
MEMBERS = UpdateMembership()
CENTRAL = {
    **CLIP,
    "mechanism": {"name": "gaussian", "noise_multiplier": 1.0},
    "aggregator": {"name": "mean", "weighted": False},
    "training": {**BASE["training"], "weighting": "uniform"},
}
LOCAL = {
    **CENTRAL,
    "mechanism": {"name": "local_gaussian", "noise_multiplier": 0.005},
    "relation": "replace_one",
}
ALL_BUT_ONE = "colluders(server, " + ", ".join(f"client({k})" for k in range(7)) + ")"

LEAKS = {
    "rows over the plain channel": ({}, "server", SAMPLES),
    "rows that are clipped": (CLIP, "server", SAMPLES),
    "rows over the plain channel, members": ({}, "server", MEMBERS),
    "rows before central noise, of hidden size": (CENTRAL, "server", SAMPLES),
    "rows before central noise, by matching": (CENTRAL, "server", GradientInversion(iterations=60)),
    "rows with little noise": (LOCAL, "server", MEMBERS),
    "means of pairs": (PAIRS, "server", SAMPLES),
    "means of pairs, members": (PAIRS, "server", MEMBERS),
    "means of pairs, labels": (PAIRS, "server", LABELS),
    "a sum in a wide model": (WIDE, "server", LinearLeakage(target="sum")),
    "a sum, seen by all but one": (SUMMED, ALL_BUT_ONE, SAMPLES),
    "a sum of two, seen by one of them": (
        {**SUMMED, **FEW},
        "colluders(server, client(0))",
        SAMPLES,
    ),
    "released models that fit too well": (
        {"rounds": 6, "training": {**BASE["training"], "epochs": 10}},
        "client(0)",
        ShadowMembership("rmia"),
    ),
    "a fact of half the clients": ({"rounds": 1}, "server", PropertyInference(shadows=20)),
}


@pytest.mark.parametrize("planted", list(LEAKS))
def test_a_planted_leak_is_found(planted):
    changes, adversary, attack = LEAKS[planted]
    kinds = {"probe": (), "stream": (), "properties": ()}
    part = {"inversion": "probe", "membership": "stream", "property": "properties"}
    kinds[part[attack.family]] = (attack,)
    federation = Federation.from_config({**BASE, **changes})
    report = audit(federation, adversaries=[adversary], held_out=0.7, lies=None, **kinds)
    assert report.findings
    for finding in report.findings:
        assert finding.verdict == "leaks", (finding.value, finding.reason, finding.more)


TWINS = [name for name, (_, _, attack) in LEAKS.items() if attack in (SAMPLES, MEMBERS, LABELS)]


def blind(planted):
    """What the same attack says of the same deployment where all that is asked about is other
    samples of the same clients than those that they trained on.
    """
    changes, adversary, attack = LEAKS[planted]
    federation = Federation.from_config({**BASE, **changes})
    scenario = federation.scenario
    third = {client: len(index) // 3 for client, index in scenario.clients.items()}
    trained = {client: index[: third[client]] for client, index in scenario.clients.items()}
    claimed = {client: index[third[client] :] for client, index in scenario.clients.items()}
    ground = divide(replace(scenario, clients=claimed), 0.5, 0)
    knows = Knowledge(scenario.facts["forward"], auxiliary=ground.auxiliary)
    notes = AuditNotes([], {}, {})
    if attack is MEMBERS:
        run = rehearse(federation, trained, scenario.rounds)
        pool = replace(knows, candidates=ground.pool)
        attack_stream(notes, "blind", run, [adversary], [attack], pool, ground, None)
    else:
        run = rehearse(federation, {k: index[:1] for k, index in trained.items()}, 1)
        few = {client: index[:1] for client, index in ground.members.items()}
        truth = Truth(few, scenario.workload.data, ground)
        attack_probe(notes, "blind", run, [adversary], [attack], knows, truth, None)
    return notes.findings


@pytest.mark.parametrize("planted", TWINS)
def test_a_blind_twin_of_a_planted_leak_finds_nothing(planted):
    findings = blind(planted)
    assert findings
    for finding in findings:
        assert finding.value is not None, finding.reason
        assert finding.verdict == "not found", (finding.value, finding.more)


ASKED = {"probe": (SAMPLES,), "stream": (MEMBERS,), "properties": (), "lies": None}


@pytest.mark.parametrize(
    "changes",
    [
        {
            "channel": {"name": "two_server", "reveal": "selection", "security": "semi_honest"},
            "aggregator": {"name": "krum", "f": 1, "m": 4},
        },
        {"channel": "encrypted_cosine", "aggregator": "fltrust"},
    ],
    ids=["who was picked", "each client's cosine"],
)
def test_what_is_disclosed_beside_a_sum_is_not_proved_away(changes):
    """A proof that a view holds one sum only is no proof where more than the sum is told."""
    small = {"data": {**BASE["data"], "root": 40}, "model": {"name": "softmax"}, "rounds": 1}
    federation = Federation.from_config({**BASE, **CLIP, **small, **changes})
    report = audit(federation, adversaries=["server"], **ASKED)
    for finding in report.findings:
        if finding.value is None:
            assert finding.verdict == "not found"
            assert not finding.theorem


def test_one_sum_over_many_is_proved_to_hold_no_single_update():
    federation = Federation.from_config({**BASE, **SUMMED})
    report = audit(federation, adversaries=["server"], **ASKED)
    for finding in report.findings:
        assert finding.verdict == "not applicable"
        assert "function of one sum" in finding.theorem
