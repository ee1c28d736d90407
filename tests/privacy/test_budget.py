"""What all runs on one data set may spend: the round that would pass it is not played, and two
processes cannot both spend the rest.
"""

import json
import math
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from privfl import Federation, PrivateAggregation
from privfl.aggregators import Mean
from privfl.core import (
    BudgetSpent,
    Charge,
    ConfigError,
    DpEvent,
    Faults,
    Sampling,
    Threat,
)
from privfl.dp import (
    Clip,
    Gaussian,
    above,
    epsilon,
    spend,
)
from privfl.engine import Budget, Poisson

DELTA = 1e-5


def gaussian(steps, z=2.0):
    return epsilon(noise_multiplier=z, sample_rate=1.0, steps=steps, delta=DELTA)


def budget(tmp_path, steps):
    """One that is enough for so many rounds with z = 2 by RDP, and no more by PLD."""
    tight = epsilon(
        noise_multiplier=2.0, sample_rate=1.0, steps=steps + 1, delta=DELTA, accountant="pld"
    )
    assert gaussian(steps) < tight, "these tests need both accountants to agree"
    return Budget(gaussian(steps) * 1.001, DELTA, tmp_path / "data.jsonl")


NOISY = {"mechanism": Gaussian(2.0), "rounds": 4}


@dataclass
class Speaks:
    """A party that notes that it was called."""

    honest: Any
    called: list = field(default_factory=list)

    def step(self, mail):
        self.called.append(1)
        return self.honest.step(mail)


def test_a_run_ends_before_the_round_that_would_pass_the_budget(tmp_path, federation, camps):
    called = []
    faults = Faults(byzantine={"client/0": lambda honest: Speaks(honest, called)})
    made = federation(camps(5), budget=budget(tmp_path, 3), **NOISY)
    run = made.run(faults=faults)
    assert len(run.history) == 3
    assert any("Ended before round 4 of 4" in warning for warning in run.summary["warnings"])
    assert [charge.round for charge in run.ledger.charges] == [0, 1, 2]
    spoken = len(called)
    with pytest.raises(BudgetSpent, match="nothing of it was sent"):
        federation(camps(5), budget=budget(tmp_path, 3), **NOISY).run(faults=faults)
    assert len(called) == spoken


def test_several_runs_and_the_layer_spend_one_budget(tmp_path, federation, camps):
    had = budget(tmp_path, 3)
    federation(camps(5), budget=had, **{**NOISY, "rounds": 2}).run()
    layer = PrivateAggregation(
        bound=Clip(1.0), mechanism=Gaussian(2.0), relation="replace_one", budget=had
    )
    updates = dict(enumerate(camps(5)))
    layer.aggregate(updates)
    with pytest.raises(BudgetSpent):
        layer.aggregate(updates)
    assert len(layer.ledger.charges) == 1
    with pytest.raises(BudgetSpent):
        federation(camps(5), budget=had, seed=1, **NOISY).run()


RACERS = """
import json, os, sys
from pathlib import Path
from privfl.core import BudgetSpent, Charge, DpEvent, Sampling
from privfl.engine import Budget
event = DpEvent("gaussian", {"noise_multiplier": 2.0})
charge = Charge(0, event, Sampling("all", 1.0, 10), "client", "replace_one")
epsilon, *paths = sys.argv[1:]
go, start = os.pipe()
racers = []
for path in paths:
    told, tells = os.pipe()
    if os.fork() == 0:
        account = Budget(float(epsilon), 1e-5, Path(path)).opened()
        os.write(tells, b"ready\\n")
        os.close(start)
        os.read(go, 1)  # ends when nobody can write any more: for all at once
        held = 0
        for number in range(8):
            try:
                account.hold((charge,))
                held += 1
            except BudgetSpent:
                pass
        os.write(tells, json.dumps(held).encode())
        os._exit(0)
    os.close(tells)
    racers.append(os.fdopen(told))
assert all(racer.readline() == "ready\\n" for racer in racers)
os.close(start)
print(json.dumps([int(racer.read()) for racer in racers]))
"""


