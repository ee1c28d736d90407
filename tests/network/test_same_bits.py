"""A run over bytes, everybody asleep between envelopes, ends with the bits of a simulated one."""

import pytest
import torch

from privfl.federation import Federation

FINER = {"name": "sgd", "weighting": "uniform", "steps": 2}
BALL = {"eps": 0.3, "low": -0.8118, "high": 1.8472}
SCAFFOLD = {"name": "scaffold", "steps": 2}
CASES = {
    "plain": {"channel": "plain"},
    "plain, weighed by samples": {
        "training": {"name": "sgd", "steps": 2},
        "max_weight": 1200,
    },
    "secagg active": {"channel": {"name": "secagg", "mode": "active"}},
    "additive sharing": {"channel": "additive_sharing"},
    "two servers": {"channel": "two_server"},
    "bfv": {"channel": "bfv"},
    "paillier": {
        "channel": {"name": "paillier", "key_bits": 512, "insecure_for_tests": True},
        "rounds": 1,
    },
    "mp_rlwe": {"channel": "mp_rlwe"},
    "one-time keys": {"channel": "one_time_rlwe"},
    "SCAFFOLD over secagg": {
        "training": SCAFFOLD,
        "channel": "secagg",
        "bound": {"name": "clip", "l2": 1.0, "parts": {"control": 1.0}},
    },
    "BatchNorm over secagg": {
        "model": {"name": "resnet20", "norm": "batch", "width": 2},
        "training": {**FINER, "buffers": "averaged"},
        "channel": "secagg",
        "bound": {"name": "clip", "l2": 1.0, "parts": {"buffers": 1.0}},
        "rounds": 1,
    },
    "BatchNorm kept by each client": {
        "model": {"name": "resnet20", "norm": "batch", "width": 2},
        "training": {**FINER, "buffers": "local"},
        "rounds": 2,
    },
    "BatchNorm frozen, over a chain": {
        "model": {"name": "resnet20", "norm": "batch", "width": 2},
        "training": {**FINER, "buffers": "frozen"},
        "channel": "chain",
        "rounds": 1,
    },
    "SCAFFOLD over a chain": {
        "training": SCAFFOLD,
        "channel": "chain",
        "bound": {"name": "clip", "l2": 1.0, "parts": {"control": 1.0}},
        "rounds": 2,
    },
    "against worst points": {
        "training": {**FINER, "adversarial": {"name": "pgd", "steps": 2, **BALL}},
        "rounds": 2,
    },
    "against points that go on to the next batch": {
        "training": {**FINER, "adversarial": {"name": "free", "replays": 2, **BALL}},
        "rounds": 2,
    },
    "clients drawn at rates of their own": {
        "sampler": {
            "name": "personal_poisson",
            "rates": {"strict": 0.5, "usual": 0.9},
            "members": {"strict": [0]},
        },
    },
    "adaptive clip over bfv": {
        "channel": "bfv",
        "bound": {"name": "adaptive_clip"},
    },
    "fltrust over two servers": {
        "data": {"name": "digits", "clients": 3, "root": 60},
        "channel": "two_server",
        "aggregator": "fltrust",
        "rounds": 1,
    },
    "krum over two servers": {
        "data": {"name": "digits", "clients": 5},
        "channel": "two_server",
        "aggregator": {"name": "krum", "f": 1, "m": 2},
        "rounds": 2,
    },
}


@pytest.mark.parametrize("name", CASES)
def test_a_network_ends_with_the_bits_of_the_simulation(name, make, base):
    config = {**base, "rounds": 3, **CASES[name]}
    alone = Federation.from_config(config).run()
    apart = make(config["data"]["clients"]).federation(config).run()
    assert [record.incidents for record in apart.history] == [()] * config["rounds"]
    assert torch.equal(alone.parameters, apart.parameters)
    assert apart.accuracy == alone.accuracy


CLOSE = {
    "ckks": {"channel": "ckks"},
    "encrypted_cosine": {
        "data": {"name": "digits", "clients": 3, "root": 60},
        "channel": "encrypted_cosine",
        "aggregator": "fltrust",
    },
}


@pytest.mark.parametrize("channel", CLOSE)
def test_channels_whose_sums_are_not_the_same_twice_come_close(channel, make, base):
    config = {**base, "rounds": 1, **CLOSE[channel]}
    alone = Federation.from_config(config).run()
    apart = make(3).federation(config).run()
    assert [record.incidents for record in apart.history] == [()]
    assert (alone.parameters - apart.parameters).abs().max() < 1e-4
