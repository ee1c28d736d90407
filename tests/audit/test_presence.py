"""Presence of a client as an asset of the audit: whether its data took part at all."""

import pytest
import torch

from benchmarks.privacy_attacks.nulls import found
from privfl import Federation
from privfl.attacks import ClientPresence, Inference, Scores
from privfl.audit import Attacks, audit, card

BASE = {
    "data": {"name": "digits", "clients": 6, "partition": {"name": "dirichlet", "alpha": 1.0}},
    "model": {"name": "mlp", "hidden": [12]},
    "training": {"name": "sgd", "lr": 0.3, "epochs": 2, "batch_size": 16},
    "rounds": 2,
    "bound": {"name": "clip", "l2": 1.0},
    "executor": "stacked",
}
SUMMED = {"channel": {"name": "secagg", "fidelity": "ideal"}}
NOISE = {
    **SUMMED,
    "rounds": 1,
    "noise_seed": 0,
    "mechanism": {"name": "distributed_discrete_gaussian", "noise_multiplier": 5.0},
    "training": {**BASE["training"], "weighting": "uniform"},
}


def audited(changes, adversary, *attacks):
    return audit(
        Federation.from_config({**BASE, **changes}),
        held_out=0.8,
        adversaries=[adversary],
        attacks=Attacks(presence=attacks),
        lies=None,
    )


def test_a_client_that_is_alone_is_held_against_itself():
    alone = {"data": {**BASE["data"], "clients": 1, "partition": {"name": "iid"}}, "rounds": 1}
    (finding,) = audited(alone, "server", ClientPresence()).findings
    assert finding.verdict == "leaks", finding.value
    assert audited(alone, "client(0)", ClientPresence()).findings == ()  # nobody else is there


@pytest.mark.parametrize(
    ("changes", "adversary", "attack"),
    [
        ({}, "server", ClientPresence()),
        (SUMMED, "client(0)", ClientPresence(target="sum")),
    ],
    ids=["rows", "a sum, from two models in a row"],
)
def test_whose_data_are_in_the_model_is_found(changes, adversary, attack):
    report = audited(changes, adversary, attack)
    (finding,) = report.findings
    assert finding.verdict == "leaks", finding.value
    assert finding.clusters == 6 - (adversary == "client(0)")  # nobody is asked about itself
    (line,) = [line for line in card(report) if line.asset == "presence"]
    assert line.verdict == "leaks"
    assert line.blind == {"auc": 0.5}


def test_noise_for_clients_leaves_nothing_to_find_and_an_area_with_its_interval():
    """One seed of the noise: how often intervals hold the null is asked below."""
    (finding,) = audited(NOISE, "server", ClientPresence(target="sum")).findings
    assert finding.verdict == "not found"
    assert finding.value.low < 0.5 < finding.value.high


class ByNumber(Inference):
    """Knows who the clients are, and nothing of the runs."""

    family = "membership"

    def infer(self, views, knowledge):
        return Scores("ByNumber", "server", torch.arange(6) ** 2.0)


def test_what_clients_are_like_decides_nothing():
    (finding,) = audited({"rounds": 1}, "server", ByNumber()).findings
    assert finding.value.value == 0.5
    assert finding.verdict == "not found"


def test_intervals_hold_the_null_where_only_strangers_data_took_part():
    """Of two nominal 95 % intervals none holds with a chance of .0025; the benchmark plays 200."""
    runs = [found(seed, ["presence"]) for seed in range(2)]
    for attack in runs[0]:
        assert any(run[attack] for run in runs), attack
