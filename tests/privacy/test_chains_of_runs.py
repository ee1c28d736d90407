"""What a run that goes on from another one's model, and several runs together, may claim: nothing
for whom some run of the chain left out, and no less than what anybody pays.
"""

import itertools
import json

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.aggregators import Mean
from privfl.core import (
    Charge,
    DataCorrupt,
    Dataset,
    DpEvent,
    Ledger,
    LocalPlan,
    Sampling,
)
from privfl.dp import Clip, Correlated, DPGradient, Gaussian, of_anybody, over_runs, spend
from privfl.dp.strategies import Blt
from privfl.engine import Poisson
from privfl.federation.start import start_of
from privfl.training import LocalSGD

MEAN = Mean(weighted=False, denominator=3.0)
CLIENT = {
    "bound": Clip(1.0),
    "mechanism": Gaussian(2.0),
    "aggregator": MEAN,
    "training": LocalSGD(weighting="uniform"),
}


def sample(z=2.0, **plan):
    made = LocalPlan(8, **(plan or {"steps": 2}))
    return {
        "training": LocalSGD(
            weighting="uniform", plan=made, gradient=DPGradient(1.0, z, batch_size=8)
        )
    }


def run(start="public", sizes=(30, 30, 30), out=None, **parts):
    data = [Dataset(torch.randn(n, 3), torch.arange(n) % 2, 2) for n in sizes]
    settings = {"rounds": 1, "executor": "sequential", "start": start, **parts}
    return Federation(nn.Linear(3, 2), data, data[0], **settings).run(out)


def lines(made):
    return {line["unit"]: line for line in made.summary["privacy"]}


@pytest.mark.parametrize(
    ("first", "then", "unit"),
    [
        (CLIENT, {}, "client"),
        (CLIENT, sample(), "client"),
        (sample(), CLIENT, "sample"),
        (sample(), {}, "sample"),
    ],
)
def test_a_run_that_leaves_somebody_out_ends_the_claims_that_its_start_made_for_them(
    first, then, unit
):
    """The model that it leaves was trained on their data without noise for them."""
    made = run(run(**first).ledger, **then)
    assert lines(made)[unit]["epsilon"] is None
    assert f"without noise for {unit}s" in lines(made)[unit]["refused"]


def test_a_claim_that_a_run_in_the_middle_left_out_does_not_come_back():
    made = run(run(run(**sample()).ledger, **CLIENT).ledger, **sample())
    assert lines(made)["sample"]["epsilon"] is None
    assert lines(made)["client"]["epsilon"] is None


def test_a_chain_of_three_pays_for_all_of_it():
    once, chained = run(**CLIENT), run(run(run(**CLIENT).ledger, **CLIENT).ledger, **CLIENT)
    three = spend(Ledger(once.ledger.charges * 3), 1e-5)[0].claim()
    assert lines(chained)["client"]["epsilon"] == pytest.approx(three)


def test_what_the_runs_before_the_start_excluded_is_still_excluded():
    """Of the first one's start nothing was said, and the last one starts from what became of it."""
    claim = lines(run(run(None, **CLIENT).ledger, **CLIENT))["client"]["claim"]
    assert "whatever the runs before it excluded" in claim
    assert "the runs before" not in lines(run(**CLIENT))["client"]["claim"]


@pytest.mark.parametrize("name", ["ledger.json", "ledger.jsonl"])
@pytest.mark.parametrize("by", ["code", "config"])
def test_a_start_whose_charges_were_changed_is_refused(tmp_path, name, by):
    config = {
        "data": {"name": "digits", "clients": 4, "partition": "iid"},
        "rounds": 1,
        "executor": "sequential",
        "bound": {"name": "clip", "l2": 0.5},
        "mechanism": {"name": "gaussian", "noise_multiplier": 2.0},
    }
    Federation.from_config(config).run(tmp_path / "first")
    file = tmp_path / "first" / name
    file.write_text(file.read_text().replace('"noise_multiplier": 2.0', '"noise_multiplier": 9.0'))
    assert "9.0" in file.read_text()
    after = {
        "code": lambda: run(tmp_path / "first", **CLIENT),
        "config": lambda: Federation.from_config({**config, "start": str(tmp_path / "first")}),
    }
    with pytest.raises(DataCorrupt):
        after[by]()


