"""Every part of the catalogue that may stand in a noised round, through the real engine: neighbours
come no farther apart than noise is calibrated to, and nothing but noised vectors tells them apart.
What declares no stability is refused before any training.
"""

import math

import pytest

from privfl import Federation, catalog
from privfl.audit.dp import Search
from privfl.audit.dp.neighbours import SLACK
from privfl.core import ConfigError, UnsupportedModel

RELATIONS = ("replace_one", "zero_out", "add_remove")
BASE = {
    "data": {"name": "digits", "clients": 10, "partition": {"name": "iid"}},
    "rounds": 2,
    "executor": "sequential",
    "training": {"name": "sgd", "weighting": "uniform"},
    "bound": {"name": "clip", "l2": 0.5},
    "mechanism": {"name": "gaussian", "noise_multiplier": 1.0},
}
SKELLAM = {"name": "distributed_skellam", "noise_multiplier": 1.0}
SETTINGS = {
    "centered_clipping": [{"tau": 0.3}],
    "fltrust": [{"root_l2": 0.7}],
    "mean": [{"weighted": False}, {"weighted": False, "denominator": 7}],
    "trimmed_mean": [{"f": 3}],
    "krum": [{"f": 2, "m": 3}],
    "nnm": [{"f": 3}],
    "arc": [{"f": 3}],
    "bucketing": [{"size": 3}],
}
"""Settings with which more is proved than with the defaults."""
SMALL = {"paillier": {"key_bits": 512, "insecure_for_tests": True}}
"""What a channel is set to where the length of its keys has no part in what it opens."""
FEWER = {
    **dict.fromkeys(
        (
            "paillier",
            "bfv",
            "ckks",
            "mp_rlwe",
            "one_time_rlwe",
            "encrypted_cosine",
            "sign_two_server",
            "two_server",
        ),
        3,
    ),
    "secagg": 6,
}
"""Channels of which fewer pairs are played."""


def cases():
    for name in catalog.AGGREGATORS:
        for setting in ({}, *SETTINGS.get(name, ())):
            yield f"rule {name} {setting}", {"aggregator": {"name": name, **setting}}
    for name in catalog.DEFENCES:
        for setting in ({}, *SETTINGS.get(name, ())):
            for rule in ({"name": "mean", "weighted": False}, {"name": "trimmed_mean", "f": 1}):
                changes = {"defences": [{"name": name, **setting}], "aggregator": rule}
                yield f"seat {name} {setting} {rule['name']}", changes
    for name in catalog.CHANNELS:
        yield f"channel {name}", {"channel": {"name": name, **SMALL.get(name, {})}}
        if catalog.CHANNELS[name].kind.takes_noise:
            yield f"channel {name} with shares", {"channel": name, "mechanism": SKELLAM}
    for name in catalog.MECHANISMS:
        own = {"epsilon": 1.0} if name == "laplace" else {"noise_multiplier": 1.0}
        yield f"mechanism {name}", {"mechanism": {"name": name, **own}}
    for name in catalog.TRAINING:
        parts = {"control": 1.0} if name == "scaffold" else {"steps": 50.0}
        bound = {"name": "clip", "l2": 0.5}
        if name in ("scaffold", "fednova"):
            bound["parts"] = parts
        yield f"method {name}", {"training": {"name": name}, "bound": bound}
    for name in ("adaptive_clip", "clip_by_layer", "normalise", "scheduled_clip"):
        length = {"initial": 0.5} if name == "adaptive_clip" else {"l2": 0.5}
        yield f"bound {name}", {"bound": {"name": name, **length}}
    for name in catalog.SAMPLERS:
        own = {"poisson": {"rate": 0.5}, "fixed_size": {"size": 6}}.get(name, {})
        yield f"sampler {name}", {"sampler": {"name": name, **own}}


CASES = dict(cases())
SAME = ("channel plain", "mechanism gaussian", "sampler all")
"""Cases of what a run has anyway: the search would play the mean's once more."""
PROVED: dict[str, list[str]] = {}


def test_what_is_left_out_is_the_mean_once_more():
    mean = Federation.from_config({**BASE, **CASES["rule mean {}"]}).config
    assert [Federation.from_config({**BASE, **CASES[name]}).config for name in SAME] == [mean] * 3


@pytest.mark.parametrize("name", [name for name in CASES if name not in SAME])
def test_neighbours_through_the_engine_are_told_apart_by_noised_vectors_alone(name):
    pairs = next((fewer for slow, fewer in FEWER.items() if slow in name), 12)
    for relation in RELATIONS:
        try:
            federation = Federation.from_config({**BASE, **CASES[name], "relation": relation})
        except (ConfigError, UnsupportedModel):
            continue
        search = Search(federation.scenario)
        assert search.relation == relation
        found = search.run(pairs=pairs, climb=0)
        assert not found.leaks, (relation, found.leaks)
        assert found.pairs >= 3
        if search.stages[0].shares:
            ends = 2 if relation == "replace_one" else 1
            assert 0.3 < found.moved <= 0.5 * ends * 1.01, relation
        else:
            assert 0 < found.worst <= SLACK, (relation, found.where)
        PROVED.setdefault(name, []).append(relation)


@pytest.mark.parametrize(
    ("name", "relations"),
    [
        ("rule mean {'weighted': False}", RELATIONS[:2]),
        ("rule median {}", RELATIONS[:2]),
        ("rule geometric_median {}", RELATIONS[:2]),
        ("channel plain", RELATIONS[:2]),
        ("channel secagg with shares", RELATIONS[:2]),
        ("seat nnm {'f': 3} mean", RELATIONS[:2]),
        ("sampler poisson", RELATIONS[:1]),
    ],
)
def test_what_is_proved_is_not_refused(name, relations):
    """The searches above would be idle if everything were refused."""
    for relation in relations:
        made = Federation.from_config({**BASE, **CASES[name], "relation": relation})
        pipeline = made.scenario.pipeline()
        assert pipeline.private
        assert pipeline.neighbours.relation == relation
        for part, release in pipeline.releases.items():
            assert release.noised
            assert 0 < pipeline.sensitivity(part, rows=10) < math.inf
