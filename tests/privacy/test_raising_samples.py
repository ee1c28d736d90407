"""A sample that makes the model or the loss raise counts as zero: were its client to fail, that it
sends nothing would tell of this one sample, and no noise covers it.
"""

import gc
import weakref

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.core import Dataset, FlatModel, LocalPlan
from privfl.dp import DPGradient, PrivacyWarning
from privfl.training import LocalSGD, cross_entropy

REFUSED = -7
"""No class, so cross-entropy raises."""


def step(engine, x, y, **settings):
    torch.manual_seed(0)
    model = FlatModel(nn.Linear(4, 3))
    settings = {"l2": 1.0, "noise_multiplier": 0.0, "batch_size": 4, **settings}
    gradient = DPGradient(engine=engine, **settings)
    loss = gradient(model, cross_entropy, x, y)
    return model.grad.clone(), loss


@pytest.mark.parametrize("engine", ["bookkeeping", "opacus", "vmap"])
@pytest.mark.parametrize("bad", [(0,), (2, 4), (0, 1, 2, 3, 4)], ids=str)
def test_a_step_is_that_of_the_other_samples(engine, bad):
    x, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    y[list(bad)] = REFUSED
    rest = [i for i in range(5) if i not in bad]
    with pytest.warns(PrivacyWarning, match=f"{len(bad)} of 5 samples make the model or the loss"):
        found, loss = step(engine, x, y)
    expected, without = step(engine, x[rest], y[rest])
    assert torch.equal(found, expected)
    assert loss == without


def test_a_sample_that_raises_alone_in_its_batch_leaves_a_step_of_noise():
    with pytest.warns(PrivacyWarning, match="1 of 1 samples"):
        found, loss = step("bookkeeping", torch.ones(1, 4), torch.tensor([REFUSED]))
    assert not found.any()
    assert loss == 0.0


def test_samples_that_the_model_refuses_count_as_zero_in_virtual_batches_too():
    x = torch.tensor([[0, 1], [2, 3], [1, 99], [3, 0]])
    y = torch.tensor([0, 1, 0, 1])

    def grad(keep):
        torch.manual_seed(0)
        model = FlatModel(nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(6, 2)))
        gradient = DPGradient(1.0, 0.0, 4, microbatch=2)
        gradient(model, cross_entropy, x[keep], y[keep])
        return model.grad.clone()

    with pytest.warns(PrivacyWarning, match="1 of 2 samples"):
        found = grad([0, 1, 2, 3])
    assert torch.allclose(found, grad([0, 1, 3]), atol=1e-7)


def test_what_no_single_sample_brings_about_still_raises():
    def one_label(module, x, y):
        if len(set(y.tolist())) > 1:
            raise ValueError("one label, and no others")
        return nn.functional.cross_entropy(module(x), y)

    model = FlatModel(nn.Linear(4, 3))
    gradient = DPGradient(1.0, 0.0, 4)
    with pytest.raises(ValueError, match="and no others"):
        gradient(model, one_label, torch.randn(3, 4), torch.arange(3))


class Picky(nn.Module):
    """Cross-entropy that refuses samples with a large first value."""

    def forward(self, module, x, y):
        if bool((x[:, 0] > 90).any()):
            raise ValueError("what is this")
        return cross_entropy(module, x, y)


def test_its_client_takes_part_in_every_round():
    torch.manual_seed(0)
    held = [Dataset(torch.randn(12, 4), torch.arange(12) % 2, classes=2) for _ in range(3)]
    held[1].x[5, 0] = 99.0
    made = Federation(
        nn.Linear(4, 2),
        held,
        held[0],
        loss=Picky(),
        training=LocalSGD(lr=0.1, plan=LocalPlan(12, epochs=3), gradient=DPGradient(1.0, 1.0, 12)),
        rounds=2,
        executor="sequential",
    )
    with pytest.warns(PrivacyWarning, match="1 of 12 samples make the model or the loss raise"):
        run = made.run()
    assert not [what for record in run.history for what in record.incidents]
    assert [record.survivors for record in run.history] == [3, 3]


class Activations:
    """Lives as long as the graph of a forward pass."""


class Marked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, alive):
        ctx.activations = Activations()
        alive.append(weakref.ref(ctx.activations))
        return x.clone()

    @staticmethod
    def backward(ctx, error):
        return error, None


class Remembered(nn.Module):
    def __init__(self):
        super().__init__()
        self.into, self.out, self.alive = nn.Linear(4, 5), nn.Linear(5, 3), []

    def forward(self, x):
        return self.out(Marked.apply(self.into(x), self.alive))


@pytest.mark.parametrize("engine", ["bookkeeping", "opacus"])
@pytest.mark.parametrize("bad", ["it raises", "it is NaN", "none"])
def test_a_step_keeps_no_activations_whatever_its_samples_do(engine, bad):
    x, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    if bad == "it is NaN":
        x[3] = torch.nan
    elif bad == "it raises":
        y[3] = REFUSED
    model = FlatModel(Remembered())
    gradient = DPGradient(1.0, 0.0, 4, engine=engine)
    if bad == "none":
        gradient(model, cross_entropy, x, y)
    else:
        with pytest.warns(PrivacyWarning, match="1 of 5 samples"):
            gradient(model, cross_entropy, x, y)
    gc.collect()
    assert model.module.alive
    assert not [one for one in model.module.alive if one() is not None]
