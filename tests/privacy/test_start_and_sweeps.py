"""What was spent before a run, and by all runs of a sweep together, is in what they say."""

import pytest
import torch

from privfl import Federation
from privfl.core import ConfigError, DataCorrupt, Ledger, Threat
from privfl.dp import Gaussian, epsilon, over_runs, spend
from privfl.engine import FixedSize

NOISY = {"mechanism": Gaussian(2.0), "rounds": 2}


def only(run):
    [spent] = spend(run.ledger, 1e-5, pld=False)
    return spent


def gaussian(steps):
    return epsilon(noise_multiplier=2.0, sample_rate=1.0, steps=steps, delta=1e-5)


def test_a_federation_that_runs_again_goes_on_from_its_model_and_with_its_ledger(federation, camps):
    made = federation(camps(5), **NOISY)
    first, again = made.run(), made.run()
    assert not torch.equal(first.parameters, again.parameters)
    assert only(first).rdp == pytest.approx(gaussian(2))
    assert only(again).rdp == pytest.approx(gaussian(4))
    assert [charge.round for charge in again.ledger.charges] == [-2, -1, 0, 1]
    assert "rounds 0..1 and 2 rounds before its start" in again.summary["privacy"][0]["claim"]


@pytest.mark.parametrize("kind", ["ledger", "file", "folder"])
def test_a_start_that_brings_its_ledger_pays_for_both_runs_and_a_resumed_run_too(
    tmp_path, federation, camps, kind
):
    first = federation(camps(5), **NOISY).run(tmp_path / "first")
    brought = {
        "ledger": first.ledger,
        "file": tmp_path / "first" / "ledger.jsonl",
        "folder": tmp_path / "first",
    }[kind]

    def killed(record, rounds):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federation(camps(5), start=brought, **NOISY).run(tmp_path / "second", progress=killed)
    parts = {**NOISY, "start": brought}
    second = federation(camps(5), **parts).run(tmp_path / "second", resume=True)
    assert only(second).rdp == pytest.approx(gaussian(4))
    assert [charge.round for charge in second.ledger.charges] == [-2, -1, 0, 1]


def test_a_model_that_was_trained_on_the_same_clients_without_noise_supports_no_claim(
    federation, camps
):
    bare = federation(camps(5), rounds=2).run()
    run = federation(camps(5), start=bare.ledger, **NOISY).run()
    assert only(run).epsilon is None
    assert "trained without noise" in only(run).refused


def test_a_start_of_which_nothing_is_said_is_named_as_uncharged(federation, camps):
    silent, public = (
        federation(camps(5), start=start, **NOISY).run() for start in (None, "public")
    )
    said = [run.summary["privacy"][0]["claim"] for run in (silent, public)]
    assert ["the start was not declared public" in claim for claim in said] == [True, False]


@pytest.mark.parametrize("start", ["nowhere", "."])
def test_a_start_that_is_no_run_is_refused(start, federation, camps):
    with pytest.raises(ConfigError, match="neither"):
        federation(camps(5), start=start, **NOISY)


def test_a_file_that_is_no_ledger_is_refused_as_a_start(tmp_path, federation, camps):
    (tmp_path / "model").write_text("hello\n")
    with pytest.raises(DataCorrupt, match="no entry"):
        federation(camps(5), start=tmp_path / "model", **NOISY)


CONFIG = {
    "data": {"name": "digits", "clients": 8, "partition": {"name": "iid"}},
    "rounds": 1,
    "executor": "sequential",
    "bound": {"name": "clip", "l2": 0.5},
    "mechanism": {"name": "gaussian", "noise_multiplier": 2.0},
}


def test_a_config_goes_on_from_the_model_and_with_the_ledger_of_a_run(tmp_path):
    first = Federation.from_config(CONFIG).run(tmp_path / "first")
    made = Federation.from_config({**CONFIG, "start": str(tmp_path / "first")})
    assert torch.equal(made.scenario.workload.model.read(), first.parameters)
    second = made.run()
    once, twice = only(first), only(second)
    assert twice.rdp > 1.3 * once.rdp
    assert len(second.ledger.charges) == 2
    with pytest.raises(ConfigError, match="holds no model"):
        Federation.from_config({**CONFIG, "start": str(tmp_path)})
    other = {"model": {"name": "mlp"}, "start": str(tmp_path / "first")}
    with pytest.raises(ConfigError, match="parameters"):
        Federation.from_config({**CONFIG, **other})


