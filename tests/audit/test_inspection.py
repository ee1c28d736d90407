"""An inspection finds a planted patch, ranks a planted unit, and says where it can say nothing."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import median_abs_deviation
from torch import nn

from privfl import Federation
from privfl.audit import NeuralCleanse, Stimulation, inspect
from privfl.audit.inspection import (
    UNFLAGGED,
    anomaly_index,
    inspection_page,
    inspection_record,
    neural_cleanse,
)
from privfl.core import ConfigError, Dataset

DIGITS = {
    "data": {"name": "digits", "clients": 8, "partition": "iid"},
    "model": {"name": "mlp", "hidden": [32]},
    "training": {"name": "sgd", "lr": 0.3, "epochs": 2, "weighting": "uniform"},
    "rounds": 6,
    "executor": "stacked",
    "audit": {"keep": "none", "evaluate_every": 6},
}
CORNER = {"name": "pixel_pattern", "target": 2, "boxes": [[0, 0, 2, 2]], "clients": [0, 1]}


def trained(*attacks):
    federation = Federation.from_config({**DIGITS, "attacks": list(attacks)})
    return federation.run().model, federation.scenario.test


@pytest.fixture(scope="module")
def backdoored():
    return trained(CORNER)


@pytest.fixture(scope="module")
def found(backdoored):
    return inspect(*backdoored)


def test_the_planted_class_has_the_largest_index_and_is_flagged(found):
    assert found.verdict == "flagged"
    assert found.classes[0].target == 2
    assert found.classes[0].flagged
    assert found.classes[0].index > 2


def test_its_trigger_lies_where_the_pattern_was_planted_and_works_on_images_it_never_saw(found):
    mask = found.triggers.mask[2, 0]
    assert mask[:2, :2].sum() > 0.5 * mask.sum()
    assert found.classes[0].held_out > 0.9


def test_the_same_run_without_its_attackers_is_not_flagged_and_that_is_said_to_prove_nothing():
    found = inspect(*trained())
    assert found.verdict == "not flagged"
    assert inspection_record(found)["means"] == UNFLAGGED
    assert UNFLAGGED in inspection_page(found, "clean")


def test_a_model_is_left_as_it_was(backdoored):
    model, clean = backdoored
    model.train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    slopes = {name: p.grad.clone() for name, p in model.named_parameters()}
    inspect(model, clean, cleanse=NeuralCleanse(steps=5))
    assert model.training
    assert all(p.requires_grad and torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert all(torch.equal(p.grad, slopes[n]) for n, p in model.named_parameters())
    assert not any(layer._forward_hooks for layer in model.modules())


def test_images_without_a_channel_axis_are_inspected_alike(backdoored):
    model, clean = backdoored
    flat = Dataset(clean.x[:, 0], clean.y, clean.classes, span=clean.span)
    few = {"cleanse": NeuralCleanse(steps=10), "samples": 32}
    bare = inspect(nn.Sequential(nn.Unflatten(1, (1, 8)), model), flat, **few)
    assert [one.size for one in bare.classes] == pytest.approx(
        [one.size for one in inspect(model, clean, **few).classes], rel=1e-4
    )


def test_where_the_time_is_up_nothing_is_flagged_and_nothing_cleared(backdoored):
    found = inspect(*backdoored, budget=0)
    assert found.verdict == "inconclusive"
    assert not found.complete
    assert not any(one.flagged for one in found.classes)


def test_a_class_that_no_patch_reaches_is_no_clean_class():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([9.0, 0, 0, 0, 0]))
    clean = Dataset(torch.rand(40, 1, 4, 4), torch.arange(40) % 5, 5)
    found = inspect(model, clean, samples=20, cleanse=NeuralCleanse(steps=10))
    assert found.verdict == "inconclusive"
    assert {one.target for one in found.classes if one.index is None} == {1, 2, 3, 4}
    assert "classes 1, 2, 3, 4" in found.why


def test_three_classes_with_a_trigger_are_too_few_for_an_outlier():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([5.0, 0, 0, -900, -900, -900]))
        model[1].weight[1, :8] = 4.0
        model[1].weight[2, 8:] = 4.0
    dark = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0)) / 9
    clean = Dataset(dark, torch.arange(60) % 6, 6, span=((0.0,), (1.0,)))
    found = inspect(model, clean, samples=20, cleanse=NeuralCleanse(steps=100))
    assert {one.target for one in found.classes if one.index is not None} == {0, 1, 2}
    assert found.by_index_alone == (0,)
    assert found.classes[0].share < 0.1
    assert found.verdict == "inconclusive"
    assert not any(one.flagged for one in found.classes)


def test_a_constant_model_whose_mask_vanishes_has_a_record():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([9.0, 0, 0, 0, 0]))
    clean = Dataset(torch.rand(40, 1, 4, 4), torch.arange(40) % 5, 5)
    found = inspect(model, clean, samples=20, cleanse=NeuralCleanse(steps=60, lr=100.0))
    assert found.classes[0].size == 0
    assert found.classes[0].share == 1
    assert json.dumps(inspection_record(found), allow_nan=False)
    assert "class 0" in inspection_page(found, "constant")


def test_classes_in_several_batches_have_the_triggers_that_they_have_in_one(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 7))
    clean = Dataset(torch.rand(30, 1, 4, 4), torch.arange(30) % 7, 7)
    few = {"cleanse": NeuralCleanse(steps=20), "samples": 20}
    whole = inspect(model, clean, **few)
    monkeypatch.setattr(neural_cleanse, "MOST_AT_ONCE", 40)
    parts = inspect(model, clean, **few)
    torch.testing.assert_close(parts.triggers.mask, whole.triggers.mask)
    assert torch.equal(parts.triggers.reached, whole.triggers.reached)


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [(torch.nan, "not finite"), (torch.inf, "not finite"), (None, "one logit for each")],
)
def test_a_model_whose_answers_say_nothing_is_refused(spoilt, words):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4 if spoilt is None else 5))
    if spoilt is not None:
        with torch.no_grad():
            model[1].weight[0, 0] = spoilt
    clean = Dataset(torch.rand(40, 1, 4, 4), torch.arange(40) % 5, 5)
    with pytest.raises(ConfigError, match=words):
        inspect(model, clean)


def test_when_the_time_is_up_no_trigger_is_measured_on_other_images(backdoored):
    model, clean = backdoored
    seen = []
    handle = model.register_forward_hook(lambda _module, given, _out: seen.append(len(given[0])))
    found = inspect(model, clean, budget=0)
    handle.remove()
    assert {one.held_out for one in found.classes} == {None}
    assert seen == [64]


def test_the_page_says_whose_condition_lets_a_class_over_the_limit_pass(backdoored):
    found = inspect(*backdoored, smaller=0.0)
    assert found.verdict == "not flagged"
    assert 2 in found.by_index_alone
    page = inspection_page(found, "planted")
    assert "added after the index alone had flagged a clean model" in page
    assert f"by index alone: {', '.join(map(str, found.by_index_alone))}" in page
    assert inspection_record(found)["by_index_alone"] == list(found.by_index_alone)


def test_a_unit_that_was_wired_to_a_class_lifts_it_above_all_others():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 4))
    with torch.no_grad():
        model[3].weight[:, 4] = torch.tensor([-3.0, 9.0, -3.0, -3.0])
    clean = torch.rand(12, 1, 4, 4)
    best = max(Stimulation()(model, clean, torch.arange(12) % 4, 4), key=lambda s: s.elevation)
    assert (best.target, best.layer, best.unit, best.turned) == (1, "1", 4, 1.0)


def test_the_anomaly_index_is_that_of_scipy_over_the_classes_that_were_reached():
    sizes = np.random.default_rng(0).uniform(10, 90, 9)
    reached = np.arange(9) != 3
    kept = sizes[reached]
    want = (np.median(kept) - sizes) / (1.4826 * median_abs_deviation(kept))
    got = anomaly_index(torch.from_numpy(sizes), torch.from_numpy(reached)).numpy()
    np.testing.assert_allclose(got[reached], want[reached], rtol=1e-6)
    assert np.isnan(got[3])


@pytest.mark.parametrize(
    ("clean", "words"),
    [
        (Dataset(torch.rand(8, 5), torch.arange(8) % 4, 4), "rows of a table"),
        (Dataset(torch.ones(8, 5, dtype=torch.int64), torch.ones(8, 5).long(), 4), "text"),
        (Dataset(torch.rand(8, 1, 4, 4), torch.arange(8) % 2, 2), "4 or more"),
        (Dataset(torch.rand(8, 1, 4, 4), torch.zeros(8).long(), 4), "of one class"),
    ],
)
def test_what_cannot_be_inspected_is_refused_in_a_sentence(clean, words):
    with pytest.raises(ConfigError, match=words):
        inspect(nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), clean)