def test_processes_that_reach_one_ledger_by_one_way_or_two_cannot_all_spend_the_rest(tmp_path):
    """The file itself, twice, and a link to it: a lock beside each would be two locks. The three
    are forks of one process that has loaded privfl and opened nothing.
    """
    had = budget(tmp_path, 5)
    other = tmp_path / "other"
    other.mkdir()
    link = other / "link.jsonl"
    link.symlink_to(had.ledger)
    paths = map(str, (had.ledger, had.ledger, link))
    command = [sys.executable, "-c", RACERS, str(had.epsilon), *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    held = json.loads(done.stdout)
    assert len(held) == 3
    assert sum(held) == 5
    assert len(had.ledger.read_text().splitlines()) == 5
    assert [path.name for path in other.iterdir()] == ["link.jsonl"]


def test_a_ledger_that_is_replaced_by_an_older_copy_is_refused_by_its_link_as_well(tmp_path):
    had, link = budget(tmp_path, 5), tmp_path / "link.jsonl"
    charge = Charge(0, DpEvent("gaussian", {"noise_multiplier": 2.0}), Sampling("all", 1.0, 10),
                    "client", "replace_one")  # fmt: skip
    had.opened().hold((charge,))
    older = had.ledger.read_bytes()
    had.opened().hold((charge,))
    link.symlink_to(had.ledger)
    had.ledger.write_bytes(older)
    with pytest.raises(ConfigError, match="older copy"):
        replace(had, ledger=link).opened()


def test_a_budget_lasts_through_another_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    had = replace(budget(tmp_path, 2), ledger=Path("data.jsonl"))
    account = had.opened()
    charge = Charge(0, DpEvent("gaussian", {"noise_multiplier": 2.0}), Sampling("all", 1.0, 10),
                    "client", "replace_one")  # fmt: skip
    account.hold((charge,))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    account.hold((charge,))
    with pytest.raises(BudgetSpent):
        account.hold((charge,))


@pytest.mark.parametrize(
    "changed", [{"count": -5}, {"count": math.nan}, {"count": 0.5}, {"round": math.nan},
                {"round": 3, "last": 1}],
)  # fmt: skip
def test_charges_that_would_take_back_what_was_spent_are_refused(changed):
    charge = Charge(0, DpEvent("gaussian", {"noise_multiplier": 2.0}), Sampling("all", 1.0, 10),
                    "client", "replace_one")  # fmt: skip
    with pytest.raises((ConfigError, TypeError)):  # types are checked first, in tests
        Charge.from_json({**charge.to_json(), **changed})


@pytest.mark.parametrize(
    "value", [3.0000001, 3.0000000001, 2.9950001, 0.123000001, 999.6, 1e-9 / 3, 17.0, 0.1]
)
def test_no_epsilon_is_told_smaller_than_it_is(value):
    assert value <= float(above(value)) <= value * 1.0101


def test_a_seed_that_draws_the_cohorts_spends_the_figure_without_amplification(
    tmp_path, federation, camps
):
    parts = {
        "mechanism": Gaussian(2.0),
        "sampler": Poisson(0.2),
        "aggregator": Mean(weighted=False, denominator=2.0),
        "rounds": 12,
        "seed": 2,
    }
    secret = federation(camps(5), threat=Threat(sampling="secret"), **parts)
    [spent] = spend(secret.run().ledger, DELTA, pld=False)
    enough = Budget(spent.rdp * 1.01, DELTA, tmp_path / "secret.jsonl")
    whole = federation(camps(5), threat=Threat(sampling="secret"), budget=enough, **parts).run()
    assert len(whole.history) == 12
    seeded = Budget(spent.rdp * 1.01, DELTA, tmp_path / "seeded.jsonl")
    assert len(federation(camps(5), budget=seeded, **parts).run().history) < 12


def test_a_run_without_noise_has_no_place_in_a_budget(tmp_path, federation, camps):
    with pytest.raises(ConfigError, match="adds no noise"):
        federation(camps(5), budget=budget(tmp_path, 3))


SAMPLES = {
    "data": {"name": "digits", "clients": 2, "partition": {"name": "iid"}},
    "training": {
        "name": "sgd",
        "steps": 1,
        "gradient": {"name": "dp", "l2": 1.0, "noise_multiplier": 2.0},
    },
    "rounds": 1,
    "executor": "sequential",
}


def test_claims_of_clients_and_of_samples_are_not_added_up(tmp_path, federation, camps):
    ledger = str(tmp_path / "data.jsonl")
    federation(camps(5), budget=budget(tmp_path, 3), **{**NOISY, "rounds": 1}).run()
    made = Federation.from_config({**SAMPLES, "budget": {"epsilon": 90.0, "ledger": ledger}})
    with pytest.raises(BudgetSpent, match="cannot be added up"):
        made.run()


def test_a_config_spends_its_budget_of_samples_over_runs_that_deal_them_out_anew(tmp_path):
    ledger = str(tmp_path / "data.jsonl")
    run = Federation.from_config(SAMPLES).run()
    alone = max(one.as_drawn for one in spend(run.ledger, DELTA, pld=False))
    config = {**SAMPLES, "budget": {"epsilon": 1.2 * alone, "ledger": ledger}}
    Federation.from_config(config).run()
    with pytest.raises(BudgetSpent):
        Federation.from_config({**config, "seed": 1}).run()


def test_a_layer_that_failed_for_its_budget_leaves_the_ledger_as_it_was(tmp_path):
    had = Budget(0.1, DELTA, tmp_path / "data.jsonl")
    layer = PrivateAggregation(
        bound=Clip(1.0),
        mechanism=Gaussian(1.0),
        sampling=Sampling("all", 1.0, 4),
        denominator=4,
        budget=had,
    )
    with pytest.raises(BudgetSpent):
        layer.aggregate({client: torch.ones(3) for client in range(4)})
    assert not layer.ledger.charges
    assert not had.ledger.exists()


def test_a_budget_and_a_shown_epsilon_of_two_deltas_are_refused(tmp_path):
    had = Budget(3.0, DELTA / 10, tmp_path / "data.jsonl")
    with pytest.raises(ConfigError, match=r"budget.delta is .* and delta is .*give both the same"):
        PrivateAggregation(delta=DELTA, budget=had)
    config = {
        "bound": {"name": "clip", "l2": 1.0},
        "mechanism": {"name": "gaussian", "noise_multiplier": 2.0},
        "budget": {"epsilon": 3.0, "delta": 1e-6, "ledger": str(tmp_path / "runs.jsonl")},
    }
    with pytest.raises(ConfigError, match=r"budget.delta is 1e-06 and audit.delta is 1e-05"):
        Federation.from_config(config)
    Federation.from_config({**config, "audit": {"delta": 1e-6}})


def test_noise_in_shares_under_the_channel_is_sent_to_the_mechanism():
    config = {
        "bound": {"name": "clip", "l2": 1.0},
        "channel": {"name": "secagg", "noise": {"name": "distributed_skellam"}},
    }
    with pytest.raises(ConfigError, match=r"put it under mechanism instead of channel.noise"):
        Federation.from_config(config)