def test_a_config_without_noise_leaves_a_model_from_which_no_claim_can_start(tmp_path):
    bare = {key: value for key, value in CONFIG.items() if key != "mechanism"}
    Federation.from_config(bare).run(tmp_path / "bare")
    run = Federation.from_config({**CONFIG, "start": str(tmp_path / "bare")}).run()
    assert "trained without noise" in only(run).refused
    assert run.ledger != Ledger()


# ---- several runs on the same data


def test_runs_on_the_same_data_compose_however_each_dealt_it_out(federation, camps):
    runs = [federation(camps(5), seed=seed, **NOISY).run() for seed in (0, 1, 2)]
    [together] = spend(over_runs([run.ledger for run in runs], 1e-5), 1e-5, pld=False)
    assert together.rdp == pytest.approx(gaussian(6))


def test_the_dearest_of_each_run_pays_where_cohorts_are_seen_and_bear_other_numbers(
    federation, camps
):
    parts = {**NOISY, "rounds": 6, "sampler": FixedSize(3), "threat": Threat(sees_cohort=True)}
    runs = [federation(camps(5), seed=seed, **parts).run() for seed in (0, 1)]
    counts = [
        max(sum(c in charge.cohort for charge in run.ledger.charges) for c in range(10))
        for run in runs
    ]
    [together] = spend(over_runs([run.ledger for run in runs], 1e-5), 1e-5, pld=False)
    assert together.rdp == pytest.approx(gaussian(sum(counts)))


UNEVEN = {
    "data": {"name": "digits", "clients": 3, "partition": {"name": "dirichlet", "alpha": 0.4}},
    "training": {
        "name": "sgd",
        "steps": 2,
        "batch_size": 8,
        "gradient": {"name": "dp", "l2": 0.5, "noise_multiplier": 1.0},
    },
    "rounds": 1,
    "executor": "sequential",
}


def test_samples_of_several_runs_pay_for_the_dearest_client_of_each():
    runs = [Federation.from_config({**UNEVEN, "seed": seed}).run() for seed in (0, 1)]
    [together] = spend(over_runs([run.ledger for run in runs], 1e-5), 1e-5, pld=False)
    each = [max(one.rdp for one in spend(run.ledger, 1e-5, pld=False)) for run in runs]
    assert max(each) < together.rdp <= sum(each)


def test_a_start_is_paid_by_its_dearest_participant_whatever_number_that_bears_now(
    federation, camps
):
    parts = {**NOISY, "rounds": 6, "sampler": FixedSize(3), "threat": Threat(sees_cohort=True)}
    first, alone = (federation(camps(5), seed=seed, **parts).run() for seed in (0, 1))
    counts = [
        max(sum(c in charge.cohort for charge in run.ledger.charges) for c in range(10))
        for run in (first, alone)
    ]
    both = federation(camps(5), seed=1, start=first.ledger, **parts).run()
    assert only(both).rdp == pytest.approx(gaussian(sum(counts)))


def test_a_start_is_paid_by_the_samples_that_paid_most_whichever_client_holds_them_now(tmp_path):
    first = Federation.from_config({**UNEVEN, "seed": 0}).run(tmp_path / "first")
    alone = Federation.from_config({**UNEVEN, "seed": 1}).run()
    [together] = spend(over_runs([first.ledger, alone.ledger], 1e-5), 1e-5, pld=False)
    config = {**UNEVEN, "seed": 1, "start": str(tmp_path / "first")}
    both = Federation.from_config(config).run()
    dearest = max(one.rdp for one in spend(both.ledger, 1e-5, pld=False))
    assert dearest == pytest.approx(together.rdp)
