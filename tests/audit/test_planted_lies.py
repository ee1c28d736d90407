"""Lies of `benchmarks.dp_lies`, each told by a copy of one part of an honest run, are all found."""

import pytest
import torch

from benchmarks.dp_lies import (
    HARDER,
    LIES,
    REPLACE,
    SHARES,
    Credulous,
    LessNoise,
    run,
    through,
)
from privfl.audit import Settings, audit_claims
from privfl.audit.dp import LEVEL, NeighbourWorld, Search, Stage, Tape

FOUND_BY = {
    "half of the noise, everybody": "noise variance",
    "half of the noise, Poisson": "noise variance",
    "half of the noise, DP-SGD": "noise variance",
    "the same noise every round": "noise repeated",
    "rate .1 charged, everybody drawn": "sampling rate",
    "DP-SGD, everybody drawn": "sampling rate",
    "an accountant that halves, everybody": "privacy loss",
    "an accountant that halves, Poisson": "privacy loss",
    "norms of a convolution forgotten": "neighbours",
    "the smallest layer left open": "neighbours",
    "SCAFFOLD's control variate bare": "tape",
    "NNM moves one row": "neighbours",
    "ARC moves one row": "neighbours",
    "shares charged for C, not 2C": "noise variance",
    "centred clipping keeps its centre": "tape",
    "noise x .9": "noise variance",
    "noise x .95": "noise variance",
    "a fifth of the last round's noise": "noise correlated",
    "rate .65 for .5": "sampling rate",
    "a rule that nobody moves": "neighbours",
    "two parts charged as one": "charges",
    "local noise charged as sampled": "charges",
}


def settings(name):
    """What the test that must find the lie needs, and no more of the others."""
    by = FOUND_BY[name]
    pairs = 80 if name.startswith("ARC") else 8 if by in ("neighbours", "tape") else 3
    small = name in ("noise x .95", "a fifth of the last round's noise")
    values = 20_000 if small else 5_000 if by.startswith("noise") else 1_000
    watched = 6_000 if by == "sampling rate" else 500
    return Settings(canaries=0, pairs=pairs, climb=0, values=values, inclusions=watched)


def needing(name):
    """Of a convolution there are images to be, which not every machine has."""
    images = name == "norms of a convolution forgotten"
    return pytest.param(name, marks=pytest.mark.needs("fashion_mnist") if images else ())


@pytest.mark.parametrize("name", [needing(name) for name in (*LIES, *HARDER)])
def test_a_planted_lie_is_found_at_the_alarm_level(name):
    with {**LIES, **HARDER}[name]() as federation:
        (claim,) = audit_claims(federation, settings=settings(name))
    assert claim.verdict == "ALARM"
    assert claim.level == LEVEL == 1e-6
    assert FOUND_BY[name] in {alarm.name for alarm in claim.alarms}
    assert all(alarm.p <= LEVEL for alarm in claim.alarms)


def test_there_are_fifteen():
    assert len(LIES) == 15
    assert set(FOUND_BY) == {*LIES, *HARDER}


def test_what_an_audit_says_that_it_would_have_seen_it_sees_and_a_smaller_lie_it_may_not():
    few = Settings(canaries=0, pairs=1, climb=0, values=4_000, inclusions=500)
    with run() as honest:
        (claim,) = audit_claims(honest, settings=few)
    (variance,) = [f for f in claim.findings if f.name == "noise variance"]
    factor = float(variance.least.removeprefix("noise x "))
    assert 0.9 < factor < 0.97
    alarms = []
    for share in (factor - 0.01, 0.99):
        with run({"mechanism": LessNoise(1.0, share)}) as lying:
            (claim,) = audit_claims(lying, settings=few)
        alarms.append(claim.verdict)
    assert alarms == ["ALARM", "not refuted"]


def test_the_search_goes_through_the_runs_own_channel():
    with run(**SHARES) as federation:
        search = Search(federation.scenario)
        found = search.run(pairs=3, climb=0)
    assert found.moved == pytest.approx(1.0, rel=1e-3)  # a row of .5 is replaced by its negative
    assert not found.leaks


def test_a_user_rule_with_a_hidden_memory_is_told_from_an_honest_one():
    with run(aggregator={"name": "centered_clipping", "tau": 0.3}, **REPLACE) as honest:
        assert not Search(honest.scenario).run(pairs=12, climb=0).leaks
    with LIES["centred clipping keeps its centre"]() as lying:
        assert "state.rules.delta" in Search(lying.scenario).run(pairs=12, climb=0).leaks


def test_every_noise_of_a_run_is_on_the_tape_that_of_an_adaptive_bound_too():
    with run(bound={"name": "adaptive_clip", "initial": 0.5}) as honest:
        stage = Stage(honest.scenario)
        rows = {"delta": 0.1 * torch.ones(12, honest.scenario.workload.model.d)}
        fixed = stage.play(NeighbourWorld(rows), Tape("fixed"), rounds=2)
    assert [(one.round, one.part) for one in fixed.tape.releases] == [
        (number, part) for number in (0, 1) for part in ("delta", "norms under the bound")
    ]
    bare = through(Credulous, bare="norms under the bound")
    with bare, run(bound={"name": "adaptive_clip", "initial": 0.5}) as lying:
        found = Search(lying.scenario).run(pairs=12, climb=0)
    assert "state.bound" in found.leaks
