"""Bounds and noise that change from round to round, from a config: they act, they are paid for, and
they survive a checkpoint.
"""

import math

import pytest
import torch

from privfl import Federation
from privfl.core import ConfigError
from privfl.dp import epsilon, spend
from privfl.engine import RunFolder

BASE = {
    "data": {"name": "digits", "clients": 10, "partition": {"name": "iid"}},
    "model": "softmax",
    "training": {"name": "sgd", "lr": 0.3, "steps": 3, "batch_size": 16},
    "rounds": 6,
    "executor": "sequential",
    "audit": {"keep": "none"},
}
ADAPTIVE = {"name": "adaptive_clip", "initial": 0.05, "quantile": 0.5, "rate": 0.5}
GAUSSIAN = {"name": "gaussian", "noise_multiplier": 1.5}
HALVING = {"name": "decaying", "kind": "step", "k": 0.5, "period": 2}
KEEP = {"audit": {"keep": "all"}}


def bounds_of(run):
    """The bound of each round, as plans of kept rounds say it."""
    return [run.transcript(number).plan.l2 for number in sorted(run.transcripts)]


def test_an_adaptive_clip_climbs_to_the_norms_that_clients_have():
    run = Federation.from_config(
        {**BASE, "rounds": 15, "bound": ADAPTIVE, "audit": {"keep": "all"}}
    ).run()
    bounds = bounds_of(run)
    assert bounds[0] == 0.05
    assert bounds[0] < bounds[3] < bounds[6]
    norms = sorted(float(update.delta.norm()) for update in run.transcript(14).updates.values())
    assert norms[0] * 0.5 < bounds[-1] < norms[-1] * 2
    assert not run.ledger.charges
    assert "next round" in run.history[0].fired["AdaptiveClip"]


@pytest.mark.parametrize("channel", ["plain", "secagg"])
def test_the_count_goes_through_the_channel_and_is_charged_together_with_the_update(channel):
    config = {
        **BASE,
        "bound": {**ADAPTIVE, "count_noise": 2.0},
        "mechanism": GAUSSIAN,
        "sampler": {"name": "poisson", "rate": 0.8},
    }
    run = Federation.from_config({**config, "channel": channel, "audit": {"keep": "all"}}).run()
    assert len(run.ledger.charges) == 6
    z = run.ledger.charges[0].event.parameters["noise_multiplier"]
    counted = 2.0 / 0.5
    assert z == pytest.approx((1.5**-2 + counted**-2) ** -0.5, rel=1e-3)
    assert z < 1.5
    [spent] = spend(run.ledger, 1e-5)
    assert spent.rdp == pytest.approx(
        epsilon(noise_multiplier=z, sample_rate=0.8, steps=6, delta=1e-5)
    )
    opened = run.transcript(0).carried.opened["norms under the bound"].what
    bits = opened.values.flatten().tolist() if channel == "plain" else [opened.value.item()]
    assert all(abs(bit) == 0.5 for bit in bits) == (channel == "plain"), (
        "under secagg nobody reads a bit"
    )


def test_a_replaced_client_moves_the_count_by_one_whole_bit():
    config = {
        **BASE,
        "bound": {**ADAPTIVE, "count_noise": 2.0},
        "mechanism": GAUSSIAN,
        "sampler": {"name": "fixed_size", "size": 5},
    }
    charge = Federation.from_config(config).run().ledger.charges[0]
    assert charge.relation == "replace_one"
    assert charge.event.parameters["noise_multiplier"] == pytest.approx((1.5**-2 + 2.0**-2) ** -0.5)


def test_an_empty_cohort_is_still_a_noisy_count():
    config = {
        **BASE,
        "rounds": 20,
        "bound": ADAPTIVE,
        "mechanism": GAUSSIAN,
        "sampler": {"name": "poisson", "rate": 0.03},
    }
    run = Federation.from_config({**config, "audit": {"keep": "all"}}).run()
    empty = [record.round for record in run.history[:-1] if record.cohort == 0]
    assert empty
    assert len(run.ledger.charges) == 20
    bounds = bounds_of(run)
    assert all(bounds[number + 1] != bounds[number] for number in empty)


def test_the_joint_charge_is_dearer_than_two_sampled_ones():
    """Two releases of one cohort share its sample: adding up two amplified charges would understate
    epsilon.
    """
    together = (1.0**-2 + 1.0**-2) ** -0.5
    joint = epsilon(noise_multiplier=together, sample_rate=0.01, steps=1000, delta=1e-5)
    apart = epsilon(noise_multiplier=1.0, sample_rate=0.01, steps=2000, delta=1e-5)
    assert joint > apart


def moving(**more):
    return {
        **BASE,
        "bound": ADAPTIVE,
        "mechanism": {"name": "scheduled_gaussian", "noise_multiplier": 1.5, "schedule": HALVING},
        "noise_seed": 7,
        **more,
    }


