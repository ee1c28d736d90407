"""Every detector beside a lie that it finds and beside one that was made against it, through real
rounds: no row of a detector without the row of who knows it.
"""

import pytest
import torch

from privfl import Federation
from privfl.aggregators import LASA, RFLBAT, FLDetector
from privfl.attacks import AGRTailored, Foretold, Ordinary, Steady
from privfl.attacks.byzantine.agr_tailored import scattered
from privfl.audit.detection import detections
from privfl.core import ConfigError, Context, Released, RoundKnowledge, RoundPlan, Rows

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
    "FLARE": {"aggregator": "flare", "data": {**BASE["data"], "root": 30}},
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


def judged_at(model, last=None, plan=None):
    plan = plan or RoundPlan(0, tuple(range(20)), d=len(model), l2=9.0)
    released = {} if last is None else {"delta": Released(last)}
    return Context(plan, model, torch.Generator().manual_seed(0), released)


MADE_FOR_IT = {
    "FLDetector": (seat("fl_detector", window=3), {"name": "foretold", "window": 3}, "steady"),
    "LASA": ({"aggregator": "lasa"}, {"name": "ordinary", "layers": [1040, 170]}, "agr_tailored"),
}


@pytest.mark.parametrize("name", MADE_FOR_IT)
def test_who_knows_a_detectors_formula_harms_more_than_who_moves_along_or_tries(name):
    changes, made, general = MADE_FOR_IT[name]
    found, left = detected(made, 8, 2, **changes)
    _, stays = detected({"name": general}, 8, 2, **changes)
    assert left < stays - 0.1
    assert found.tpr.value < 0.4
    assert found.auc.value < 0.5


def test_a_foretold_row_is_what_fldetector_predicts_of_the_last_one():
    quadratic = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    plan, rng = RoundPlan(0, (0, 1, 2), d=3, l2=9.0), torch.Generator()
    attack = Foretold(scale=1.0)
    memory, model, last, rows = attack.init(), torch.ones(3), None, []
    seat = FLDetector(window=10)
    state = seat.init()
    for _ in range(6):
        honest = -0.3 * (quadratic @ model)[None] * torch.tensor([[1.0], [0.8]])
        known = RoundKnowledge(plan, model, last, benign=Rows.of(honest))
        sent, memory = attack.poison_and_remember(torch.ones(1, 3), known, memory, rng)
        opened = Rows(torch.cat([honest, sent]), torch.ones(3), (0, 1, 2))
        _, state = seat.judge_before(opened, state, judged_at(model, last, plan))
        rows.append(sent[0])
        last = opened.values.mean(dim=0)
        model = model + last
    assert len(state.distances[2]) == 5
    assert max(state.distances[2]) < 1e-5 < min(state.distances[0])
    assert not torch.allclose(rows[-1], rows[0])


def test_an_ordinary_row_has_the_median_length_and_signs_in_every_layer_and_goes_back():
    drawn = torch.Generator().manual_seed(0)
    honest = torch.randn(9, 60, generator=drawn) + torch.tensor([0.8, -0.4] * 30)
    known = RoundKnowledge(
        RoundPlan(0, tuple(range(12)), d=60, l2=9.0), torch.zeros(60), benign=Rows.of(honest)
    )
    sent = Ordinary([40, 20]).poison_updates(torch.ones(3, 60), known, drawn)
    verdict, _ = LASA([40, 20]).judge_step(
        Rows.of(torch.cat([honest, sent])), None, judged_at(torch.zeros(60))
    )
    assert verdict.suspicion[9:].tolist() == [0, 0, 0]
    assert float(sent[0] @ honest.mean(dim=0)) < 0


def test_rflbat_trusts_liars_that_are_unlike_each_other_and_not_those_that_are_alike():
    drawn = torch.Generator().manual_seed(0)
    honest = torch.randn(14, 300, generator=drawn) / 300**0.5 + torch.eye(300)[0]
    row = -3 * honest.mean(dim=0)
    alike = row.expand(6, 300)
    kept = []
    for lies in (alike, row + 1.6 * row.norm() * scattered(alike, drawn)):
        rows = Rows.of(torch.cat([honest, lies]))
        verdict, _ = RFLBAT().judge_step(rows, None, judged_at(torch.zeros(300)))
        kept.append(verdict.kept.tolist())
    assert not any(kept[0][14:])
    assert not any(kept[1][:14])
    assert any(kept[1][14:])


@pytest.mark.parametrize("far", [float("inf"), float("nan"), -1.0])
def test_rows_are_apart_by_a_number_or_refused(far):
    with pytest.raises(ConfigError, match="apart must be"):
        AGRTailored(apart=(0.0, far))


def test_rows_that_are_apart_sum_to_as_many_of_the_common_one():
    ways = scattered(torch.zeros(5, 400), torch.Generator().manual_seed(1))
    torch.testing.assert_close(ways.sum(dim=0), torch.zeros(400), atol=1e-5, rtol=0)
    cosines = torch.nn.functional.normalize(ways) @ torch.nn.functional.normalize(ways).T
    assert float((cosines - 2 * torch.eye(5)).max()) < -0.05
    assert scattered(torch.zeros(1, 4), torch.Generator()).tolist() == [[0.0] * 4]


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
