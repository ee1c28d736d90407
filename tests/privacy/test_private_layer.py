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
    Faults,
    LocalPlan,
    Sampling,
    SeededNoise,
    client_party,
)
from privfl.crypto import Plain, SecAgg
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
from privfl.wrapper.names import Names
from privfl.wrapper.sampled import Turns

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


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_samples_whose_number_is_a_weight_or_in_a_rate_are_not_claimed_to_come_and_go(weighting):
    data = Dataset(torch.arange(32.0).view(8, 4) / 32, torch.zeros(8, dtype=torch.int64), classes=2)
    private = LocalSGD(
        plan=LocalPlan(4, steps=2),
        gradient=DPGradient(1.0, 1.0, batch_size=4),
        weighting=weighting,
    )
    parts = {"training": private, "rounds": 1, "executor": "sequential"}
    run = Federation(nn.Linear(4, 2), [data, data], data, **parts).run()
    assert {charge.relation for charge in run.ledger.charges} == {"zero_out"}
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
    (line,) = own.summary["privacy"]
    assert receipt.epsilon == pytest.approx(line["epsilon"])
    assert line["epsilon"] == line["pld"] < line["rdp"], "the smaller of the two, in both"
    assert receipt.epsilon_note.startswith("PLD at delta 1e-05, client level, replace_one")
    assert line["claim"].partition(" Against the server")[0].replace("0..1", "0..0") in (
        receipt.statement
    )
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


# ---- weights


def weighed(**parts):
    usual = {"bound": Clip(1.0), "denominator": 40.0, "max_weight": 10.0}
    return PrivateAggregation(**{**usual, **parts})


GONE, ZERO, FAR, OPPOSITE = {}, {0: torch.zeros(4)}, {0: torch.ones(4) * 9}, {0: -torch.ones(4) * 9}


@pytest.mark.parametrize(
    ("relation", "channel", "worlds"),
    [
        ("add_remove", Plain(), (GONE, FAR)),
        ("zero_out", Plain(), (ZERO, FAR)),
        ("zero_out", SecAgg(bits=24), (ZERO, OPPOSITE)),
        ("replace_one", Plain(), (FAR, OPPOSITE)),
        ("replace_one", SecAgg(bits=24), (FAR, OPPOSITE)),
    ],
)
def test_no_client_moves_a_weighted_release_further_than_noise_covers_whatever_it_weighs(
    relation, channel, worlds, tape
):
    other = {i: torch.eye(4)[i % 4] * 3 for i in range(1, 6)}
    weights = dict.fromkeys(other, 7.5)
    for heavy in (0.0, 3.0, 10.0, 1e6):
        noted = tape()
        for own in worlds:
            layer = weighed(mechanism=noted, channel=channel, relation=relation)
            layer.aggregate({**own, **other}, weights={**weights, **dict.fromkeys(own, heavy)})
        (one, far), (another, _) = noted.seen
        moved = float((one - another).norm())
        assert moved <= far * (1 + 1e-6)
        if heavy >= 10:
            assert moved >= 0.99 * far, "the claim is no larger than it has to be"


def test_weights_under_noise_are_of_the_sum_over_a_public_number(tape):
    noted = tape()
    rows = {i: torch.full((2,), 0.1 * i) for i in range(4)}
    weighed(mechanism=noted).aggregate(rows, weights={i: float(i) for i in rows})
    [(mean, far)] = noted.seen
    assert mean.tolist() == pytest.approx([sum(0.1 * i * i for i in rows) / 40] * 2)
    assert far == pytest.approx(10.0 / 40)


def test_weights_change_nothing_of_what_a_round_is_charged():
    for parts in (
        {"mechanism": Gaussian(1.3)},
        {"mechanism": LocalGaussian(3.0)},
        {"channel": SecAgg(noise=SHARES, bits=20)},
    ):
        plain, heavy = weighed(**parts), weighed(**parts)
        plain.aggregate(updates())
        heavy.aggregate(updates(), weights={i: 1.0 + i for i in range(N)})
        assert plain.ledger.charges == heavy.ledger.charges


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"denominator": None}, "max_weight=.*denominator="),
        ({"max_weight": None}, "max_weight=.*denominator="),
        ({"denominator": None, "rule": Krum(1)}, "weighted mean"),
        ({"denominator": None, "channel": BucketedSecAgg(size=2)}, "counts every client alike"),
    ],
)
def test_weights_that_noise_cannot_cover_are_refused_before_anything_is_sent(parts, words):
    layer = weighed(mechanism=Gaussian(1.0), **parts)
    with pytest.raises(ConfigError, match=words):
        layer.aggregate(updates(), weights=dict.fromkeys(range(N), 2.0))
    assert not layer.ledger.charges


