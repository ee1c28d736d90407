"""FLARE's distances of models against a slow reference from differences alone, where products lose
digits or run out of their range, and of models that carry gradients.
"""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from privfl.aggregators import FLARE
from privfl.aggregators.flare import discrepancies, kernel_width
from privfl.core import Context, RoundPlan, Rows

SEEN = np.random.default_rng(0).normal(size=(7, 6, 3)) + np.linspace(0, 1, 7)[:, None, None]


def slow(seen, width):
    def mean(F, G, alike):
        squares = ((F[:, None] - G[None]) ** 2).sum(axis=2)
        kernel = np.exp(-squares / width)
        s = len(F)
        return (kernel.sum() - s) / (s * (s - 1)) if alike else kernel.mean()

    own = [mean(F, F, True) for F in seen]
    cross = np.array([[mean(F, G, False) for G in seen] for F in seen])
    far = np.maximum(np.add.outer(own, own) - 2 * cross, 0)
    np.fill_diagonal(far, 0)
    return far


def found(seen):
    here = torch.from_numpy(seen[0])
    width = kernel_width(here)
    return discrepancies(torch.from_numpy(seen), width, here.mean(dim=0)).numpy(), width


@pytest.mark.parametrize("offset", [0.0, 1e6, -1e9])
def test_what_all_features_have_in_common_changes_nothing(offset):
    seen = SEEN + offset
    distances, width = found(seen)
    np.testing.assert_allclose(distances, slow(seen, width), atol=1e-12)


def test_a_model_far_from_all_others_is_as_spread_as_it_is():
    seen = SEEN.copy()
    seen[3] = 1e9 + np.round(seen[3] * 8) / 8
    distances, width = found(seen)
    np.testing.assert_allclose(distances, slow(seen, width), atol=1e-12)


@pytest.mark.parametrize("scale", [1e-170, 1e-160, 1e-150, 1e140])
def test_features_of_any_size_leave_numbers(scale):
    seen = scale * SEEN
    distances, width = found(seen)
    assert np.isfinite(distances).all()
    np.testing.assert_allclose(distances, slow(seen, width), atol=1e-9)


@pytest.mark.parametrize("here", [np.zeros((3, 2)), np.array([[0, 0], [1e-162, 0], [0, 2e-162]])])
def test_a_width_that_nothing_can_be_divided_by_is_one(here):
    assert kernel_width(torch.from_numpy(here)) == 1.0


def test_models_that_carry_gradients_are_judged_without_a_warning():
    samples = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    layer = nn.Linear(2, 2)

    def features(model, context):
        return layer(torch.tanh(samples @ model.view(3, 2).float()))

    values = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    plan = RoundPlan(0, tuple(range(6)), 6, math.inf)
    context = Context(plan, nn.Parameter(torch.ones(6)), torch.Generator())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        carrying = FLARE(features).judge_step(Rows.of(values), None, context)[0]
        assert kernel_width(nn.Parameter(torch.tensor([[0.0], [2.0], [2.0]]))) == 4.0
    layer.requires_grad_(False)
    bare = Context(plan, torch.ones(6), torch.Generator())
    without = FLARE(features).judge_step(Rows.of(values), None, bare)[0]
    assert not carrying.out.requires_grad
    assert torch.equal(carrying.out, without.out)
