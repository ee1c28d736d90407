"""Whether a round opens hangs on numbers alone, ends no run, and is not used against clients: it is
no secret who was drawn for a round that one client decides.
"""

import itertools

import pytest
import torch
from torch import nn

from privfl import Federation, PrivateAggregation
from privfl.aggregators import GeometricMedian, Krum, Mean
from privfl.core import ConfigError, Dataset, Faults, LocalPlan, RoundFailed, RoundPlan, Sampling
from privfl.crypto import AdditiveSharing, Plain, SecAgg
from privfl.dp import Clip, DistributedSkellam, Gaussian, epsilon, spend
from privfl.engine import FixedSize, Poisson
from privfl.engine.releases import pipeline_of
from privfl.training import LocalSGD


def data(seed, good=True):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(12, 4, generator=rng)
    return Dataset(x if good else x * torch.nan, torch.arange(12) % 2, classes=2)


def federation(clients=4, good=True, **parts):
    parts = {
        "training": LocalSGD(plan=LocalPlan(4, steps=1), weighting="uniform"),
        "bound": Clip(1.0),
        "aggregator": Mean(weighted=False),
        "rounds": 12,
        "executor": "sequential",
        **parts,
    }
    held = [data(i, good) for i in range(clients)]
    return Federation(nn.Linear(4, 2), held, data(9), **parts)


NOISE = {
    "none": {},
    "central": {"mechanism": Gaussian(1.0), "aggregator": Mean(weighted=False, denominator=1.0)},
}
CHANNELS = {
    "secagg": SecAgg(bits=20),
    "active": SecAgg(bits=20, mode="active"),
    "threshold": SecAgg(bits=20, threshold=3),
    "additive_sharing": AdditiveSharing(bits=20),
}


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("channel", CHANNELS)
def test_a_cohort_that_is_too_small_for_the_channel_is_a_round_that_does_not_open(channel, noise):
    parts = {"channel": CHANNELS[channel], "sampler": Poisson(0.35), **NOISE[noise]}
    run = federation(clients=5, **parts).run()
    drawn = {record.cohort for record in run.history}
    assert {0, 1} <= drawn
    assert max(drawn) > 2
    for record in run.history:
        fewest = 3 if channel == "threshold" else 2
        assert bool(record.survivors) == (record.cohort >= fewest)
        assert bool(record.incidents) == (record.cohort < fewest)
        transcript = run.transcript(record.round)
        moved = not torch.equal(transcript.before, transcript.after)
        assert moved == (record.cohort >= fewest)


def test_noise_in_shares_over_a_sampled_cohort_is_charged_for_the_rounds_that_were_played():
    channel = SecAgg(bits=20, noise=DistributedSkellam(1.0))
    run = federation(channel=channel, sampler=Poisson(0.3)).run()
    played = [record.round for record in run.history if record.cohort > 1]
    assert 0 < len(played) < 12
    assert [charge.round for charge in run.ledger.charges] == played


def test_a_run_of_fewer_clients_than_any_round_needs_is_refused_before_training():
    with pytest.raises(ConfigError, match="opens no fewer than 2"):
        federation(clients=1, channel=SecAgg(bits=20))
    with pytest.raises(ConfigError, match="Ask more clients"):
        federation(clients=8, sampler=FixedSize(1), channel=AdditiveSharing(bits=20))


# ---- what is claimed of it


CENTRAL = {"mechanism": Gaussian(1.0), "rounds": 1}


@pytest.mark.parametrize(
    "parts",
    [
        {"channel": SecAgg(bits=20), "aggregator": Mean(weighted=False, denominator=2.0)},
        {"channel": AdditiveSharing(bits=20), "aggregator": Mean(weighted=False, denominator=2.0)},
        {"aggregator": Krum(f=1)},
    ],
    ids=["secagg", "additive_sharing", "krum"],
)
def test_clients_that_come_and_go_are_not_hidden_where_one_decides_whether_a_round_opens(parts):
    """Two clients over secure aggregation are summed, and one alone is not: that nothing was
    released tells the two worlds apart, whatever the noise.
    """
    with pytest.raises(ConfigError, match="tells whether a client is there: claim zero_out"):
        federation(clients=5, relation="add_remove", **CENTRAL, **parts)


def test_two_clients_over_a_sum_are_claimed_under_zero_out_and_no_data_close_the_round():
    parts = {"channel": SecAgg(bits=20), "aggregator": Mean(weighted=False, denominator=2.0)}
    [charge] = federation(clients=2, **CENTRAL, **parts).run().ledger.charges
    assert charge.relation == "zero_out"
    ruined = federation(clients=2, good=False, **CENTRAL, **parts).run()
    assert ruined.history[0].survivors == 2
    assert len(ruined.ledger.charges) == 1


@pytest.mark.parametrize("rule", [Mean(weighted=False, denominator=1.0), GeometricMedian()])
def test_where_one_row_or_none_is_enough_clients_may_come_and_go(rule):
    run = federation(clients=3, relation="add_remove", aggregator=rule, **CENTRAL).run()
    assert run.ledger.charges[0].relation == "add_remove"


