"""Gradient matching of networks that are written otherwise than ours: what trains can be attacked,
and what is computed of it is autograd's.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from privfl import Federation
from privfl.attacks import GradientInversion, GradInversion, Knowledge
from privfl.attacks.inference import observe, recipe
from privfl.attacks.inversion.grad_inversion import _labels, batch_statistics
from privfl.attacks.inversion.rehearsal import psnr
from privfl.attacks.inversion.repeated import WORTH, Repeated
from privfl.attacks.inversion.simulate import Simulator
from privfl.attacks.inversion.statistics import listening
from privfl.attacks.knowledge import Forward
from privfl.config import AuditConfig
from privfl.core import LocalPlan
from privfl.data import load
from privfl.training import FedSGD, LocalSGD

DIGITS = load("digits")


class Written(nn.Module):
    """A network by its parts and a function of these and of samples."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.computed = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.computed(self, x)


def viewed():
    """As torch's own tutorials flatten."""

    def forward(net, x):
        y = functional.max_pool2d(net.conv(x).tanh(), 2)
        return net.out(net.more(y).relu().view(-1, 64))

    convs = {"conv": nn.Conv2d(1, 4, 3, padding=1), "more": nn.Conv2d(4, 4, 3, padding=1)}
    return Written(forward, **convs, out=nn.Linear(64, 10))


def strided():
    def forward(net, x):
        stride = np.int64(2)
        return net.out(functional.conv2d(x, net.conv.weight, net.conv.bias, stride).flatten(1))

    return Written(forward, conv=nn.Conv2d(1, 4, 3), out=nn.Linear(36, 10))


def hooked():
    """Errors that a hook changes at the operation itself."""

    def forward(net, x):
        y = net.conv(x)
        if y.requires_grad:
            y.grad_fn.register_prehook(lambda errors: (errors[0] * 2,))
        return net.out(y.tanh().flatten(1))

    return Written(forward, conv=nn.Conv2d(1, 4, 3), out=nn.Linear(144, 10))


def normed():
    """Statistics of a layer that is used twice, of one that is not, and of one that is called by
    name.
    """

    def forward(net, x):
        y = net.twice(net.more(net.twice(net.conv(x)).tanh()))
        return net.out(net.named(input=y).tanh().flatten(1))

    norms = {name: nn.BatchNorm2d(4) for name in ("idle", "twice", "named")}
    convs = {"conv": nn.Conv2d(1, 4, 3, padding=1), "more": nn.Conv2d(4, 4, 1)}
    return Written(forward, **norms, **convs, out=nn.Linear(256, 10))


def parameters_of(module):
    return nn.utils.parameters_to_vector(module.parameters()).detach()


def loss(module, x, y):
    return functional.cross_entropy(module(x), y)


@pytest.mark.parametrize("make", [viewed, strided, hooked, normed])
def test_gradients_and_their_slopes_are_autograds(make):
    torch.manual_seed(1)
    module, x = make().train(), torch.randn(3, 1, 8, 8).requires_grad_()
    forward = Forward(module, loss, (1, 8, 8), 10, lr=1.0)
    told = Simulator(forward, parameters_of(module)).gradient(x, torch.tensor([1, 4, 1]))
    leaves = list(module.parameters())
    value = loss(module, x, torch.tensor([1, 4, 1]))
    parts = torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True)
    true = torch.cat(
        [
            (torch.zeros_like(leaf) if part is None else part).flatten()
            for part, leaf in zip(parts, leaves, strict=True)
        ]
    )
    slopes = [torch.autograd.grad(one.sin().sum(), x)[0] for one in (told, true)]
    told, true = told.detach(), true.detach()
    assert torch.allclose(told, true, rtol=0, atol=1e-5 * float(true.abs().max()))
    assert torch.allclose(*slopes, rtol=0, atol=1e-5 * float(slopes[1].abs().max()))


def test_a_network_with_a_layer_that_is_not_used_is_left_to_autograd_as_well():
    def penalised(module, x, y):
        value = loss(module, x, y)
        (slope,) = torch.autograd.grad(value, module.out.weight, create_graph=True)
        return value + slope.square().sum()

    module = normed()
    x = torch.randn(2, 1, 8, 8).requires_grad_()
    for steps in (1, 2):
        forward = Forward(module, penalised, (1, 8, 8), 10, lr=1.0, steps=steps, batch_size=2)
        update = Simulator(forward, parameters_of(module)).update(x, torch.tensor([1, 4]))
        assert bool(update.isfinite().all())
        assert update.detach()[:8].tolist() == [0.0] * 8


def federation(module, clients, steps=1, **parts):
    return Federation(
        module,
        clients,
        DIGITS.test,
        training=LocalSGD(lr=0.1, plan=LocalPlan(8, steps=steps)),
        rounds=1,
        executor="sequential",
        audit=AuditConfig(keep="all"),
        **parts,
    )


CLIENTS = [DIGITS.train.take(range(3 * i, 3 * i + 3)) for i in range(2)]


@pytest.mark.parametrize("attack", [GradientInversion(iterations=8), GradInversion(iterations=8)])
@pytest.mark.parametrize("make", [viewed, normed])
def test_what_trains_can_be_attacked(make, attack):
    torch.manual_seed(2)
    parts = {"buffers": "averaged"} if make is normed else {}
    view = federation(make(), CLIENTS, **parts).run().view("server", 0)
    found = attack.infer((view,), Knowledge(labels=CLIENTS[0].y))
    assert found.mismatch < 10
    assert bool(found.samples.isfinite().all())


