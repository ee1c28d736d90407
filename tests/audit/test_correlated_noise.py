"""Noise whose rounds hang together is audited as what it is made of: honest runs raise no alarm,
and less of it, another matrix, another sensitivity or too many participations do.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.dp_lies import run
from benchmarks.dp_lies_correlated import CORRELATED_HONEST, CORRELATED_LIES, TURNS
from privfl.audit import Settings, audit_claims
from privfl.audit.dp.whitening import attained, whitened
from privfl.core import Ledger, Participation, RunNoise, WithMemory
from privfl.dp import Correlated
from privfl.dp.strategies import Banded, Bisr, Blt, Tree

FEW = Settings(canaries=0, pairs=4, climb=0, values=4_000, inclusions=600)
FOUND_BY = {
    "half of the noise": "noise variance",
    "half of the noise, tree": "noise variance",
    "half of the noise, in turns": "noise variance",
    "the identity in place of C": "noise correlated",
    "the identity in place of C, in turns": "noise correlated",
    "charged for one participation": "noise variance",
    "all in turn charged as drawn": "sampling rate",
    "half of the noise, DP-SGD": "noise variance",
    "DP-SGD, all samples in every step": "participation",
}


@pytest.mark.parametrize("name", CORRELATED_HONEST)
def test_an_honest_correlated_run_is_not_refuted(name):
    with CORRELATED_HONEST[name]() as federation:
        (claim,) = audit_claims(federation, settings=FEW)
    assert claim.verdict == "not refuted", (claim.alarms, claim.why)
    names = {finding.name for finding in claim.findings}
    assert {"neighbours", "noise variance", "noise correlated", "participation"} <= names


@pytest.mark.parametrize("name", CORRELATED_LIES)
def test_a_lie_about_correlated_noise_is_found(name):
    with CORRELATED_LIES[name]() as federation:
        (claim,) = audit_claims(federation, settings=FEW)
    assert claim.verdict == "ALARM"
    assert FOUND_BY[name] in {alarm.name for alarm in claim.alarms}, claim.alarms


def test_the_movement_that_clients_attain_is_never_above_the_proved_sensitivity():
    for strategy in (Bisr(), Blt(2), Tree(), Banded(3)):
        for allowed in (Participation(12, 1), Participation(12, 12), Participation(12, 4, 3)):
            matrix = strategy.matrix(allowed)
            for rows in (1, 5, 12):
                proved = matrix.sens(allowed.most, allowed.apart, rows)
                found = attained(matrix.dense(), allowed, rows)
                assert 0.6 * proved < found <= proved * (1 + 1e-9)


@pytest.mark.parametrize(("multiplier", "verdict"), [(1.0, "not refuted"), (1.3, "ALARM")])
def test_a_recorded_block_is_held_against_all_rows_that_it_covers(multiplier, verdict):
    with run({"mechanism": Correlated(1.0, Banded(3))}, **TURNS) as honest:
        result = honest.run()
        (charge,) = result.ledger.charges
        assert (charge.round, charge.last) == (0, 8)
        parameters = {"noise_multiplier": charge.event.parameters["noise_multiplier"] * multiplier}
        said = replace(charge, event=replace(charge.event, parameters=parameters))
        (claim,) = audit_claims(honest, recorded=Ledger((said,)), settings=FEW)
    assert claim.verdict == verdict, claim.alarms
    assert ("ledger" in {alarm.name for alarm in claim.alarms}) == (verdict == "ALARM")


@dataclass(frozen=True)
class _OpaqueRun(RunNoise[Any]):
    """Correlated noise that states no matrix."""

    inner: RunNoise[Any]

    @property
    def participation(self):
        return self.inner.participation

    def event(self, rows):
        return self.inner.event(rows)

    def sampled(self, rows):
        return self.inner.sampled(rows)

    def init(self, d):
        return self.inner.init(d)

    def release(self, vector, sensitivity, state, noise):
        return self.inner.release(vector, sensitivity, state, noise)


@dataclass(frozen=True, slots=True)
class Opaque(WithMemory):
    """A mechanism of a user's own."""

    inner: Correlated

    @property
    def guarantee(self):
        return self.inner.guarantee

    def over(self, participation):
        return _OpaqueRun(self.inner.over(participation))


def test_noise_that_states_no_matrix_is_said_not_to_be_audited():
    with run({"mechanism": Opaque(Correlated(1.0, Bisr()))}) as federation:
        (claim,) = audit_claims(federation, settings=FEW)
    assert claim.verdict == "no claim"
    assert "cannot look at" in claim.why
    assert not claim.alarms


def test_whitened_rows_of_a_known_stream_are_its_normals():
    matrix = Banded(3).matrix(Participation(9, 3, 3))
    stream = matrix.stream()
    normals = torch.randn(9, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = [stream.next(z.clone()).clone().numpy() for z in normals]
    assert np.allclose(whitened(rows, matrix.dense()), normals.numpy(), atol=1e-10)
