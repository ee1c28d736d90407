"""Noise in shares, and the layer around other people's loops: what they charge, and to whom."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from privfl import Federation, PrivateAggregation
from privfl.aggregators import (
    Krum,
    Mean,
)
from privfl.core import (
    BadUpdate,
    ConfigError,
    Dataset,
    LocalPlan,
    Sampling,
    SeededNoise,
)
from privfl.crypto import SecAgg
from privfl.dp import (
    Clip,
    DistributedSkellam,
    DPGradient,
    Gaussian,
    LocalGaussian,
    PrivacyWarning,
    Skellam,
    spend,
)
from privfl.engine import FixedSize, Poisson
from privfl.hybrid import BucketedSecAgg, TwoServer
from privfl.training import LocalSGD

N = 10
UNIFORM = Mean(weighted=False)


def epsilon_of(run):
    (spent,) = spend(run.ledger, 1e-5)
    return spent.claim()


# ---- noise in shares

SHARES = DistributedSkellam(1.0)


@pytest.mark.parametrize(
    "channel",
    [
        SecAgg(noise=SHARES, bits=20),
        BucketedSecAgg(size=3, noise=SHARES, bits=20),
        TwoServer(Mean(weighted=False), noise=SHARES, bits=16),
    ],
    ids=lambda channel: type(channel).__name__,
)
def test_a_client_that_is_replaced_moves_a_ring_sum_twice_as_far_as_one_that_sends_zero(
    channel, federation, camps
):
    runs = {
        relation: federation(camps(5), channel=channel, aggregator=Mean(), relation=relation).run()
        for relation in ("zero_out", "replace_one")
    }
    zero, replaced = (runs[relation].ledger.charges[0] for relation in runs)
    for norm in ("l1", "l2"):
        ratio = replaced.event.parameters[norm] / zero.event.parameters[norm]
        assert ratio == pytest.approx(2.0, rel=1e-3)
    assert replaced.event.parameters["variance"] == zero.event.parameters["variance"]
    assert epsilon_of(runs["replace_one"]) > 2 * epsilon_of(runs["zero_out"])
    assert (zero.relation, replaced.relation) == ("zero_out", "replace_one")


def test_noise_that_leaves_with_its_client_claims_nothing_of_clients_that_come_and_go(
    federation, camps
):
    channel = SecAgg(noise=SHARES, bits=20)
    with pytest.raises(ConfigError, match="leaves together with the client"):
        federation(camps(5), channel=channel, aggregator=Mean(), relation="add_remove")
    public = federation(camps(5), channel=channel, aggregator=replace(UNIFORM, denominator=10.0))
    assert public.scenario.pipeline().neighbours.relation == "zero_out"


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"mechanism": LocalGaussian(1.0), "relation": "add_remove"}, "is seen"),
        (
            {"mechanism": Gaussian(1.0), "channel": SecAgg(noise=SHARES, bits=20)},
            "leave one of them out",
        ),
        (
            {"channel": SecAgg(noise=SHARES, bits=20), "weighting": "samples"},
            "weighting: uniform",
        ),
        (
            {
                "mechanism": Gaussian(1.0),
                "aggregator": replace(UNIFORM, denominator=10.0),
                "sampler": FixedSize(5),
                "relation": "add_remove",
            },
            "fixed size",
        ),
        (
            {
                "mechanism": Gaussian(1.0),
                "aggregator": Krum(1),
                "sampler": Poisson(0.5),
                "relation": "zero_out",
            },
            "public denominator",
        ),
        (
            {
                "mechanism": Skellam(1.0),
                "sampler": FixedSize(5),
                "relation": "zero_out",
            },
            "zero_out prices for Gaussian noise only",
        ),
    ],
)
def test_neighbours_that_the_noise_does_not_hide_are_refused(parts, words, federation, camps):
    with pytest.raises(ConfigError, match=words):
        federation(camps(5), **parts)


@pytest.mark.parametrize(
    ("weighting", "relation"), [("samples", "zero_out"), ("uniform", "add_remove")]
)
def test_samples_whose_number_travels_as_a_weight_are_not_claimed_to_come_and_go(
    weighting, relation
):
    data = Dataset(torch.arange(32.0).view(8, 4) / 32, torch.zeros(8, dtype=torch.int64), classes=2)
    private = LocalSGD(
        plan=LocalPlan(4, steps=2),
        gradient=DPGradient(1.0, 1.0, batch_size=4),
        weighting=weighting,
    )
    parts = {"training": private, "rounds": 1, "executor": "sequential"}
    run = Federation(nn.Linear(4, 2), [data, data], data, **parts).run()
    assert {charge.relation for charge in run.ledger.charges} == {relation}
    assert {charge.subject for charge in run.ledger.charges} == {
        "sample of client 0",
        "sample of client 1",
    }


def test_noise_in_shares_is_claimed_against_a_server_that_sees_the_cohort(federation, camps):
    channel = SecAgg(noise=SHARES, bits=20)
    run = federation(camps(5), channel=channel, aggregator=Mean(), sampler=FixedSize(5)).run()
    (charge,) = run.ledger.charges
    assert not charge.cohort_hidden
    assert len(charge.cohort) == 5


# ---- the layer around other people's loops


def updates(n=N, d=5):
    return {i: torch.ones(d) for i in range(n)}


def test_the_layer_charges_local_noise_in_full_to_everybody_who_came(federation, camps):
    rare = Sampling("poisson", 0.1, 1000)
    layer = PrivateAggregation(
        bound=Clip(1.0), mechanism=LocalGaussian(1.0), denominator=100, sampling=rare
    )
    _, receipt = layer.aggregate(updates(100))
    (charge,) = layer.ledger.charges
    assert (charge.relation, charge.sampling.rate) == ("replace_one", 1.0)
    assert not charge.cohort_hidden
    own = federation(camps(5), mechanism=LocalGaussian(1.0), aggregator=Mean()).run()
    assert receipt.epsilon == pytest.approx(spend(own.ledger, 1e-5)[0].rdp)
    assert receipt.epsilon > 4


@pytest.mark.parametrize(
    ("sampling", "n", "fits"),
    [
        (Sampling("poisson", 0.01, 100), 100, False),
        (Sampling("poisson", 0.01, 100), 4, True),
        (Sampling("poisson", 0.01, 10_000), 100, True),
        (Sampling("poisson", 0.01, 10_000), 300, False),
        (Sampling("fixed_size", 0.1, 50), 5, True),
        (Sampling("fixed_size", 0.1, 50), 6, False),
        (Sampling("all", 1.0, 10), 10, True),
        (Sampling("all", 1.0, 10), 11, False),
    ],
)
def test_the_layer_refuses_a_cohort_that_its_sampling_does_not_draw(sampling, n, fits):
    layer = PrivateAggregation(
        bound=Clip(1.0), mechanism=Gaussian(1.0), denominator=10, sampling=sampling
    )
    if fits:
        assert layer.aggregate(updates(n))[1].epsilon is not None
        return
    with pytest.raises(ConfigError, match="does not draw so many"):
        layer.aggregate(updates(n))
    assert not layer.ledger.charges


def test_the_layer_reports_noise_that_clients_add_in_shares():
    layer = PrivateAggregation(bound=Clip(1.0), channel=SecAgg(noise=SHARES, bits=20))
    _, receipt = layer.aggregate(updates())
    assert receipt.event.mechanism == "skellam"
    assert receipt.epsilon > 1
    assert "zero_out" in receipt.epsilon_note


CONFIGURATIONS = [
    {**noise, **rule, **drawn, "relation": relation}
    for noise in (
        {"mechanism": Gaussian(1.3)},
        {"mechanism": Skellam(2.0)},
        {"mechanism": LocalGaussian(3.0)},
        {"channel": SecAgg(noise=DistributedSkellam(1.0), bits=20, fidelity="ideal")},
    )
    for rule in ({"rule": replace(UNIFORM, denominator=10.0)}, {"rule": UNIFORM})
    for drawn in (
        {"sampler": None, "sampling": Sampling("all", 1.0, N)},
        {"sampler": FixedSize(N), "sampling": Sampling("fixed_size", 1.0, N)},
        {"sampler": Poisson(1.0), "sampling": Sampling("poisson", 1.0, N)},
    )
    for relation in (None, "zero_out", "replace_one")
]


def charged(play, how):
    """The charges, or the words in which they were refused."""
    parts = {key: how[key] for key in ("mechanism", "channel", "relation") if key in how}
    try:
        return play(how, parts).charges
    except ConfigError as refused:
        return str(refused)


def test_the_engine_and_the_layer_charge_alike(federation, camps):
    rows = camps(5)

    def engine(how, parts):
        made = federation(rows, aggregator=how["rule"], sampler=how["sampler"], **parts)
        return made.run().ledger

    def layer(how, parts):
        around = PrivateAggregation(
            bound=Clip(1.0), rule=how["rule"], sampling=how["sampling"], **parts
        )
        around.aggregate(dict(enumerate(rows)))
        return around.ledger

    made = 0
    for how in CONFIGURATIONS:
        charges = charged(engine, how)
        assert charges == charged(layer, how), how
        made += not isinstance(charges, str)
    assert made >= 40, "most of these can be claimed"


def nobody_may_come():
    return PrivateAggregation(
        bound=Clip(1.0),
        mechanism=Gaussian(1.0),
        denominator=0.5,
        sampling=Sampling("poisson", 0.05, 10),
        delta=1e-3,
    )


def test_a_round_of_nobody_is_released_as_noise_and_charged_like_any_other():
    some, none = nobody_may_come(), nobody_may_come()
    some.aggregate({0: torch.ones(50)})
    mean, receipt = none.aggregate({}, example=np.zeros(50, np.float32))
    assert isinstance(mean, np.ndarray)
    assert mean.shape == (50,)
    assert mean.std() > 1.0
    [of_one], [of_nobody] = some.ledger.charges, none.ledger.charges
    assert replace(of_one, cohort=()) == of_nobody
    assert receipt.survivors == ()
    assert receipt.epsilon is not None


def test_the_length_of_a_round_of_nobody_is_that_of_the_last():
    layer = nobody_may_come()
    with pytest.raises(BadUpdate, match="example="):
        layer.aggregate({})
    layer.aggregate({3: torch.ones(7)})
    assert layer.aggregate({})[0].shape == (7,)
    assert len(layer.ledger.charges) == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("mechanism", [Gaussian(2.0), LocalGaussian(2.0)])
def test_a_client_that_diverges_counts_as_zero_so_that_the_round_is_released_all_the_same(
    bad, mechanism
):
    layer = PrivateAggregation(
        bound=Clip(1.0), mechanism=mechanism, relation="replace_one", noise=SeededNoise(3)
    )
    updates = {client: torch.ones(4) for client in range(5)}
    with pytest.warns(PrivacyWarning, match="client 3.*counts as zero"):
        mean, receipt = layer.aggregate({**updates, 3: torch.tensor([1.0, bad, 0.0, 0.0])})
    zero = PrivateAggregation(
        bound=Clip(1.0), mechanism=mechanism, relation="replace_one", noise=SeededNoise(3)
    )
    assert torch.equal(mean, zero.aggregate({**updates, 3: torch.zeros(4)})[0])
    assert receipt.survivors == tuple(range(5))
    assert len(layer.ledger.charges) > 0


def test_a_client_whose_name_is_negative_is_refused_and_not_left_out():
    with pytest.raises(BadUpdate, match="from 0 on"):
        PrivateAggregation(bound=Clip(1.0)).aggregate({-1: torch.ones(4), 5: torch.ones(4)})
