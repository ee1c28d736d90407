"""Layers that are audited at the same time, each in a process of its own."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.attacks import LabelCounts, LossThreshold
from privfl.audit import audit, record
from privfl.core import ConfigError, Dataset, cross_entropy


def federation(**changes):
    base = {
        "data": {"name": "digits", "clients": 3, "partition": {"name": "iid"}},
        "model": {"name": "softmax"},
        "training": {"name": "sgd", "lr": 0.3},
        "rounds": 2,
        "executor": "sequential",
        "audit": {"keep": "all"},
    }
    return Federation.from_config({**base, **changes})


def played(jobs, **more):
    told = []
    report = audit(
        {
            "rows": federation(),
            "sums": federation(bound={"name": "clip", "l2": 1.0}, channel="additive_sharing"),
        },
        stream=[LossThreshold()],
        probe=[LabelCounts()],
        properties=[],
        jobs=jobs,
        progress=told.append,
        **more,
    )
    held = record(replace(report, seconds=0.0))
    for one in held["findings"]:
        del one["seconds"]
    return held, told


def test_what_is_found_does_not_hang_on_how_many_layers_are_played_at_a_time():
    alone, _ = played(1)
    abreast, told = played(2)
    assert abreast == alone
    assert alone["findings"][0]["layer"] == "rows"
    assert {one["layer"] for one in alone["findings"]} == {"rows", "sums"}
    assert sorted(told) == ["rows: done", "sums: done"]


def test_a_layer_that_does_not_travel_is_refused_in_a_sentence():
    data = Dataset(torch.randn(40, 4), torch.arange(40) % 2, classes=2)
    held = [data.take(torch.arange(20)), data.take(torch.arange(20, 40))]

    def here(module, x, y):
        return cross_entropy(module, x, y)

    with_a_local_loss = Federation(nn.Linear(4, 2), held, data, loss=here, executor="sequential")
    with pytest.raises(ConfigError, match=r"layer 'b' does not travel.*audit it with jobs 1"):
        audit({"a": federation(), "b": with_a_local_loss}, jobs=2)
