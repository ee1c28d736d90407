"""What cannot work is refused in words before anybody trains: liars over a rule's condition, hidden
rows, knowledge that is withheld.
"""

import pytest
import torch
import yaml

from privfl import Federation, config
from privfl.aggregators import Mean
from privfl.core import ConfigError
from privfl.data import load
from privfl.dp import Clip, Gaussian
from privfl.engine import Engine
from privfl.training import LocalSGD

CLIP = {"name": "clip", "l2": 1.0}


def bucketing(size):
    return [{"name": "bucketing", "size": size}]


@pytest.fixture
def nobody_trains(monkeypatch):
    def play(self, state, **kept):
        raise RuntimeError("a round was played")

    monkeypatch.setattr(Engine, "play", play)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            {"aggregator": {"name": "krum", "f": 4}},
            "Krum with f=4 needs at least 11 updates, and got 10",
        ),
        ({"aggregator": {"name": "krum", "f": 2, "m": 9}}, "at most n - f = 8"),
        ({"aggregator": "nnm"}, "'nnm' is no aggregator but a defence beside one"),
        ({"defences": ["krum"]}, "'krum' is no defence but an aggregator"),
        ({"data": {"name": "digits", "clinets": 5}}, "'digits': unknown key 'clinets'; did you"),
        (
            {"mechanism": {"name": "distributed_skellam", "noise_multiplier": 1.0}, "bound": CLIP},
            "channel 'plain' takes none: use secagg or additive_sharing or bucketed_secagg",
        ),
        ({"aggregator": {"name": "bulyan", "f": 2}}, "Bulyan with f=2 needs at least 11"),
        (
            {"aggregator": {"name": "trimmed_mean", "f": 5}},
            "TrimmedMean with f=5 needs at least 11",
        ),
        ({"aggregator": {"name": "meamed", "f": 5}}, "MeaMed"),
        ({"aggregator": {"name": "mda", "f": 5}}, "MDA"),
        ({"aggregator": {"name": "smea", "f": 5}}, "SMEA"),
        ({"aggregator": {"name": "caf", "f": 5}}, "CAF"),
        ({"aggregator": {"name": "cge", "f": 5}}, "CGE"),
        ({"aggregator": {"name": "monna", "f": 5}}, "MoNNA"),
        ({"aggregator": {"name": "monna", "pivot": 99}}, "trusts client 99, and there is none"),
        ({"aggregator": {"name": "dnc", "f": 5}}, "DnC"),
        ({"aggregator": {"name": "slsgd", "b": 5}}, "SLSGD"),
        (
            {
                "aggregator": {"name": "zeno", "f": 10},
                "data": {"name": "digits", "clients": 10, "root": 20},
            },
            "Zeno with f=10",
        ),
        ({"aggregator": {"name": "median_of_means", "groups": 11}}, "11 groups, and got 10 rows"),
        ({"aggregator": {"name": "robust_learning_rate", "theta": 11}}, "RobustLearningRate"),
        (
            {"defences": [{"name": "nnm", "f": 5}]},
            "NearestNeighbourMixing with f=5 needs at least 11",
        ),
        ({"defences": [{"name": "arc", "f": 5}]}, "AdaptiveRobustClipping with f=5"),
        ({"defences": [{"name": "anomaly_score", "k": 3.0}]}, "cannot drop any of 10 rows"),
        (
            {"aggregator": "krum", "defences": bucketing(3)},
            "Krum with f=1 needs at least 5 updates, and got 4",
        ),
        (
            {"aggregator": "krum", "sampler": {"name": "fixed_size", "size": 4}},
            "Krum with f=1 needs at least 5 updates, and got 4",
        ),
        (
            {"aggregator": "foolsgold", "defences": bucketing(2)},
            "needs to know whose row is whose, and Bucketing makes rows anonymous",
        ),
        (
            {"aggregator": "krum", "channel": "secagg", "bound": CLIP},
            "krum reads individual updates",
        ),
        (
            {"defences": ["nnm"], "channel": "secagg", "bound": CLIP},
            "NearestNeighbourMixing reads individual updates",
        ),
        ({"aggregator": "zeno"}, "data.root"),
        ({"aggregator": "fltrust"}, "data.root"),
        ({"aggregator": "flare"}, "data.root"),
    ],
)
def test_a_rule_that_cannot_do_its_work_is_refused_before_training(nobody_trains, parts, words):
    with pytest.raises(ConfigError, match=words):
        Federation.from_config({"data": {"name": "digits", "clients": 10}, **parts}).run()


@pytest.mark.parametrize(
    ("attack", "parts", "words"),
    [
        (
            {"name": "alie"},
            {"attackers_know": "own"},
            "needs to know the honest updates.*its own updates at most",
        ),
        (
            {"name": "sign_flip"},
            {"attackers_know": "nothing"},
            "needs to know its own updates.*nothing at most",
        ),
        ({"name": "agr_tailored"}, {"attackers_know": "benign"}, "needs to know the server's rule"),
        ({"name": "alie", "fraction": 1.0}, {}, "has all clients"),
        ({"name": "alie", "fraction": 0.6}, {}, "no z of its own for 6 attackers among 10"),
        ({"name": "label_flip", "source": 1, "target": 11}, {}, "class 11"),
        ({"name": "pixel_pattern", "target": 12}, {}, "target 12, and the classes are 0 to 9"),
        (
            {"name": "pixel_pattern", "target": 2, "boxes": [[6, 6, 4, 4]]},
            {},
            "lies outside of images of 8x8",
        ),
        ({"name": "next_token", "trigger": [1], "target": 2}, {}, "sequences of tokens"),
        (
            {"name": "model_replacement", "backdoor": {"name": "pixel_pattern", "target": 12}},
            {},
            "target 12",
        ),
        (
            {
                "name": "model_replacement",
                "backdoor": {"name": "pixel_pattern", "target": 2, "boxes": [[6, 6, 4, 4]]},
            },
            {},
            "lies outside",
        ),
        (
            {"name": "model_replacement", "backdoor": "sign_flip"},
            {},
            "backdoor is one of the backdoors.*SignFlip",
        ),
        ({"name": "multi_backdoor", "backdoors": ["pixel_pattern"]}, {}, "needs the key 'target'"),
    ],
)
def test_an_attack_that_cannot_be_carried_out_is_refused_before_training(
    nobody_trains, attack, parts, words
):
    with pytest.raises(ConfigError, match=words):
        Federation.from_config(
            {"data": {"name": "digits", "clients": 10}, "attacks": [attack], **parts}
        ).run()


