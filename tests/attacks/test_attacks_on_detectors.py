"""Every detector beside a lie that it finds and beside one that was made against it, through real
rounds: no row of a detector without the row of who knows it.
"""

import pytest
import torch

from privfl import Federation
from privfl.attacks import Steady
from privfl.audit.detection import detections
from privfl.core import RoundKnowledge, RoundPlan, Rows

BASE = {
    "data": {"name": "digits", "clients": 20, "partition": {"name": "dirichlet", "alpha": 0.5}},
    "model": {"name": "mlp", "hidden": [16]},
    "training": {"name": "sgd", "lr": 0.3, "epochs": 1, "weighting": "uniform"},
    "executor": "stacked",
    "audit": {"keep": "none", "evaluate_every": 20},
}
LIARS = list(range(6))
FLIP = {"name": "sign_flip", "scale": 4.0}


def detected(lie, rounds=4, first=1, **changes):
    attack = {**lie, "clients": LIARS, "first": first}
    config = {**BASE, **changes, "rounds": rounds, "attacks": [attack]}
    run = Federation.from_config(config).run()
    (found,) = detections(run.history)
    return found, run.accuracy


def seat(name, **settings):
    return {"defences": [{"name": name, **settings}]}


LOOK_BACK = {
    "FLDetector": seat("fl_detector", window=3),
    "FLANDERS": seat("flanders", f=6, sampled=60),
    "FLANDERS, last": seat("flanders", f=6, forecast="last"),
}


@pytest.mark.parametrize("name", LOOK_BACK)
def test_a_detector_that_looks_back_finds_noise_and_is_blind_to_a_lie_that_moves_along(name):
    loud, _ = detected({"name": "gaussian", "sigma": 1.0}, 12, 2, **LOOK_BACK[name])
    steady, _ = detected({"name": "steady"}, 12, 2, **LOOK_BACK[name])
    assert loud.auc.value > 0.95
    assert loud.tpr.value > 0.5
    assert steady.auc.value < 0.35
    assert steady.tpr.value < 0.3


NOW = {
    "FreqFed": {"aggregator": "freq_fed"},
    "Multi-metrics": {"aggregator": "multi_metrics"},
    "RFLBAT": {"aggregator": "rflbat"},
    "FLANDERS, global": seat("flanders", f=6, forecast="global"),
}


@pytest.mark.parametrize("name", NOW)
def test_who_tries_candidates_on_the_detector_itself_is_found_less_than_a_loud_liar(name):
    loud, _ = detected(FLIP, **NOW[name])
    aware, _ = detected({"name": "agr_tailored"}, **NOW[name])
    found = [one.tpr if one.accuses else one.auc for one in (loud, aware)]
    assert found[1].value < found[0].value


def test_who_tries_candidates_on_lasa_is_found_less_and_harms_the_model_more():
    training = {**BASE["training"], "epochs": 2}
    changes = {"aggregator": "lasa", "training": training, "model": {"name": "mlp", "hidden": [32]}}
    loud, stays = detected(FLIP, 8, 2, **changes)
    aware, left = detected({"name": "agr_tailored"}, 8, 2, **changes)
    assert aware.tpr.value < loud.tpr.value
    assert left < stays - 0.03


def test_steady_lies_stay_at_one_offset_from_the_honest_mean():
    attack, rng = Steady(scale=2.0), torch.Generator()
    memory, plan = attack.init(), RoundPlan(0, tuple(range(5)), d=3, l2=9.0)
    offsets = []
    for number in range(3):
        benign = torch.randn(3, 3, generator=torch.Generator().manual_seed(number))
        known = RoundKnowledge(plan, torch.zeros(3), benign=Rows.of(benign))
        sent, memory = attack.poison_and_remember(torch.ones(2, 3), known, memory, rng)
        assert torch.equal(sent[0], sent[1])
        offsets.append(benign.mean(dim=0) - sent[0])
        if number == 0:
            torch.testing.assert_close(sent[0], -2 * benign.mean(dim=0))
    torch.testing.assert_close(offsets[1], offsets[0])
    torch.testing.assert_close(offsets[2], offsets[0])