@pytest.mark.parametrize("steps", [1, 2])
def test_statistics_of_layers_that_are_used_otherwise_change_as_the_clients_do(steps):
    torch.manual_seed(2)
    view = federation(normed(), CLIENTS, steps, buffers="averaged").run().view("server", 0)
    forward = recipe(view, Knowledge())
    observed = observe(view, Knowledge(), "client", 0)
    simulator = Simulator(forward, view.before)
    with torch.no_grad(), listening(simulator.norms) as heard:
        simulator.module(CLIENTS[0].x)
    if steps == 1:
        found = heard.change(view.extra["buffers"], 1)
        assert torch.allclose(found, observed.buffers, rtol=0, atol=1e-5)
    assert observed.buffers[:8].tolist() == [0.0] * 8


def still(momentum=0.0):
    parts = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=momentum), nn.Tanh(), nn.Flatten()
    return nn.Sequential(*parts, nn.Linear(144, 10))


def test_statistics_that_do_not_run_are_no_reason_to_find_nothing():
    torch.manual_seed(4)
    view = federation(still(), CLIENTS, buffers="averaged").run().view("server", 0)
    known = Knowledge(labels=CLIENTS[0].y)
    attack = GradInversion(iterations=60, seeds=1, statistics=0.1)
    found, start = attack.infer((view,), known), view.extra["buffers"]
    assert found.mismatch < 0.5
    norms = Simulator(recipe(view, known), view.before).norms
    observed = observe(view, known, "client", 0)
    assert torch.equal(batch_statistics(observed, recipe(view, known), norms), start)
    true = CLIENTS[0].x
    low, high = true.min(), true.max()
    assert psnr(found.samples / (high - low), true / (high - low)) > 8


class HeadFirst(nn.Module):
    """A network whose last layer is named first, and which normalises at the end."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(36, 10)
        self.conv = nn.Conv2d(1, 4, 3, stride=2)
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x):
        return self.out(self.norm(self.conv(x)).relu().flatten(1))


def frozen_bias():
    module = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 10))
    module[3].bias.requires_grad_(False)
    return module


@pytest.mark.parametrize("make", [HeadFirst, frozen_bias])
def test_labels_are_read_where_the_last_layer_lies(make):
    torch.manual_seed(5)
    rows = [int((DIGITS.train.y == label).nonzero()[0]) for label in (7, 2, 5)]
    clients = [DIGITS.train.take(rows)]
    made = Federation(
        make(),
        clients,
        DIGITS.test,
        training=FedSGD(lr=0.1),
        rounds=1,
        executor="sequential",
        audit=AuditConfig(keep="all"),
    )
    view = made.run().view("server", 0)
    observed = observe(view, Knowledge(), "client", 0)
    assert _labels(observed, recipe(view, Knowledge()), Knowledge()).tolist() == [2, 5, 7]


def test_a_client_that_does_not_move_has_a_slope_under_a_clip():
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))

    def hinge(module, x, y):
        first, second = module(x).unbind(dim=1)
        return (1 - first + second).relu().mean()

    with torch.no_grad():
        module[1].weight.copy_(torch.eye(2, 4))
        module[1].bias.zero_()
    shape = (1, 2, 2)
    forward = Forward(module, hinge, shape, 2, lr=1.0, l2=0.5, steps=1, batch_size=8)
    simulator = Simulator(forward, parameters_of(module), clients=2)
    x = torch.zeros(2, *shape)
    x[0, 0, 0, 0], x[1, 0, 0, 0] = 9.0, 0.3
    x.requires_grad_()
    update = simulator.update(x, torch.tensor([0, 0]))
    (slope,) = torch.autograd.grad(update.square().sum(), x)
    assert bool(update.isfinite().all())
    assert bool(slope.isfinite().all())


def test_what_is_packed_to_another_length_has_that_length():
    def mean_of_frames(x):
        lengths, order = (x[..., 0].abs() > 0.5).sum(dim=1).clamp(min=1).sort(descending=True)
        packed, sizes = torch._VF._pack_padded_sequence(x[order], lengths, True)
        return packed.sum() / len(packed), sizes.sum() * len(sizes)

    repeated = Repeated(mean_of_frames, WORTH)
    rng = torch.Generator().manual_seed(6)
    alike = torch.randn(3, 5, 2, generator=rng)
    points = [alike] * 5 + [torch.randn(3, 5, 2, generator=rng) for _ in range(8)]
    for x in points:
        for found, true in zip(repeated(x.clone()), mean_of_frames(x), strict=True):
            assert torch.equal(found, true)


def test_an_argument_that_nobody_can_write_to_does_not_need_to_be_restored():
    """The step fails where it is watched, and only there."""

    def shy(x):
        watched = torch.utils._python_dispatch._get_current_dispatch_mode() is not None
        if watched:
            raise RuntimeError("not here")
        return (x * 2,)

    repeated = Repeated(shy, WORTH)
    row = torch.ones(()).expand(3)
    free = torch.ones(3, requires_grad=True)
    for x in (row, row, row, row):
        assert repeated(x)[0].tolist() == [2.0] * 3
    repeated = Repeated(lambda x: tuple(one.detach() for one in shy(x)), WORTH)
    for _ in range(4):
        assert repeated(free)[0].tolist() == [2.0] * 3