# ---- drop-outs


@pytest.mark.parametrize("parts", [
    {"mechanism": Gaussian(1.3)},
    {"mechanism": LocalGaussian(3.0)},
    {"channel": SecAgg(noise=SHARES, bits=20), "mechanism": None},
])  # fmt: skip
def test_the_engine_and_the_layer_charge_rounds_with_drop_outs_alike(parts, federation, camps):
    rows, lost = camps(5), (2, 7)
    how = {"relation": "zero_out", **parts}
    rule = replace(UNIFORM, denominator=10.0)
    faults = Faults(silent_from={client_party(client): 0 for client in lost})
    run = federation(rows, aggregator=rule, **how).run(faults=faults)
    around = PrivateAggregation(bound=Clip(1.0), rule=rule, **how)
    came = {i: row for i, row in enumerate(rows) if i not in lost}
    _, receipt = around.aggregate(came, dropped=lost)
    assert receipt.dropped == lost
    [one], [other] = run.ledger.charges, around.ledger.charges
    named = [charge.cohort and sorted(charge.cohort) for charge in (one, other)]
    assert replace(one, cohort=None) == replace(other, cohort=None)
    assert named[0] == named[1]


def test_nobody_of_those_who_were_drawn_comes_and_noise_alone_is_released():
    layer = PrivateAggregation(
        bound=Clip(1.0), mechanism=Gaussian(1.0), denominator=2.0, relation="add_remove",
    )  # fmt: skip
    mean, receipt = layer.aggregate({}, torch.zeros(30), dropped=["a", "b"])
    assert mean.std() > 0.1
    assert (receipt.survivors, receipt.dropped) == ((), ("a", "b"))
    assert len(layer.ledger.charges) == 1


# ---- how cohorts are drawn


@pytest.mark.parametrize(
    ("sampling", "n"),
    [
        (Sampling("poisson", 0.5, 1000), 300),
        (Sampling("fixed_size", 0.1, 50), 4),
        (Sampling("all", 1.0, 10), 9),
    ],
)
def test_a_cohort_that_is_too_small_for_its_sampling_names_its_drop_outs_or_is_refused(sampling, n):
    layer = PrivateAggregation(
        bound=Clip(1.0), mechanism=Gaussian(1.0), denominator=10, sampling=sampling
    )
    with pytest.raises(ConfigError, match=r"does not draw so few.*dropped"):
        layer.aggregate(updates(n))
    assert not layer.ledger.charges
    drawn = round(sampling.rate * sampling.population)
    assert layer.aggregate(updates(n), dropped=range(n, drawn))[1].epsilon is not None


def test_clients_who_always_come_are_no_sample():
    layer = PrivateAggregation(
        bound=Clip(1.0),
        mechanism=Gaussian(4.0),
        denominator=5,
        sampling=Sampling("poisson", 0.1, 50),
    )
    for _ in range(10):
        layer.aggregate(updates(5))
    with pytest.raises(ConfigError, match=r"client 0 was drawn in \d+ of \d+ rounds"):
        [layer.aggregate(updates(5)) for _ in range(30)]
    assert len(layer.ledger.charges) < 20


def test_coins_of_the_operating_system_are_a_sample():
    turns, drawn = Turns(), Sampling("poisson", 0.2, 100)
    rng = np.random.default_rng(7)
    for _ in range(500):
        cohort = np.flatnonzero(rng.random(100) < 0.2).tolist()
        turns.require_known(cohort, drawn)
        turns.require_chance(cohort, drawn, Names())
        turns.count(cohort)
    assert turns.rounds == 500
