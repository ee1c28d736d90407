"""Every rule over every channel: the compatibility table is what the config loader does, and
hybrids run the rules they say they run.
"""

import pytest
import torch

from privfl import Federation, PrivateAggregation, catalog
from privfl.aggregators import Mean, Median
from privfl.core import ConfigError
from privfl.dp import Clip, Gaussian
from privfl.hybrid import BucketedSecAgg

BASE = {
    "data": {"name": "digits", "clients": 15, "root": 40},
    "model": {"name": "mlp", "hidden": [8]},
    "training": {"name": "sgd", "lr": 0.3, "weighting": "uniform", "steps": 4, "batch_size": 16},
    "rounds": 2,
    "bound": {"name": "clip", "l2": 1.0},
    "executor": "sequential",
    "audit": {"keep": "none"},
}
SMALL = {"paillier": {"key_bits": 512, "insecure_for_tests": True}, "bucketed_secagg": {"size": 2}}


def channel_for(name, rule):
    hidden = (
        {"reference": "previous"}
        if rule == "cosine_filter" and name in ("encrypted_cosine", "two_server")
        else {}
    )
    return {"name": name, **SMALL.get(name, {}), **hidden}


def rule_for(name, channel):
    return {"name": name, **({"m": 3} if (name, channel) == ("krum", "two_server") else {})}


@pytest.mark.parametrize("channel", sorted(catalog.CHANNELS))
def test_the_compatibility_table_is_what_a_config_meets(channel):
    for row in catalog.compatibility():
        if row["channel"] != channel:
            continue
        config = {
            **BASE,
            "channel": channel_for(channel, row["rule"]),
            "aggregator": rule_for(row["rule"], channel),
        }
        if row["verdict"] == "works":
            Federation.from_config(config)
            continue
        assert row["because"], row
        with pytest.raises(ConfigError) as refused:
            Federation.from_config(config)
        for other in filter(None, row["through"].split(", ")):
            assert other in str(refused.value), (row, str(refused.value))
            assert catalog.works(row["rule"], other)
        assert (row["verdict"] == "through") == bool(row["through"])


@pytest.mark.parametrize(
    ("hybrid", "rule"),
    [
        (hybrid, rule)
        for hybrid in sorted(catalog.HYBRIDS)
        for rule in sorted(catalog.AGGREGATORS)
        if catalog.works(rule, hybrid)
    ],
)
def test_every_rule_that_a_hybrid_runs_trains_a_model(hybrid, rule):
    run = Federation.from_config(
        {**BASE, "channel": channel_for(hybrid, rule), "aggregator": rule_for(rule, hybrid)}
    ).run()
    assert torch.isfinite(run.parameters).all()
    assert run.state.last.norm() > 0
    assert not run.history[1].incidents


def test_a_rule_over_groups_is_held_to_the_number_of_groups_and_not_of_clients():
    config = {**BASE, "channel": {"name": "bucketed_secagg", "size": 3}}
    Federation.from_config({**config, "aggregator": {"name": "trimmed_mean", "f": 2}})
    with pytest.raises(ConfigError, match="TrimmedMean"):
        Federation.from_config({**config, "aggregator": {"name": "trimmed_mean", "f": 3}})


def test_noise_over_groups_is_calibrated_to_groups():
    """One client of n moves one of g rows: the trimmed mean of rows needs more noise than that of
    as many clients, and less than of g.
    """
    config = {
        **BASE,
        "channel": {"name": "bucketed_secagg", "size": 3},
        "aggregator": {"name": "trimmed_mean", "f": 1},
    }
    made = Federation.from_config(
        {**config, "mechanism": {"name": "gaussian", "noise_multiplier": 1.0}}
    ).scenario
    pipeline = made.pipeline()
    grouped = pipeline.sensitivity("delta", rows=5)
    assert grouped == pytest.approx(pipeline.moved("delta", rows=5).total / (5 - 2))
    assert 2 / 15 < grouped < 2 / (5 - 2)


def test_a_mean_with_a_public_denominator_makes_no_sense_of_groups_and_is_refused():
    config = {
        **BASE,
        "channel": "bucketed_secagg",
        "aggregator": {"name": "mean", "weighted": False, "denominator": 15},
    }
    with pytest.raises(ConfigError, match="denominator"):
        Federation.from_config(config)
    with pytest.raises(ConfigError, match="denominator"):
        PrivateAggregation(bound=Clip(1.0), channel=BucketedSecAgg(), denominator=12)


def test_the_wrapper_weighs_groups_by_their_clients_and_says_what_the_server_read():
    updates = {
        c: torch.randn(20, generator=torch.Generator().manual_seed(c)) / 10 for c in range(8)
    }
    mean, receipt = PrivateAggregation(bound=Clip(1.0), channel=BucketedSecAgg(size=3)).aggregate(
        updates
    )
    assert torch.allclose(mean, torch.stack(list(updates.values())).mean(dim=0), atol=1e-3)
    assert receipt.server_reads == "the means of 2 groups of clients"
    layer = PrivateAggregation(
        bound=Clip(1.0), channel=BucketedSecAgg(size=3), rule=Median(), mechanism=None
    )
    assert layer.aggregate(updates)[0].shape == (20,)


def test_the_wrapper_refuses_noise_where_the_rule_over_groups_has_no_sensitivity():
    with pytest.raises(ConfigError, match="sensitivity"):
        PrivateAggregation(
            bound=Clip(1.0), channel=BucketedSecAgg(), mechanism=Gaussian(1.0), rule=Mean()
        ).aggregate({c: torch.zeros(3) for c in range(6)})


def test_the_rule_inside_a_channel_is_the_runs_aggregator_and_tells_what_it_did():
    config = {**BASE, "channel": "encrypted_cosine", "aggregator": "fltrust"}
    with pytest.raises(ConfigError, match="set aggregator"):
        Federation.from_config(
            {**config, "channel": {"name": "encrypted_cosine", "rule": "fltrust"}}
        )
    liars = [{"name": "sign_flip", "scale": 3.0, "clients": [0, 1]}]
    run = Federation.from_config({**config, "attacks": liars}).run()
    assert any(
        words.startswith("counted") for record in run.history for words in record.fired.values()
    )


@pytest.mark.parametrize(
    ("channel", "rule"), [("bucketed_secagg", "median"), ("two_server", "mean")]
)
def test_one_seed_gives_one_result_whatever_keys_were_drawn(channel, rule):
    config = {**BASE, "channel": channel, "aggregator": rule}
    one, two = (Federation.from_config(config).run().parameters for _ in range(2))
    assert torch.equal(one, two)