def test_nobody_who_got_through_is_noise_alone_as_nobody_who_was_drawn_is():
    rule = {"aggregator": Mean(weighted=False, denominator=1.0)}
    everybody = Faults(silent_from={f"client/{i}": 0 for i in range(3)})
    run = federation(clients=3, **CENTRAL, **rule).run(faults=everybody)
    assert run.history[0].survivors == 0
    transcript = run.transcript(0)
    assert not torch.equal(transcript.before, transcript.after)


def test_training_that_fails_everywhere_does_not_end_a_run_that_claims_privacy_of_clients():
    class Fails(LocalSGD):
        def hand_out(self, delta, broadcast, state, steps):
            raise ValueError("no")

    rule = {"aggregator": Mean(weighted=False, denominator=1.0)}
    training = Fails(plan=LocalPlan(4, steps=1), weighting="uniform")
    with pytest.raises(RoundFailed):
        federation(rounds=1, training=training, **rule).run()
    run = federation(training=training, **CENTRAL, **rule).run()
    assert run.history[0].survivors == 4
    assert len([what for what in run.history[0].incidents if "failed" in what]) == 4


def test_a_round_that_one_client_decides_is_not_made_cheaper_by_sampling():
    """A sum of two was drawn by a coin of the second: that it was released says how it fell."""
    parts = {"channel": SecAgg(bits=20), "sampler": Poisson(0.5), **NOISE["central"]}
    run = federation(clients=6, **parts).run()
    amplified = {c.round for c in run.ledger.charges if c.cohort_hidden}
    sizes = {record.round: record.cohort for record in run.history}
    assert [charge.round for charge in run.ledger.charges] == list(range(12))
    assert amplified == {number for number, n in sizes.items() if n not in (1, 2)}
    assert len(amplified) < 12
    [spent] = spend(run.ledger, 1e-5)
    assert spent.rdp > epsilon(noise_multiplier=1.0, sample_rate=0.5, steps=12, delta=1e-5)


def pipeline(channel, n, rule=None, scheme="poisson"):
    sampling = Sampling(scheme, 0.5, n)
    rule = rule or Mean(weighted=False, denominator=n / 2)
    return pipeline_of(
        {"delta": Clip(1.0)},
        {"delta": 2},
        channel=channel,
        rule=rule,
        sampling=sampling,
        mechanism=Gaussian(1.0),
        relation="zero_out" if scheme == "poisson" else "replace_one",
    )


@pytest.mark.parametrize("channel", [Plain(), SecAgg(bits=20), AdditiveSharing(bits=20)])
def test_a_charge_counts_on_a_hidden_coin_only_where_the_coin_decides_nothing_that_is_seen(channel):
    """Every sample of five clients, everybody who can be down, and each client's coin turned."""
    n, made = 5, pipeline(channel, 5)
    everybody = range(n)
    samples = [set(s) for k in range(n + 1) for s in itertools.combinations(everybody, k)]

    def released(sample, down):
        return made.opens(len(sample), len(sample - down))

    decided = 0
    for sample, down in itertools.product(samples, samples):
        plan = RoundPlan(0, tuple(sorted(sample)), 2, 1.0)
        m, opens = len(sample - down), released(sample, down)
        survivors = {"delta": m} if opens else None
        [charge] = made.charges({"delta": plan}, survivors, released=opens)
        turned = [released(sample ^ {client}, down) != opens for client in everybody]
        decided += any(turned)
        assert not (any(turned) and charge.cohort_hidden)
    assert bool(decided) == (not isinstance(channel, Plain))


def test_samples_of_fixed_size_are_no_cheaper_where_who_took_a_place_decides():
    made = pipeline(SecAgg(bits=20), 8, scheme="fixed_size")
    plan = {"delta": RoundPlan(0, (0, 1, 2, 3), 2, 1.0)}
    quorum = SecAgg(bits=20).able.fewest(4)
    hidden = [made.charges(plan, {"delta": m})[0].cohort_hidden for m in range(quorum, 5)]
    assert hidden == [m > quorum for m in range(quorum, 5)]
    assert not made.charges(plan)[0].cohort_hidden, "before it is known who answers"


# ---- the layer


def test_the_layer_fails_a_round_of_too_few_and_goes_on():
    layer = PrivateAggregation(
        bound=Clip(1.0),
        channel=SecAgg(bits=20),
        mechanism=Gaussian(1.0),
        denominator=2.0,
        sampling=Sampling("poisson", 0.5, 6),
    )
    with pytest.raises(RoundFailed, match="opens no fewer than 2"):
        layer.aggregate({0: torch.ones(3)})
    _, receipt = layer.aggregate({i: torch.ones(3) for i in range(4)})
    assert receipt.survivors == (0, 1, 2, 3)
    assert [charge.cohort_hidden for charge in layer.ledger.charges] == [False, True]
    assert {charge.relation for charge in layer.ledger.charges} == {"zero_out"}
