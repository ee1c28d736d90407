"""A noise seed is refused where it would repeat nothing, instead of being taken in silence."""

import pytest
import torch

from privfl import Federation
from privfl.core import ConfigError

SMALL = {
    "data": {"name": "digits", "clients": 4},
    "training": {"name": "sgd", "steps": 1, "batch_size": 8},
    "rounds": 2,
    "noise_seed": 5,
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
    ring = {
        "bound": CLIP,
        "channel": {"name": "secagg"},
        "mechanism": {"name": "distributed_skellam", "noise_multiplier": 1.0},
    }
    with pytest.raises(ConfigError, match=r"noise_seed.*distributed_skellam.*operating system"):
        Federation.from_config({**SMALL, **ring})
