"""A transformer that learns Shakespeare's roles by DP-SGD in the engine."""

import pytest

from privfl import Federation
from privfl.core import UnsupportedModel
from privfl.models import MODELS, build

DP = {"name": "dp", "l2": 1.0, "noise_multiplier": 1.0}
SMALL = {"name": "transformer", "width": 16, "layers": 1, "heads": 2}


def config(**model):
    return {
        "data": {
            "name": "shakespeare",
            "length": 12,
            "min_characters": 30_000,
            "partition": {"name": "natural"},
        },
        "model": {**SMALL, **model},
        "training": {"name": "sgd", "lr": 0.1, "batch_size": 8, "steps": 2, "gradient": DP},
        "rounds": 1,
    }


@pytest.mark.needs("shakespeare")
@pytest.mark.parametrize("model", [{}, {"tied": True}, {"lora": 2}], ids=str)
def test_a_round_of_it_is_charged_to_the_samples_of_each_client(model):
    federation = Federation.from_config(config(**model))
    before = federation.scenario.workload.model.read()
    run = federation.run()
    assert not (run.parameters == before).all()
    charges = [charge for charge in run.ledger.charges if charge.unit == "sample"]
    assert {charge.subject for charge in charges} == {
        f"sample of client {client}" for client in federation.scenario.clients
    }
    for charge in charges:
        assert charge.count == 2
        assert charge.event.parameters["noise_multiplier"] == 1.0


@pytest.mark.needs("shakespeare")
def test_adapters_alone_are_trained_and_sent():
    whole = Federation.from_config(config()).scenario.workload.model
    few = Federation.from_config(config(lora=2)).scenario.workload.model
    assert few.d == 2 * 2 * (16 + 16)
    assert whole.d > 20 * few.d


def test_a_transformer_reads_tokens_alone():
    with pytest.raises(UnsupportedModel, match="sequences of tokens"):
        build(MODELS, "transformer", (8, 8), 10, seed=0)
