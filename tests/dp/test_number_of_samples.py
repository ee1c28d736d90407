"""How many samples a client holds is in the rate of its batches: what DP-SGD costs is true of a
sample of zero gradient in the place of another, and false of one that comes or goes.
"""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import norm

from privfl.core import Ledger, LocalPlan, Neighbours, Sampling
from privfl.dp import DPGradient, Release, epsilon, spend
from privfl.dp.accounting.pld import pld_profile
from privfl.dp.pipeline import Pipeline

Z = 1.0
PLAN = LocalPlan(batch_size=1, steps=1)
GRADIENT = DPGradient(l2=1.0, noise_multiplier=Z, batch_size=1)
X, STEP = np.linspace(-14, 14, 40_001, retstep=True)
EPSILONS = np.array([0.5, 1.0, 2.0, 3.0])


def released(gradients):
    """The density of what one step releases of samples with these clipped gradients, over every
    batch that there can be, each with its chance under the rate of so many samples.
    """
    [steps] = GRADIENT.noisy(len(gradients), PLAN, 1)
    q, density = steps.sampling.rate, np.zeros_like(X)
    for drawn in itertools.product((0, 1), repeat=len(gradients)):
        chance = np.prod([q if coin else 1 - q for coin in drawn])
        density += chance * norm.pdf(X, np.dot(drawn, gradients), Z)
    return density


def apart(one, other):
    """The hockey-stick divergence of the two, in the worse direction, at each epsilon."""
    sticks = [
        [np.maximum(p - np.exp(e) * q, 0).sum() * STEP for e in EPSILONS]
        for p, q in itertools.permutations((released(one), released(other)))
    ]
    return np.max(sticks, axis=0)


def charged(n):
    """The profile that a step on n samples is charged with."""
    [steps] = GRADIENT.noisy(n, PLAN, 1)
    return pld_profile({Release.gaussian(Z, rate=steps.sampling.rate): 1}, EPSILONS)


def test_the_rates_of_the_distributions_are_those_of_the_batches():
    plan = LocalPlan(batch_size=1, steps=4000)
    for n in (1, 2, 3):
        batches = [
            tuple(batch.tolist())
            for batch in GRADIENT.batches(n, plan, torch.Generator().manual_seed(n))
        ]
        assert batches.count(tuple(range(n))) / 4000 == pytest.approx(n**-n, abs=0.03)


def test_a_sample_that_comes_or_goes_is_told_by_more_than_is_charged():
    """A lone sample is in each batch; beside another it is in every second, which the other may
    take back.
    """
    alone, beside = [1.0], [1.0, -1.0]
    most = np.maximum(charged(1), charged(2))
    assert (apart(alone, beside)[2:] > 2 * most[2:]).all()  # the attack on add_remove


@pytest.mark.parametrize("others", [[1.0], [-1.0], [0.5, -1.0], [1.0, 1.0, 1.0]])
def test_a_sample_of_zero_gradient_in_the_place_of_another_is_not(others):
    for own in (1.0, -1.0, 0.3):
        found = apart([own, *others], [0.0, *others])
        assert (found <= charged(1 + len(others)) + 1e-6).all()


def test_a_sample_more_is_a_step_more_of_an_epoch():
    epoch = LocalPlan(batch_size=2, epochs=1)
    gradient = DPGradient(l2=1.0, noise_multiplier=Z, batch_size=2)
    assert (gradient.steps(6, epoch), gradient.steps(7, epoch)) == (3, 4)


@pytest.mark.parametrize(("n", "steps"), [(600, 100), (40, 7)])
def test_samples_are_claimed_to_become_zero_at_the_price_of_one_that_comes_or_goes(n, steps):
    gradient = DPGradient(l2=1.0, noise_multiplier=Z, batch_size=32)
    pipeline = Pipeline({}, Neighbours("client", "replace_one"), Sampling("all", 1.0, 1))
    charges = pipeline.trained(0, 7, gradient.noisy(n, LocalPlan(batch_size=32), steps))
    [spent] = spend(Ledger(charges), 1e-5)
    assert (spent.unit, spent.relation) == ("sample", "zero_out")
    rate = {"noise_multiplier": Z, "sample_rate": 32 / n, "steps": steps, "delta": 1e-5}
    assert spent.rdp == epsilon(**rate, relation="add_remove")
    assert spent.pld == epsilon(**rate, relation="add_remove", accountant="pld")
