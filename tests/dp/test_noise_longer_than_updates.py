"""A run whose noise is longer than all that its clients can move says so."""

import pytest

from privfl import Federation

CLIP = {"name": "clip", "l2": 1.0}
CENTRAL = {"bound": CLIP, "mechanism": {"name": "gaussian", "noise_multiplier": 1.0}}
IN_SHARES = {
    "bound": CLIP,
    "channel": "secagg",
    "mechanism": {"name": "distributed_skellam", "noise_multiplier": 1.0},
}
DP_SGD = {
    "training": {
        "name": "sgd",
        "steps": 2,
        "batch_size": 16,
        "gradient": {"name": "dp", "l2": 1.0, "noise_multiplier": 1.0},
    }
}


def warned(config, clients, width):
    run = Federation.from_config(
        {
            "data": {"name": "digits", "clients": clients, "partition": "iid"},
            "model": {"name": "mlp", "hidden": [width]},
            "rounds": 1,
            **config,
        }
    ).run()
    return [said for said in run.summary["warnings"] if "longer than all" in said]


@pytest.mark.parametrize("config", [CENTRAL, IN_SHARES, DP_SGD])
def test_a_large_model_of_few_clients_under_noise_is_warned_of(config):
    [said] = warned(config, clients=4, width=200)  # 15,010 parameters
    assert "15,010 parameters" in said
    assert "no forecast" in said


def test_what_may_be_published_says_nothing_of_it(tmp_path):
    config = {**DP_SGD, "data": {"name": "digits", "clients": 4}, "rounds": 1}
    config["model"] = {"name": "mlp", "hidden": [200]}
    run = Federation.from_config(config).run(tmp_path / "run")
    assert any("longer than all" in said for said in run.summary["warnings"])
    told = (tmp_path / "run" / "public" / "statement.json").read_text()
    assert "floating point" in told
    assert "longer than all" not in told


@pytest.mark.parametrize("config", [CENTRAL, IN_SHARES])
def test_a_small_model_of_many_clients_is_not(config):
    assert warned(config, clients=40, width=4) == []  # sqrt(310) is 18


def test_more_steps_and_larger_batches_silence_the_warning_under_dp_sgd():
    steps = {**DP_SGD["training"], "batch_size": 100}
    assert warned({"training": steps}, clients=4, width=4) == []


def test_a_run_without_noise_is_warned_of_nothing():
    assert warned({"bound": CLIP}, clients=4, width=200) == []
