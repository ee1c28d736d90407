"""Data poisoning: what is relabelled, how noisy it gets, and that optimised points climb the loss
that they should.
"""

import numpy as np
import pytest
import torch
from torch import nn

from privfl.attacks import BackGradient, FeatureNoise, LabelFlip, OptimalPoints
from privfl.attacks.poisoning import linear_model
from privfl.core import ConfigError, Dataset


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def two_clouds(n=60, d=3, seed=0):
    y = torch.arange(n) % 2
    return Dataset(torch.randn(n, d, generator=rng(seed)) + 1.5 * y[:, None], y, classes=2)


def test_a_label_flip_moves_its_sources_and_nothing_else():
    data = Dataset(torch.randn(500, 2), torch.randint(10, (500,), generator=rng()), classes=10)
    flipped = LabelFlip(pairs=((3, 9), (2, 1))).poison_data(data, rng())
    expected = np.array([{3: 9, 2: 1}.get(y, y) for y in data.y.tolist()])
    np.testing.assert_array_equal(flipped.y.numpy(), expected)
    assert torch.equal(flipped.x, data.x)


def test_a_label_flip_without_classes_mirrors_all_of_them():
    data = Dataset(torch.zeros(4, 1), torch.tensor([0, 1, 8, 9]), classes=10)
    assert LabelFlip().poison_data(data, rng()).y.tolist() == [9, 8, 1, 0]


def test_a_label_flip_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="classes are 0 to 1"):
        LabelFlip(source=5, target=1).poison_data(two_clouds(), rng())
    with pytest.raises(ConfigError, match="a source and a target"):
        LabelFlip(source=5)
    with pytest.raises(ConfigError, match="one target"):
        LabelFlip(pairs=((1, 2), (1, 3)))


def test_the_measure_of_a_label_flip_is_the_rate_of_source_taken_for_target():
    logits = torch.eye(10)[torch.tensor([9, 9, 3, 1, 5])]
    test = Dataset(logits, torch.tensor([3, 3, 3, 2, 5]), classes=10)
    assert LabelFlip(pairs=((3, 9), (2, 1))).measure(nn.Identity(), test) == {"flipped": 0.75}


def test_feature_noise_has_its_deviation_on_its_fraction_of_the_samples():
    data = Dataset(torch.zeros(200, 500), torch.zeros(200, dtype=torch.int64), classes=2)
    noisy = FeatureNoise(sigma=0.5, fraction=0.25).poison_data(data, rng()).x
    touched = noisy.abs().sum(dim=1) > 0
    assert int(touched.sum()) == 50
    assert 0.48 < float(noisy[touched].std()) < 0.52
    assert not data.x.any()


def test_noise_is_refused_on_tokens():
    text = Dataset(
        torch.zeros(4, 3, dtype=torch.int64), torch.zeros(4, 3, dtype=torch.int64), classes=9
    )
    for attack in (FeatureNoise(), OptimalPoints(), BackGradient()):
        with pytest.raises(ConfigError, match=r"number|tokens"):
            attack.poison_data(text, rng())


def numeric_slope(value, points, h=1e-5):
    slope = torch.zeros_like(points)
    for i in range(points.numel()):
        up, down = points.clone(), points.clone()
        up.view(-1)[i] += h
        down.view(-1)[i] -= h
        slope.view(-1)[i] = (value(up) - value(down)) / (2 * h)
    return slope


@pytest.fixture
def pieces():
    data = two_clouds()
    x, y = data.x.double(), data.y
    return x[:2], 1 - y[:2], (x[2:40], y[2:40]), (x[40:], y[40:])


def test_implicit_differentiation_gives_the_slope_of_the_retrained_models_validation_loss(pieces):
    points, labels, clean, valid = pieces

    def retrained(moved):
        theta = linear_model.fit(
            torch.cat([moved, clean[0]]), torch.cat([labels, clean[1]]), 2, 0.01
        )
        return float(linear_model.loss(theta, *valid, 2, 0.0))

    slope = OptimalPoints()._slope(points, labels, clean, valid, 2)
    assert torch.allclose(slope, numeric_slope(retrained, points, h=1e-3), rtol=0.02, atol=2e-5)


def test_back_gradients_are_the_slope_of_the_validation_loss_after_the_descent(pieces):
    points, labels, clean, valid = pieces

    def descended(moved):
        x, y = torch.cat([moved, clean[0]]), torch.cat([labels, clean[1]])
        theta = torch.zeros(8, dtype=torch.float64)
        for _ in range(40):
            theta = theta - 0.01 * linear_model.gradient(theta, x, y, 2, 0.01)
        return float(linear_model.loss(theta, *valid, 2, 0.0))

    slope = BackGradient(steps=40, rate=0.01)._slope(points, labels, clean, valid, 2)
    assert torch.allclose(slope, numeric_slope(descended, points), rtol=0.05, atol=1e-6)


@pytest.mark.parametrize(
    "attack",
    [OptimalPoints(fraction=0.2, ascents=6), BackGradient(fraction=0.2, ascents=6, steps=30)],
)
def test_optimised_points_stay_in_the_box_and_hurt_a_linear_model_more_than_flipped_labels(attack):
    train, test = two_clouds(n=90), two_clouds(n=400, seed=7)
    poisoned = attack.poison_data(train, rng(1))
    changed = (poisoned.x != train.x).any(dim=1) | (poisoned.y != train.y)
    assert 0 < int(changed.sum()) <= 18
    assert (poisoned.x >= train.x.amin(dim=0)).all()
    assert (poisoned.x <= train.x.amax(dim=0)).all()
    flipped_only = Dataset(train.x, poisoned.y, 2)

    def loss_of(data):
        theta = linear_model.fit(data.x.double(), data.y, 2, 0.01)
        return float(linear_model.loss(theta, test.x.double(), test.y, 2, 0.0))

    assert loss_of(poisoned) > loss_of(flipped_only) > loss_of(train)
