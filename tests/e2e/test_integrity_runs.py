"""Attacks and defences by config, on digits: every attack with settings acts, and every defence
that fires says so in the transcript.
"""

import pytest
import torch

from privfl import Federation, catalog
from privfl.attacks import family_of

BASE = {
    "data": {"name": "digits", "clients": 10, "root": 60},
    "model": {"name": "mlp", "hidden": [8]},
    "training": {"name": "sgd", "lr": 0.3, "weighting": "uniform", "steps": 4, "batch_size": 16},
    "rounds": 3,
    "executor": "sequential",
    "audit": {"keep": "none"},
}
LIARS = [{"name": "sign_flip", "scale": 30.0, "clients": [1, 2]}]
SILENT = {"mean": "averages whatever comes"}
LONERS = {"foolsgold": "trusts one that acts alone more than clients that are alike"}
DEEP = {"flare": "compares what a hidden layer answers"}
SLOW = {"sign_majority": "moves every weight by one length in every round"}
LOUD = {
    "crfl": {"rounds": 3},
    "norm_clipping": {"bound": 0.5},
    "clipping": {"bound": 0.5},
    "federated_pruning": {"tolerance": 1.0},
    "arc": {"f": 2},
}
LATE = {
    "baffle": "votes once its history is full",
    "fl_detector": "bans once scores cover its window: contract/test_detectors_reference.py",
}
TRAINING = {"epochs": 1, "lr": 0.1}
SQUARE = {"name": "pixel_pattern", "target": 2, "boxes": [[0, 0, 2, 2]]}
CORNER = {"name": "pixel_pattern", "target": 3, "boxes": [[6, 6, 2, 2]], "fraction": 0.2}
SET = {
    "pixel_pattern": {"target": 2},
    "dba": {"target": 2, "boxes": [[0, 0, 1, 2], [0, 4, 1, 2]], "clients": [1, 2]},
    "blended": {"target": 2},
    "sample_specific": {"target": 2},
    "a3fl": {"target": 2, "size": 2, "training": TRAINING, "epochs": 2},
    "iba": {"target": 2, "training": TRAINING, "epochs": 2},
    "lira": {"target": 2, "training": TRAINING, "turns": 1},
    "chameleon": {"backdoor": SQUARE, "training": TRAINING, "epochs": 1},
    "semantic": {"target": 2, "source": 7},
    "edge_case": {"target": 2, "source": 7, "quantile": 0.5},
    "multi_backdoor": {"backdoors": [SQUARE, CORNER]},
    "model_replacement": {"backdoor": SQUARE, "training": TRAINING},
    "constrain_and_scale": {
        "backdoor": SQUARE,
        "training": TRAINING,
        "anomaly": "cosine",
        "split": "orthogonal",
        "clients": [1, 2],
    },
    "train_and_scale": {"backdoor": SQUARE, "training": TRAINING, "bound": 2.0},
    "boosting": {"backdoor": SQUARE, "training": TRAINING, "stealth": True},
    "neurotoxin": {"backdoor": SQUARE, "training": TRAINING},
    "projected_gradient": {"backdoor": SQUARE, "training": TRAINING, "radius": 0.5},
}
ELSEWHERE = {
    "next_token": "needs text: tests/attacks/test_backdoors.py trains one",
    "injected_traffic": "needs records of attacks: tests/attacks/test_natural_backdoors.py",
}


@pytest.mark.parametrize("name", sorted(set(catalog.AGGREGATORS) - set(SILENT)))
def test_a_rule_that_did_something_about_liars_is_in_the_transcript_by_name(name):
    run = Federation.from_config({**BASE, "aggregator": name, "attacks": LIARS}).run()
    words = [record.fired.get(catalog.AGGREGATORS[name].__name__, "") for record in run.history]
    assert any(words), run.history[-1].fired
    assert torch.isfinite(run.parameters).all()


@pytest.mark.parametrize("name", sorted(catalog.AGGREGATORS))
def test_a_rule_by_its_name_alone_trains_and_one_far_row_does_not_stop_it(name):
    far = [{"name": "sign_flip", "scale": 1e4, "clients": 1}]
    long = name in SLOW or catalog.AGGREGATORS[name].remembers  # what was is held against them
    rounds = 15 if long else 6
    config = {
        "data": {"name": "digits", "clients": 12, "root": 60},
        "model": {"name": "mlp", "hidden": [32]} if name in DEEP else "softmax",
        "training": {"name": "sgd", "lr": 0.5, "epochs": 3, "batch_size": 16},
        "rounds": rounds,
        "aggregator": name,
        "attacks": [] if name in {**SILENT, **LONERS} else far,
        "executor": "stacked",
        "audit": {"keep": "none", "evaluate_every": rounds},
    }
    assert Federation.from_config(config).run().accuracy > 0.8


@pytest.mark.parametrize("name", sorted(set(catalog.DEFENCES) - set(LATE)))
def test_a_defence_beside_the_rule_that_did_something_is_in_the_transcript_by_name(name):
    run = Federation.from_config(
        {**BASE, "defences": [{"name": name, **LOUD.get(name, {})}], "attacks": LIARS}
    ).run()
    named = catalog.DEFENCES[name].__name__
    assert any(who.startswith(named) for record in run.history for who in record.fired), (
        run.history[-1].fired
    )


@pytest.mark.parametrize("name", SET)
def test_a_backdoor_set_by_config_acts_and_is_measured(name):
    attack = {"clients": [1], **SET[name], "name": name}
    run = Federation.from_config(
        {**BASE, "data": {"name": "digits", "clients": 4}, "attacks": [attack]}
    ).run()
    last = run.history[-1]
    assert last.fired[f"attack {name}"].startswith("acted through")
    assert not last.incidents
    assert 0 <= last.measures[f"{name}: backdoor"] <= 1


def test_every_backdoor_of_the_catalogue_is_among_these():
    backdoors = {name for name, made in catalog.ATTACKS.items() if family_of(made) == "backdoor"}
    assert backdoors == set(SET) | set(ELSEWHERE)


@pytest.mark.parametrize(
    ("at", "says"), [("client", {"Sparsify at the clients"}), ("server", {"Sparsify"})]
)
def test_a_defence_with_two_seats_sits_where_it_is_told(at, says):
    run = Federation.from_config(
        {**BASE, "defences": [{"name": "sparsify", "at": at, "keep": 0.2}]}
    ).run()
    assert set(run.history[-1].fired) == says


def test_pruning_by_config_also_takes_the_extreme_weights_of_the_last_hidden_layer():
    pruning = Federation.from_config({**BASE, "defences": ["federated_pruning"]}).scenario.defences[
        0
    ]
    hidden = sum(len(unit) for unit in pruning.units)
    assert pruning.extreme is not None
    assert len(pruning.extreme) == hidden
