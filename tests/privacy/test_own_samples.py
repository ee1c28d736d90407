"""What an adversary's own samples say of others' is worth as much as it is: pictures come nearer,
coordinates are white, no rehearsal looks for samples that its prior was made of.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.attacks import GradientInversion, GradInversion, Knowledge, NotFound, Reconstruction
from privfl.attacks.inference import observe, recipe
from privfl.attacks.inversion.natural import FLOOR, OwnPrior
from privfl.attacks.inversion.rehearsal import apart, psnr, victims
from privfl.config import AuditConfig
from privfl.core import Dataset, LocalPlan
from privfl.data import load
from privfl.training import LocalSGD

DIGITS = load("digits")
CLIENT = DIGITS.train.take(range(8))
OWN = DIGITS.test.take(range(100))


def seen(module):
    made = Federation(
        module,
        [CLIENT],
        DIGITS.test,
        training=LocalSGD(lr=0.1, plan=LocalPlan(8, steps=1)),
        rounds=1,
        buffers="averaged",
        executor="sequential",
        audit=AuditConfig(keep="all"),
    )
    return made.run().view("server", 0)


def narrow():
    """A net whose few features do not tell eight digits."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 10))


def test_pictures_are_nearer_with_own_samples_than_with_the_total_variation():
    view = seen(narrow())
    knows = Knowledge(labels=CLIENT.y, auxiliary=OWN)
    for attack in (GradInversion(iterations=30, seeds=1), GradientInversion(iterations=30)):
        by_variation = [replace(attack, tv=tv).run(view, knows) for tv in (0.01, 0.1)]
        told = replace(attack, own=0.1).run(view, knows)
        most = max(psnr(found.samples, CLIENT.x) for found in by_variation)
        assert psnr(told.samples, CLIENT.x) > most + 1
        assert told.notes["own samples' weight"] == 0.1


def test_own_samples_are_white_in_their_own_coordinates():
    rng = torch.Generator().manual_seed(0)
    smooth = torch.randn(400, 3, 8, 8, generator=rng).cumsum(dim=2) + 5
    natural = OwnPrior.of(smooth)
    drawn = natural.samples(torch.randn(400, 3, 8, 8, generator=rng))
    apart_from = (smooth - smooth.mean(dim=0)).flatten(1)
    assert torch.allclose(drawn.mean(dim=0), smooth.mean(dim=0), atol=1.0)
    power = drawn.sub(smooth.mean(dim=0)).square().sum() / apart_from.square().sum()
    assert abs(float(power) - 1) < 0.1
    rough = natural.samples(torch.zeros(1, 3, 8, 8))
    assert torch.allclose(rough[0], smooth.mean(dim=0), atol=1e-5)


def test_columns_are_scaled_one_by_one_and_constant_ones_may_still_move():
    x = torch.tensor([[0.0, 7.0], [4.0, 7.0]])
    natural = OwnPrior.of(x)
    told = natural.samples(torch.ones(1, 2))
    assert torch.allclose(natural.mean, torch.tensor([2.0, 7.0]))
    assert torch.allclose(told, torch.tensor([[4.0, 7.0 + FLOOR * 2**0.5]]))


def test_without_own_samples_their_weight_is_refused():
    told = GradInversion(iterations=1, own=0.1).run(seen(narrow()), Knowledge(labels=CLIENT.y))
    assert isinstance(told, NotFound)
    assert "auxiliary samples" in told.reason


def spoilt(kind):
    x, y = OWN.x.clone(), OWN.y
    if kind == "all alike":
        return Dataset(torch.full_like(x, 0.5), y, 10)
    if kind == "not finite":
        return Dataset(x * float("nan"), y, 10)
    if kind == "some not finite":
        x[:5] = float("inf")
        return Dataset(x, y, 10)
    if kind == "of other channels":
        return Dataset(x.expand(-1, 3, -1, -1).clone(), y, 10)
    if kind == "of another type":
        return Dataset(x.double(), y, 10)
    return Dataset(x, y + 5, 15)


@pytest.mark.parametrize(
    "kind",
    [
        "all alike",
        "not finite",
        "some not finite",
        "of other channels",
        "of another type",
        "of more classes",
    ],
)
@pytest.mark.parametrize(
    "attack",
    [GradInversion(iterations=1, seeds=1), GradientInversion(iterations=1)],
    ids=lambda attack: type(attack).__name__,
)
def test_own_samples_that_say_nothing_cost_no_picture(attack, kind):
    """A leak is not hidden by samples that its adversary cannot use."""
    view, knows = seen(narrow()), Knowledge(auxiliary=spoilt(kind))
    tuned = replace(attack, tune=True).run(view, knows)
    assert isinstance(tuned, Reconstruction)
    assert tuned.samples.shape == CLIENT.x.shape
    assert tuned.samples.isfinite().all()
    given = replace(attack, own=0.1).run(view, knows)
    if kind in ("some not finite", "of more classes"):
        assert given.samples.isfinite().all()
    else:
        assert isinstance(given, NotFound)
        assert "own samples" in given.reason or "auxiliary samples" in given.reason


def test_a_rehearsal_looks_for_no_sample_that_its_prior_was_made_of():
    view = seen(narrow())
    knows = Knowledge(auxiliary=OWN)
    forward, observed = recipe(view, knows), observe(view, knows, "client", None)
    practice = victims(observed, forward, knows, 8, 3)
    left = apart(knows, practice).auxiliary
    for victim in practice:
        assert torch.equal(OWN.x[victim.picked], victim.samples)
        assert float(torch.cdist(victim.samples.flatten(1), left.x.flatten(1)).min()) > 0
    few = replace(knows, auxiliary=OWN.take(range(9)))
    assert apart(few, victims(observed, forward, few, 8, 2)).auxiliary is None


def test_a_tuned_attack_takes_own_samples_where_they_serve_it():
    view = seen(narrow())
    base = GradientInversion(iterations=8, tune=True)
    tuned = base.prepared((view,), Knowledge(labels=CLIENT.y, auxiliary=OWN))
    assert tuned.own > 0
    assert not base.prepared((view,), Knowledge(labels=CLIENT.y)).own
