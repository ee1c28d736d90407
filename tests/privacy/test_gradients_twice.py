"""What gradient matching differentiates twice in closed form is what autograd makes of layers that
are written out in plain operations, up to a third time.
"""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from privfl.attacks.inversion.matching import _apart
from privfl.attacks.inversion.natural import OwnPrior
from privfl.attacks.inversion.simulate import Simulator
from privfl.attacks.inversion.statistics import listening
from privfl.attacks.inversion.twice import gradients, moments
from privfl.attacks.knowledge import Forward


class PlainNorm(nn.BatchNorm2d):
    """Batch normalisation in plain operations."""

    def forward(self, x):
        apart = x - x.mean(dim=(0, 2, 3), keepdim=True)
        scale = (apart.square().mean(dim=(0, 2, 3), keepdim=True) + self.eps).rsqrt()
        return apart * scale * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)


class PlainConv(nn.Conv2d):
    """Convolution by cutting pictures in windows."""

    def forward(self, x):
        windows = functional.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)
        parts = windows.view(len(x), self.groups, -1, windows.shape[-1])
        kernels = self.weight.view(self.groups, len(self.weight) // self.groups, -1)
        y = torch.einsum("ngkl,gok->ngol", parts, kernels).flatten(1, 2)
        if self.bias is not None:
            y = y + self.bias.view(-1, 1)
        rows = x.shape[2] + 2 * self.padding[0] - self.dilation[0] * (self.kernel_size[0] - 1) - 1
        return y.unflatten(2, (rows // self.stride[0] + 1, -1))


class Twice(nn.Module):
    """One convolution that is gone through twice."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return x + self.inner(self.inner(x).tanh())


def net():
    def norm(channels):
        layer = nn.BatchNorm2d(channels, track_running_stats=False)
        nn.init.uniform_(layer.weight, 0.5, 2.0)
        nn.init.normal_(layer.bias)
        return layer

    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3, padding=1, bias=False), norm(4), nn.Softplus(), Twice())
    more = (nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU(inplace=True), norm(6), nn.Tanh())
    last = (
        nn.Conv2d(6, 4, (3, 1), padding=(2, 0), dilation=(2, 1), groups=2),
        nn.Tanh(),
        nn.Flatten(),
    )
    return nn.Sequential(*layers, *more, *last, nn.Linear(64, 5))


def plain(module):
    written = copy.deepcopy(module)
    for layer in written.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.__class__ = PlainNorm
        elif isinstance(layer, nn.Conv2d):
            layer.__class__ = PlainConv
    return written


def derivatives(found, x):
    """A gradient, how something of it depends on x, and how something of that does."""
    value = sum(part.square().sum() + part.sin().sum() for part in found)
    (slope,) = torch.autograd.grad(value, x, create_graph=True)
    (third,) = torch.autograd.grad(slope.square().sum() + slope.sin().sum(), x)
    return [part.detach() for part in (*found, slope, third)]


@pytest.mark.parametrize(
    ("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 2e-4)], ids=["double", "single"]
)
def test_a_gradient_in_closed_form_is_autograds_and_so_are_its_derivatives(dtype, near):
    module = net().to(dtype)
    written = plain(module)
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(3, 3, 8, 8, generator=rng).to(dtype).requires_grad_()
    y = torch.tensor([0, 3, 1])
    leaves = list(module.parameters())
    ours = derivatives(gradients(lambda: functional.cross_entropy(module(x), y), leaves), x)
    loss = functional.cross_entropy(written(x), y)
    true = torch.autograd.grad(loss, list(written.parameters()), create_graph=True)
    for one, other in zip(ours, derivatives(true, x), strict=True):
        assert (one - other).abs().max() < near * (1 + other.abs().max())
    assert ours[-1].abs().max() > 1e-3


def test_statistics_that_are_heard_on_the_way_are_the_layers_and_lead_back_to_the_samples():
    module, (heard, true) = net().double(), ([], [])
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64).requires_grad_()

    def hear(layer, inputs):
        (z,) = inputs
        heard.append(moments(z, layer.weight, layer.bias, layer.eps))

    def compute(layer, inputs):
        flat = inputs[0].transpose(0, 1).flatten(1)
        true.append(torch.cat([flat.mean(dim=1), flat.var(dim=1)]))

    def slope(found, told):
        value = sum(p.square().sum() for p in found) + sum(part.sin().sum() for part in told)
        return torch.autograd.grad(value, x)[0]

    leaves, y = list(module.parameters()), torch.tensor([2, 4])
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [layer.register_forward_pre_hook(hear) for layer in norms]
    ours = slope(gradients(lambda: functional.cross_entropy(module(x), y), leaves), heard)
    for hook in hooks:
        hook.remove()
    for layer in norms:
        layer.register_forward_pre_hook(compute)
    loss = functional.cross_entropy(module(x), y)
    theirs = slope(torch.autograd.grad(loss, leaves, create_graph=True), true)
    assert torch.allclose(torch.cat(heard), torch.cat(true), rtol=0, atol=1e-9)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-10 * float(theirs.abs().max()))


def overwritten(n, w):
    """The loss of a convolution of n samples whose input is overwritten after it."""
    x = torch.randn(n, 2, 5, 5, requires_grad=True)

    def loss():
        z = (2 * x).contiguous(memory_format=torch.channels_last)
        y = torch.conv2d(z, w).square().sum()
        z.mul_(3.0)
        return y

    return x, loss


def test_an_input_that_is_overwritten_after_its_convolution_is_not_taken_for_what_it_was():
    w = torch.randn(2, 2, 3, 3, requires_grad=True)
    assert gradients(overwritten(2, w)[1], [w]) is None


def test_a_copy_of_an_input_that_is_overwritten_stays_what_it_was():
    w = torch.randn(2, 2, 3, 3, requires_grad=True)
    x, loss = overwritten(1, w)
    (found,) = gradients(loss, [w])
    true = torch.conv2d(2 * x.detach(), w).square().sum()
    assert torch.allclose(found, torch.autograd.grad(true, w)[0], rtol=1e-5)


def test_a_leaf_that_a_loss_does_not_look_at_has_no_gradient():
    w, idle = torch.ones(1, 1, 1, 1, requires_grad=True), torch.ones(2, requires_grad=True)
    x = torch.full((1, 1, 2, 2), 3.0, requires_grad=True)
    told = gradients(lambda: torch.conv2d(x, w).sum(), [w, idle])
    assert told[0].item() == 12
    assert told[1].tolist() == [0, 0]


def test_the_slopes_of_the_cosine_and_of_own_samples_are_autograds():
    rng = torch.Generator().manual_seed(2)

    def some(*shape):
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    guess, goal = some(50).requires_grad_(), some(50)
    value = 1 - torch.nn.functional.cosine_similarity(guess, goal, dim=0)
    (true,) = torch.autograd.grad(value, guess)
    told = _apart(guess, goal)
    assert told.item() == pytest.approx(value.item(), abs=1e-12)
    assert torch.allclose(torch.autograd.grad(told, guess)[0], true, atol=1e-12)
    for shape in ((3, 6, 7), (3, 6, 6), (5,)):
        natural = OwnPrior.of(some(20, *shape))
        z, direction = some(2, *shape).requires_grad_(), some(2, *shape)
        low, high = torch.full(shape, -0.5).double(), torch.full(shape, 0.5).double()
        x = natural.samples(z)
        box = (x - x.clamp(low, high)).square().mean()
        prior = 0.3 * z.square().mean() + box
        (true,) = torch.autograd.grad(prior + (x * direction).sum(), z)
        worth, slope = natural.weighed(z.detach(), x.detach(), direction, 0.3, (low, high))
        assert worth == pytest.approx(prior.item(), abs=1e-12)
        assert torch.allclose(slope, true, rtol=0, atol=1e-9)


def _penalised(module, x):
    value = module(x).square().sum()
    (slope,) = torch.autograd.grad(value, x, create_graph=True)
    return value + slope.square().sum()


def _stepped(module, x):
    value = module(x).square().sum()
    kernels = [p for p in module.parameters() if p.ndim == 4]
    slopes = torch.autograd.grad(value, kernels, create_graph=True, allow_unused=True)
    return value + sum(slope.square().sum() for slope in slopes if slope is not None)


def _hooked(module, x):
    z = module[0](x)
    z.register_hook(lambda error: error * error)
    return module[2](z.tanh()).square().sum()


def _against_itself(module, x):
    with torch.no_grad():
        before = module(x)
    return (module(x) - before.roll(1)).square().sum()


def _transformed(module, x):
    slopes = torch.func.grad(lambda z: module(z).square().sum())(x)
    return module(x).exp().sum() + slopes.square().sum()


def _halved(module, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = module(x)
    return z.float().square().sum()


LOSSES = [_penalised, _stepped, _hooked, _against_itself, _transformed, _halved]


@pytest.mark.parametrize("loss", LOSSES)
def test_whatever_a_loss_does_with_its_graph_the_update_is_autograds(loss):
    torch.manual_seed(3)
    layers = nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 2, 2)
    module, x = nn.Sequential(*layers), torch.randn(2, 2, 5, 5).requires_grad_()
    forward = Forward(module, lambda module, x, y: loss(module, x), (2, 5, 5), 2, lr=1.0)
    before = torch.nn.utils.parameters_to_vector(module.parameters()).detach()
    told = Simulator(forward, before).gradient(x, torch.zeros(2, dtype=torch.int64))
    leaves = list(module.parameters())
    true = torch.autograd.grad(loss(module, x), leaves, create_graph=True)
    flat = torch.cat([part.flatten() for part in true])
    near = 0.02 if loss is _halved else 1e-4
    slopes = [torch.autograd.grad(one.square().sum(), x)[0] for one in (told, flat)]
    assert (told - flat).abs().max() < near * flat.abs().max()
    assert (slopes[0] - slopes[1]).abs().max() < near * slopes[1].abs().max()


def test_a_batch_that_goes_by_twice_for_autograds_sake_is_heard_once():
    torch.manual_seed(3)
    norm = nn.BatchNorm2d(3)
    module, x = nn.Sequential(nn.Conv2d(2, 3, 3), norm), torch.randn(2, 2, 5, 5).requires_grad_()
    forward = Forward(module, lambda module, x, y: _penalised(module, x), (2, 5, 5), 2, lr=1.0)
    before = torch.nn.utils.parameters_to_vector(module.parameters()).detach()
    simulator = Simulator(forward, before)
    with listening(simulator.norms) as heard:
        simulator.gradient(x, torch.zeros(2, dtype=torch.int64))
    assert len(heard.batches()) == 1


@pytest.mark.parametrize("length", [0.0, 1e-20, 1e-12])
def test_gradients_however_short_have_a_slope(length):
    guess = torch.tensor([length, length, 0.0]).requires_grad_()
    goal = torch.tensor([1e-12, -2e-12, 1e-12])
    (slope,) = torch.autograd.grad(_apart(guess, goal), guess)
    assert bool(slope.isfinite().all())
    if length == 1e-12:
        apart = 1 - functional.cosine_similarity(guess.double() * 1e12, goal.double() * 1e12, dim=0)
        (direction,) = torch.autograd.grad(apart, guess)
        assert functional.cosine_similarity(slope, direction, dim=0) > 0.99
