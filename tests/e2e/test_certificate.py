"""What CRFL certifies against the attackers that a run had is in its summary and its report."""

import math

import pytest
import torch

from privfl import Federation
from privfl.federation.certificate import LABEL, _linear
from privfl.report import write_report

LIAR = {"name": "pixel_pattern", "target": 2, "boxes": [[0, 0, 2, 2]], "clients": [1]}
BASE = {
    "data": {"name": "digits", "clients": 10},
    "model": "softmax",
    "training": {"name": "sgd", "lr": 0.01, "weighting": "uniform", "batch_size": 16},
    "rounds": 4,
    "defences": [{"name": "crfl", "rounds": 4, "sigma": 0.02}],
    "attacks": [{**LIAR, "rounds": [2]}],
    "executor": "sequential",
    "audit": {"keep": "none"},
}


def certificate(**other):
    return Federation.from_config({**BASE, **other}).run().summary["certificate"]


def test_radii_are_the_theorems_for_the_attackers_that_the_run_had():
    found = certificate()
    facts = found["facts"]
    steps, rate = facts["steps, rate"]
    assert (facts["attackers"], facts["round of the attack"], rate) == (1, 3, 0.01)
    assert facts["share of the mean, each at most"] == 0.1
    reach = 0.1 * steps * rate * facts["poison in a batch at most"]
    slack = math.sqrt(math.log(1000) / 2000)  # of the bound on 1,000 votes, had all been alike
    gap = (math.sqrt(1 - slack) - math.sqrt(slack)) ** 2
    harm = math.sqrt(2) * facts["Lipschitz constant"] * reach
    assert max(found["radius"]) == pytest.approx(0.02 * math.sqrt(-math.log(1 - gap)) / harm)
    assert len(found["radius"]) == 355
    assert min(found["radius"]) == 0  # some samples' votes are split
    assert f"the largest {max(found['radius']):.3g}" in found["says"]


def test_stronger_attackers_leave_smaller_radii():
    weak = max(certificate()["radius"])
    more = max(certificate(attacks=[{**LIAR, "clients": [1, 2, 3], "rounds": [2]}])["radius"])
    longer = max(certificate(training={**BASE["training"], "epochs": 3})["radius"])
    assert more < 0.5 * weak
    assert longer < 0.5 * weak


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"attacks": []}, "no attacker"),
        ({"attacks": [{**LIAR, "rounds": [1, 2]}]}, "act in 2 rounds"),
        ({"attacks": [{"name": "sign_flip", "clients": [1], "rounds": [2]}]}, "another way"),
        ({"model": {"name": "mlp", "hidden": [4]}}, "softmax regression"),
        ({"training": {"name": "sgd", "lr": 0.3}}, "the rate is 0.3"),
        ({"defences": [{"name": "crfl", "rounds": 9}]}, "told of 9 rounds"),
        ({"aggregator": "median"}, "another rule"),
        ({"sampler": {"name": "fixed_size", "size": 5}}, "everybody takes part"),
    ],
)
def test_what_the_theorem_does_not_cover_is_certified_nothing(change, word):
    found = certificate(**change)
    assert word in found["says"]
    assert "radius" not in found


def test_a_run_without_crfl_has_no_certificate():
    assert "certificate" not in Federation.from_config({**BASE, "defences": []}).run().summary


def test_the_gradient_moves_by_less_than_the_lipschitz_constant_times_the_poison():
    facts = certificate()["facts"]
    rng = torch.Generator().manual_seed(0)
    longest, weights = facts["longest sample, with its 1"], facts["weights at most"]
    for _ in range(50):
        w = torch.randn(10, 65, generator=rng)
        w *= weights / w.norm()
        x, z = torch.randn(2, 64, generator=rng)
        x, z = (v * math.sqrt(longest**2 - 1) / v.norm() for v in (x, x + 0.1 * z))
        y, t = torch.eye(10)[torch.randint(10, (2,), generator=rng)]
        moved = gradient(w, z, t) - gradient(w, x, y)
        apart = torch.cat([z - x, t - y]).norm()
        assert moved.norm() <= facts["Lipschitz constant"] * apart
    assert float((torch.eye(10)[0] - torch.eye(10)[1]).norm()) == pytest.approx(LABEL)


def gradient(w, x, y):
    """Of cross-entropy in the weights, the bias as a last column."""
    one = torch.cat([x, torch.ones(1)])
    return torch.outer((w @ one).softmax(0) - y, one)


def test_the_report_says_what_is_certified(tmp_path):
    folder = tmp_path / "run"
    Federation.from_config(BASE).run(folder)
    page = write_report(folder).read_text()
    assert "What CRFL certifies" in page
    assert "Lipschitz constant" in page


def nothing(**other):
    found = certificate(**other)
    assert "radius" not in found
    return found["nothing"]


def test_a_run_that_ended_early_or_lost_an_update_is_certified_nothing():
    early = nothing(
        early_stopping={"patience": 1, "least": 0.9},
        data={"name": "digits", "clients": 10, "validation": 0.2},
        rounds=8,
        defences=[{"name": "crfl", "rounds": 8, "sigma": 0.02}],
        attacks=[{**LIAR, "rounds": [7]}],
    )
    assert "ended early" in early
    federation = Federation.from_config(BASE)
    index = federation.scenario.clients[5]
    federation.scenario.workload.data.x[index] = math.nan
    lost = federation.run().summary["certificate"]["nothing"]
    assert "lost or refused" in lost


def test_poison_that_is_longer_than_the_data_counts_and_noisy_poison_is_not_covered():
    assert "another way" in nothing(attacks=[{**LIAR, "rounds": [2], "noise": 100.0}])
    assert "the rate is" in nothing(attacks=[{**LIAR, "rounds": [2], "value": 1000.0}])


def test_a_capped_weight_is_the_attackers_share():
    weighted = {**BASE["training"], "weighting": "samples"}
    capped = certificate(training=weighted, max_weight=5)
    assert capped["facts"]["share of the mean, each at most"] == pytest.approx(0.1)


def test_one_layer_that_is_used_twice_is_no_softmax_regression():
    layer = torch.nn.Linear(3, 3)
    assert _linear(torch.nn.Sequential(torch.nn.Flatten(), layer)) is layer
    assert _linear(torch.nn.Sequential(layer, layer)) is None
    assert _linear(type("Wave", (torch.nn.Sequential,), {})(layer)) is None
