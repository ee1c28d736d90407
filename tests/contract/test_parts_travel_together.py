"""The parts of a round do not touch each other: SCAFFOLD over every channel of the catalogue."""

import pytest

from privfl import Federation, catalog

BASE = {
    "data": {"name": "digits", "clients": 6, "partition": "iid", "root": 60},
    "model": "softmax",
    "rounds": 1,
    "bound": {"name": "clip", "l2": 2.0, "parts": {"control": 40.0}},
    "seed": 3,
}


def change(channel, training, **more):
    config = {**BASE, "channel": channel, "training": training, **more}
    run = Federation.from_config({**config, "audit": {"keep": "all"}}).run()
    transcript = run.transcript(0)
    assert run.history[0].incidents == ()
    return transcript.after - transcript.before


@pytest.mark.parametrize("channel", list(catalog.CHANNELS))
def test_scaffolds_first_round_is_sgds(channel):
    """Both control variates are zero in the first round, so both take the same steps."""
    part = {"name": channel}
    if "rounding" in catalog.fields_of(catalog.CHANNELS[channel])[0]:
        part["rounding"] = "nearest"
    plain = {"name": "sgd", "lr": 0.1, "steps": 3, "weighting": "uniform"}
    more = {} if catalog.works("mean", channel) else {"aggregator": "fltrust"}
    there = change(part, {**plain, "name": "scaffold"}, **more)
    apart = there - change(part, plain, **more)
    own_noise = 1e-3 if channel == "ckks" else 1e-6  # CKKS floods its sums
    assert float(apart.norm()) < own_noise