def test_charges_that_were_taken_out_of_a_start_are_missed(tmp_path):
    run(out=tmp_path / "first", **CLIENT)
    (tmp_path / "first" / "ledger.json").write_text(json.dumps([]))
    with pytest.raises(DataCorrupt, match="do not agree"):
        run(tmp_path / "first", **CLIENT)


@pytest.mark.parametrize(
    "parts",
    [
        CLIENT,
        {},
        sample(),
        {**CLIENT, "rounds": 2, "sampler": Poisson(0.5)},
        {**CLIENT, "rounds": 2, "mechanism": Correlated(2.0, Blt(2)), "aggregator": MEAN},
    ],
    ids=["clients", "nobody", "samples", "sampled", "correlated"],
)
def test_the_ledger_of_a_folder_is_a_start_also_where_it_began_with_another_ones(tmp_path, parts):
    """Both of its files agree, unless somebody changed one."""
    made = run(out=tmp_path / "first", **CLIENT)
    then = run(tmp_path / "first", out=tmp_path / "second", **parts)
    assert start_of(tmp_path / "first") == made.ledger
    assert sorted(map(repr, start_of(tmp_path / "second").charges)) == sorted(
        map(repr, then.ledger.charges)
    )
    refused = lines(run(tmp_path / "second", **CLIENT))["client"]["refused"] or ""
    assert ("without noise for clients" in refused) == ("mechanism" not in parts)


# ---- who pays most alone need not pay most together


def of_client(client, rate, steps, z=0.8):
    return Charge(
        0,
        DpEvent("gaussian", {"noise_multiplier": z}),
        Sampling("poisson", rate, 60),
        "sample",
        "zero_out",
        f"sample of client {client}",
        count=steps,
    )


FIRST = Ledger((of_client(0, 8 / 57, 7), of_client(1, 8 / 9, 1)))
SECOND = Ledger((of_client(0, 8 / 158, 20, z=0.5),))


def test_runs_together_cost_no_less_than_what_any_one_pays_in_all_of_them():
    """Client 0 paid more in the first run, and client 1 more in both."""
    for delta in (1e-3, 1e-5, 1e-7):
        [said] = spend(over_runs((FIRST, SECOND), delta), delta)
        [then] = spend(Ledger(of_anybody(FIRST, (0,), delta).charges + SECOND.charges), delta)
        for one, other in itertools.product(FIRST.charges, SECOND.charges):
            own = Ledger((Charge(**{**vars_of(one), "subject": other.subject}), other))
            [true] = spend(own, delta)
            for whole in (said, then):
                assert whole.rdp >= true.rdp * (1 - 1e-9)
                assert whole.pld >= true.pld * (1 - 1e-9)
                assert whole.claim() <= 1.6 * max(true.claim(), 1)


def vars_of(charge):
    return {name: getattr(charge, name) for name in charge.__dataclass_fields__}


def test_clients_of_other_sizes_cost_together_what_the_dearest_place_of_each_does():
    """The real engine, epochs: the smaller a client the higher the rate and the fewer the steps."""
    first = run(sizes=(57, 9, 20), **sample(0.8, epochs=1))
    second = run(sizes=(158, 40, 40), **sample(0.8, epochs=1))
    [said] = spend(over_runs((first.ledger, second.ledger), 1e-4), 1e-4)
    for one, other in itertools.product(first.ledger.charges, second.ledger.charges):
        own = [Charge(**{**vars_of(charge), "subject": "sample"}) for charge in (one, other)]
        [true] = spend(Ledger(tuple(own)), 1e-4)
        assert said.rdp >= true.rdp * (1 - 1e-9)
        assert said.pld >= true.pld * (1 - 1e-9)


def test_runs_for_samples_and_for_clients_claim_nothing_together():
    together = over_runs([run(**CLIENT).ledger, run(**sample()).ledger], 1e-5)
    assert {one.unit for one in spend(together, 1e-5)} == {"client", "sample"}
    assert all("claim nothing together" in one.refused for one in spend(together, 1e-5))
    bare = over_runs([run(**CLIENT).ledger, Ledger()], 1e-5)
    assert [one.epsilon for one in spend(bare, 1e-5)] == [None]