def test_an_attack_that_only_looks_is_sent_to_the_audit():
    with pytest.raises(ConfigError, match=r"attack 'dlg' only looks: .*privfl audit"):
        Federation.from_config({"attacks": [{"name": "dlg", "clients": [0]}]})


def test_an_attack_that_a_cohort_makes_impossible_stands_idle_and_the_transcript_says_why():
    attack = {"name": "min_max", "clients": [0, 1, 2, 3, 4, 5, 6, 7, 8]}
    config = {
        "data": {"name": "digits", "clients": 10},
        "sampler": {"name": "fixed_size", "size": 2},
        "attacks": [attack],
        "rounds": 6,
    }
    run = Federation.from_config({**config, "executor": "sequential"}).run()
    said = [record.fired["attack min_max"] for record in run.history]
    assert any("stood idle" in words and "honest updates" in words for words in said), said


def test_several_backdoors_can_be_set_by_config_and_each_is_measured():
    square = {"name": "pixel_pattern", "target": 1}
    corner = {"name": "pixel_pattern", "target": 2, "boxes": [[5, 5, 3, 3]]}
    attack = {
        "name": "model_replacement",
        "backdoor": {"name": "multi_backdoor", "backdoors": [square, corner]},
        "training": {"epochs": 1},
    }
    config = {
        "data": {"name": "digits", "clients": 10},
        "rounds": 1,
        "attacks": [attack],
        "executor": "sequential",
    }
    measured = Federation.from_config(config).run().history[0].measures
    assert {
        "model_replacement: backdoor 1",
        "model_replacement: backdoor 2",
        "model_replacement: main",
    } <= set(measured)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"contrl": 1.0}, "'contrl', which scaffold does not send: it sends control"),
        ({"control": {"name": "clip", "l2": 1.0}}, "control needs a number above 0"),
        ({"control": -1}, "control needs a number above 0"),
        (3, "bound.parts gives an L2 bound to each part"),
    ],
)
def test_bounds_of_parts_that_mean_nothing_are_refused_in_words(parts, says):
    config = {"training": "scaffold", "bound": {"name": "clip", "l2": 1.0, "parts": parts}}
    with pytest.raises(ConfigError, match=says):
        Federation.from_config(config)


def test_a_key_that_is_missing_is_named():
    with pytest.raises(ConfigError, match=r"'budget.ledger' is missing: budget needs it"):
        config.load({"budget": {"epsilon": 3.0}})


def test_noise_that_lacks_everything_is_one_refusal_that_helps_in_python_and_in_a_config():
    digits = load("digits")
    clients = [digits.train.take(range(i, digits.train.n, 5)) for i in range(5)]
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    noise = {"rounds": 1, "mechanism": Gaussian(noise_multiplier=1.0)}
    advised = {
        "bound=Clip(l2=1.0)": {"bound": Clip(l2=1.0)},
        "training=LocalSGD(0.1, weighting='uniform')": {
            "training": LocalSGD(0.1, weighting="uniform")
        },
        "aggregator=Mean(weighted=False)": {"aggregator": Mean(weighted=False)},
    }
    followed = {}
    for words, step in advised.items():
        with pytest.raises(ConfigError) as refused:
            Federation(net, clients, digits.test, **noise, **followed)
        assert words in str(refused.value), "what is lacking is said at once, and until it is there"
        followed |= step
    assert Federation(net, clients, digits.test, **noise, **followed).claims_privacy


def test_a_config_with_noise_weighs_alike_and_lacks_the_bound_alone():
    config = {"mechanism": {"name": "gaussian", "noise_multiplier": 1.0}, "rounds": 1}
    with pytest.raises(ConfigError) as refused:
        Federation.from_config(config)
    assert str(refused.value) == (
        "noise needs a bound on each update: bound=Clip(l2=1.0) in Python, bound: {name: clip, l2:"
        " 1.0} in a config."
    )
    assert Federation.from_config({**config, "bound": CLIP}).claims_privacy


def test_the_list_of_keys_has_every_key_of_a_config_with_its_default():
    listed = {row["key"]: row["default"] for row in config.every_key()}
    own = yaml.safe_load(config.load({}).to_yaml())
    told = set()
    for key, value in own.items():
        below = {name for name in listed if name.startswith(f"{key}.")}
        assert below or key in listed, key
        told |= below or {key}
        for name in below if isinstance(value, dict) else ():
            default = value[name.removeprefix(f"{key}.")]
            assert yaml.safe_load(listed[name]) == (default if default is not None else "none")
    assert told == set(listed)
