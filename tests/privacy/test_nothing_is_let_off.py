"""What a round costs is not lost where it tells coins, where a run is interrupted, and where one
that ended goes on.
"""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.aggregators import Mean
from privfl.core import Dataset, Ledger, LocalPlan, RoundPlan, Sampling, Threat
from privfl.crypto import SecAgg
from privfl.dp import Clip, Gaussian, epsilon, spend
from privfl.engine import read_ledger
from privfl.engine.releases import pipeline_of
from privfl.training import LocalSGD

HALF = Mean(weighted=False, denominator=2.0)


def federation(rounds):
    rng = torch.Generator().manual_seed(0)
    held = [
        Dataset(torch.randn(8, 4, generator=rng), torch.arange(8) % 2, classes=2) for _ in range(3)
    ]
    return Federation(
        nn.Linear(4, 2),
        held,
        held[0],
        training=LocalSGD(plan=LocalPlan(4, steps=1), weighting="uniform"),
        bound=Clip(1.0),
        aggregator=Mean(weighted=False),
        mechanism=Gaussian(2.0),
        rounds=rounds,
        executor="sequential",
    )


class Breaks(Mean):
    """A rule in which the run is interrupted, as often as there are ``kills``."""

    kills: ClassVar = [0]

    def __call__(self, opened):
        if self.kills[0]:
            self.kills[0] -= 1
            raise KeyboardInterrupt
        return super().__call__(opened)


def told(coins):
    """Twenty rounds over secure aggregation, of two clients each, and never the same."""
    pipeline = pipeline_of(
        {"delta": Clip(1.0)},
        {"delta": 3},
        channel=SecAgg(bits=20),
        rule=HALF,
        sampling=Sampling("poisson", 0.05, 40),
        mechanism=Gaussian(1.0),
        threat=Threat(sampling=coins),
    )
    plans = [RoundPlan(r, (2 * r, 2 * r + 1), 3, 1.0) for r in range(20)]
    rounds = [pipeline.charges({"delta": plan}, {"delta": 2}) for plan in plans]
    [spent] = spend(Ledger(tuple(charge for one in rounds for charge in one)), 1e-3)
    return spent


def test_clients_who_were_not_drawn_pay_for_rounds_that_told_other_clients_coins():
    """Each client is in one round, and might have been in the others: those cost it something."""
    amplified = epsilon(noise_multiplier=1.0, sample_rate=0.05, steps=20, delta=1e-3)
    alone = epsilon(noise_multiplier=1.0, sample_rate=1.0, steps=1, delta=1e-3)
    assert told("public").claim() > alone + amplified / 2
    assert told("public").claim() == told("secret").claim()


def test_an_interrupted_run_is_charged_in_the_run_after_it():
    class Stop(Exception):
        pass

    def stop(record, rounds):
        if record.round == 2:
            raise Stop

    interrupted = federation(4)
    with pytest.raises(Stop):
        interrupted.run(progress=stop)
    assert len(interrupted.run().ledger.charges) == 3 + 4


def test_a_run_that_was_interrupted_in_its_first_round_goes_on_in_the_same_process(tmp_path):
    whole = federation(2)
    broken = whole.with_scenario(replace(whole.scenario, aggregator=Breaks(weighted=False)))
    Breaks.kills[0] = 1
    with pytest.raises(KeyboardInterrupt):
        broken.run(tmp_path / "run")
    assert len(broken.run(tmp_path / "run", resume=True).ledger.charges) == 1 + 2


def test_a_run_that_ended_and_was_killed_as_it_went_on_is_read_with_all_its_charges(tmp_path):
    class Killed(BaseException):
        pass

    def kill(record, rounds):
        if record.round == 2:
            raise Killed

    federation(3).run(tmp_path / "run")
    assert len(read_ledger(tmp_path / "run").charges) == 3
    last = max((tmp_path / "run" / "checkpoint").iterdir())
    (last / "state.json").write_bytes(b"")  # its last round is played again
    with pytest.raises(Killed):
        federation(3).run(tmp_path / "run", resume=True, progress=kill)
    assert len(read_ledger(tmp_path / "run").charges) == 4
