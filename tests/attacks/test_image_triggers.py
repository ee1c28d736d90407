"""Triggers made of the whole image: what becomes of each pixel, and that they take in whole rounds
on real digits.
"""

import numpy as np
import pytest
import torch

from privfl import Federation
from privfl.attacks import Blended, SampleSpecific
from privfl.config import AuditConfig
from privfl.core import ConfigError, Dataset, LocalPlan
from privfl.data import load
from privfl.engine import Attacker
from privfl.models import initialised, mlp
from privfl.training import LocalSGD


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def poisoned(digits, attack, rounds=20):
    """The measures of a run on digits, of 5 clients of whom 2 poison their data."""
    clients = [digits.train.take(range(i, digits.train.n, 5)) for i in range(5)]
    run = Federation(
        initialised(mlp, digits.shape, 10, seed=0),
        clients,
        digits.test,
        rounds=rounds,
        training=LocalSGD(lr=0.2, plan=LocalPlan(16, epochs=2)),
        attackers=[Attacker("a", attack, frozenset({0, 1}))],
        executor="sequential",
        audit=AuditConfig(keep=[], evaluate_every=rounds - 1),
    ).run()
    return run.history[0].measures, run.history[-1].measures


def test_blending_is_four_fifths_of_the_image_and_a_fifth_of_the_key_picture_in_pixels(digits):
    blended = Blended(target=2).samples(digits.train)
    others = digits.train.take((digits.train.y != 2).nonzero().flatten())
    pixels, was = (digits.original(x).double().numpy() for x in (blended.x, others.x))
    key = (pixels[0] - 0.8 * was[0]) / 0.2
    np.testing.assert_allclose(pixels, 0.8 * was + 0.2 * key, atol=1e-5)
    assert key.min() >= -1e-5
    assert key.max() <= 1 + 1e-5
    assert np.std(key) > 0.2
    assert (blended.y == 2).all()
    again, other = (Blended(target=2, key=k).samples(digits.train) for k in (0, 1))
    assert torch.equal(again.x, blended.x)
    assert not torch.equal(other.x, blended.x)


def test_a_given_pattern_is_blended_in_on_every_channel_and_must_fit_the_image():
    x = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    data = Dataset(x, torch.tensor([0, 1, 0]), 2)
    half = Blended(target=1, alpha=0.5, pattern=torch.eye(4), span=(0.0, 2.0)).samples(data)
    assert torch.allclose(half.x, 0.5 * x[[0, 2]] + torch.eye(4))
    with pytest.raises(ConfigError, match="has shape"):
        Blended(target=1, pattern=torch.eye(5), span=(0.0, 2.0)).samples(data)
    with pytest.raises(ConfigError, match="set span"):
        Blended(target=1).samples(data)


def test_a_sample_specific_trigger_is_faint_in_the_box_and_another_one_on_every_image(digits):
    attack = SampleSpecific(target=2)
    made = attack.samples(digits.train)
    others = digits.train.take((digits.train.y != 2).nonzero().flatten())
    pixels, was = digits.original(made.x), digits.original(others.x)
    moved = (pixels - was) * 255
    assert float(moved.abs().max()) <= 8 + 1e-3
    assert float(moved.abs().mean()) > 3
    assert float(pixels.min()) >= -1e-5
    assert float(pixels.max()) <= 1 + 1e-5
    inner = (was > 0.1) & (was < 0.9)
    both = inner[0] & inner[1]
    assert float((moved[0][both].sign() != moved[1][both].sign()).float().mean()) > 0.2
    one = attack.samples(digits.train.take([0]))
    assert torch.allclose(one.x, made.x[:1], atol=1e-6)
    assert not torch.equal(SampleSpecific(target=2, key=1).samples(digits.train).x, made.x)


def test_blended_data_of_two_clients_in_five_plant_the_backdoor(digits):
    before, after = poisoned(digits, Blended(target=2))
    assert before["a: backdoor"] < 0.2
    assert after["a: backdoor"] > 0.8
    assert after["a: main"] > 0.93


def test_stronger_sample_specific_data_of_two_clients_in_five_plant_the_backdoor(digits):
    stronger = SampleSpecific(target=2, epsilon=48 / 255, fraction=0.5)
    before, after = poisoned(digits, stronger)
    assert before["a: backdoor"] < 0.2
    assert after["a: backdoor"] > 0.75
    assert after["a: main"] > 0.93


def test_a_channel_that_is_the_same_everywhere_leaves_residuals_without_nan():
    x = torch.cat([torch.rand(3, 1, 5, 7), torch.zeros(3, 1, 5, 7)], dim=1)
    data = Dataset(x, torch.zeros(3, dtype=torch.int64), 2, span=((0.0, 0.0), (1.0, 0.0)))
    marked = SampleSpecific(target=1).samples(data).x
    assert torch.isfinite(marked).all()
    assert (marked[:, 1] == 0).all()
    assert not torch.equal(marked[:, 0], x[:, 0])