def test_a_resumed_run_has_the_same_bounds_noise_and_ledger_bit_for_bit(tmp_path):
    config = moving(sampler={"name": "poisson", "rate": 0.7})
    whole = Federation.from_config(config).run(tmp_path / "whole")

    class Killed(Exception):
        pass

    def kill(record, rounds):
        if record.round == 2:
            raise Killed

    with pytest.raises(Killed):
        Federation.from_config(config).run(tmp_path / "cut", progress=kill)
    assert RunFolder(tmp_path / "cut").restore()[0].bound != ADAPTIVE["initial"]
    resumed = Federation.from_config(config).run(tmp_path / "cut", resume=True)
    assert torch.equal(whole.parameters, resumed.parameters)
    assert whole.state.bound == resumed.state.bound
    assert whole.ledger == resumed.ledger
    assert (tmp_path / "whole" / "ledger.json").read_text() == (
        tmp_path / "cut" / "ledger.json"
    ).read_text()


def test_rounds_with_a_noise_seed_have_different_noise():
    config = {
        **BASE,
        **KEEP,
        "rounds": 3,
        "bound": {"name": "clip", "l2": 1e-9},
        "mechanism": GAUSSIAN,
        "noise_seed": 1,
    }
    run = Federation.from_config(config).run()
    steps = [run.transcript(i).after - run.transcript(i).before for i in range(3)]
    assert abs(torch.corrcoef(torch.stack(steps))[0, 1]) < 0.3


def test_a_noise_schedule_is_charged_round_by_round():
    config = {
        key: value
        for key, value in moving(bound={"name": "clip", "l2": 0.5}).items()
        if key != "noise_seed"
    }
    run = Federation.from_config(config).run()
    assert [charge.event.parameters["noise_multiplier"] for charge in run.ledger.charges] == [
        1.5,
        1.5,
        0.75,
        0.75,
        0.375,
        0.375,
    ]


def test_a_clip_schedule_moves_the_bound_and_leaves_epsilon_as_it_is():
    clip = {
        "name": "scheduled_clip",
        "l2": 0.4,
        "schedule": {"name": "decaying", "kind": "step", "k": 0.5, "period": 3},
    }
    run = Federation.from_config(
        {**BASE, "bound": clip, "mechanism": GAUSSIAN, "audit": {"keep": "all"}}
    ).run()
    assert bounds_of(run) == [0.4, 0.4, 0.4, 0.2, 0.2, 0.2]
    assert {charge.event.parameters["noise_multiplier"] for charge in run.ledger.charges} == {1.5}
    assert all(
        rows.values.norm(dim=1).max() <= 0.2
        for rows in [run.transcript(5).carried.opened["delta"].what]
    )
    assert run.view("server", 5).facts["forward"].l2 == 0.2


def test_a_clip_by_layer_bounds_every_layer_of_the_model():
    config = {**BASE, **KEEP, "model": {"name": "mlp", "hidden": [8]}, "rounds": 1}
    run = Federation.from_config({**config, "bound": {"name": "clip_by_layer", "l2": 0.02}}).run()
    rows = run.transcript(0).carried.opened["delta"].what.values
    first, second = rows.split([64 * 8 + 8, 8 * 10 + 10], dim=1)
    for part in (first, second):
        assert part.norm(dim=1).max() <= 0.02 / math.sqrt(2) * (1 + 1e-5)
        assert part.norm(dim=1).max() > 0.9 * 0.02 / math.sqrt(2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mechanism": {"name": "skellam", "noise_multiplier": 1.0}}, "Gaussian noise only"),
        ({"mechanism": {"name": "local_gaussian", "noise_multiplier": 1.0}}, "local noise"),
        (
            {
                "channel": "secagg",
                "mechanism": {"name": "distributed_skellam", "noise_multiplier": 1.0},
            },
            "distributed noise",
        ),
        ({"channel": "bucketed_secagg"}, "secagg"),
    ],
)
def test_an_adaptive_clip_is_refused_where_its_count_would_not_be_paid_for(changes, words):
    with pytest.raises(ConfigError, match=words):
        Federation.from_config({**BASE, "bound": ADAPTIVE, **changes})


def test_parts_that_follow_rounds_refuse_to_be_used_without_one():
    from privfl import PrivateAggregation
    from privfl.dp import AdaptiveClip, Clip, Constant, Scheduled, ScheduledClip

    for bound, mechanism in (
        (AdaptiveClip(), None),
        (ScheduledClip(1.0, Constant()), None),
        (Clip(1.0), Scheduled(1.0, Constant())),
    ):
        layer = PrivateAggregation(bound=bound, mechanism=mechanism)
        with pytest.raises(ConfigError, match="Federation"):
            layer.aggregate({1: torch.ones(3), 2: torch.ones(3)})
