"""A noise seed is refused where it would repeat nothing, instead of being taken in silence."""

from functools import partial

import pytest
import torch

from privfl import Federation
from privfl.aggregators import Mean
from privfl.core import ConfigError, Dataset, LocalPlan, SeededNoise
from privfl.crypto import AdditiveSharing, SecAgg
from privfl.dp import Clip, DistributedSkellam
from privfl.hybrid import TwoServer
from privfl.training import LocalSGD

SMALL = {
    "data": {"name": "digits", "clients": 4},
    "training": {"name": "sgd", "steps": 1, "batch_size": 8},
    "rounds": 2,
    "noise_seed": 5,
    "executor": "sequential",
}
DP = {"name": "dp", "l2": 1.0, "noise_multiplier": 1.0}
CLIP = {"name": "clip", "l2": 0.5}


def test_noise_on_aggregates_repeats():
    config = {**SMALL, "bound": CLIP, "mechanism": {"name": "gaussian", "noise_multiplier": 1.0}}
    one, two = (Federation.from_config(config).run().parameters for _ in range(2))
    assert torch.equal(one, two)


def test_noise_that_clients_add_is_refused_a_seed_that_would_not_repeat_it():
    private = {**SMALL["training"], "gradient": DP}
    with pytest.raises(ConfigError, match=r"noise_seed.*DP-SGD.*operating system"):
        Federation.from_config({**SMALL, "training": private})


RING = {"distributed_skellam": 1.0, "distributed_discrete_gaussian": 1.0}
CHANNELS = [
    {"name": "secagg"},
    {"name": "secagg", "fidelity": "ideal"},
    {"name": "additive_sharing"},
    {"name": "additive_sharing", "proof": "pine"},
    {"name": "two_server"},
]


@pytest.mark.parametrize("noise", RING)
@pytest.mark.parametrize("channel", CHANNELS, ids=lambda one: "-".join(one.values()))
def test_noise_in_shares_repeats_and_claims_nothing(channel, noise):
    mechanism = {"name": noise, "noise_multiplier": RING[noise]}
    config = {**SMALL, "bound": CLIP, "channel": channel, "mechanism": mechanism}
    one, two = (Federation.from_config(config).run() for _ in range(2))
    other = Federation.from_config({**config, "noise_seed": 6}).run()
    assert torch.equal(one.parameters, two.parameters)
    assert not torch.equal(one.parameters, other.parameters)
    assert [line["epsilon"] for line in one.summary["privacy"]] == [None]


def test_a_run_that_is_cut_draws_the_noise_of_its_later_rounds(tmp_path):
    """Streams belong to a round and a party: those before it were not drawn again."""
    mechanism = {"name": "distributed_skellam", "noise_multiplier": 1.0}
    config = {**SMALL, "bound": CLIP, "channel": "secagg", "mechanism": mechanism, "rounds": 3}

    def stop(record, rounds):
        if record.round == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Federation.from_config(config).run(tmp_path / "cut", progress=stop)
    resumed = Federation.from_config(config).run(tmp_path / "cut", resume=True)
    assert torch.equal(resumed.parameters, Federation.from_config(config).run().parameters)


MeanOfTwo = partial(TwoServer, rule=Mean(weighted=False))


@pytest.mark.parametrize("channel", [SecAgg, AdditiveSharing, MeanOfTwo])
def test_a_channel_whose_own_source_is_a_seed_supports_no_claim(channel):
    """Whoever knows the seed subtracts the noise, whatever the run's other noise comes from."""
    rng = torch.Generator().manual_seed(0)
    held = [
        Dataset(torch.randn(8, 4, generator=rng), torch.arange(8) % 2, classes=2) for _ in range(4)
    ]
    run = Federation(
        torch.nn.Linear(4, 2),
        held,
        held[0],
        training=LocalSGD(plan=LocalPlan(4, steps=1), weighting="uniform"),
        bound=Clip(1.0),
        channel=channel(noise=DistributedSkellam(1.0), noise_source=SeededNoise(1)),
        rounds=1,
        executor="sequential",
    ).run()
    assert [line["epsilon"] for line in run.summary["privacy"]] == [None]
    assert all(charge.repeatable_noise for charge in run.ledger.charges)
