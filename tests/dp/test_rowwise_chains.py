"""A chain of linear layers and activations is not run to be checked; whoever changes one so that it
couples samples is refused all the same.
"""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from privfl.core import FlatModel, UnsupportedModel, cross_entropy
from privfl.dp import DPGradient
from privfl.dp.sgd.rowwise import rowwise

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(4))
Y = torch.arange(8) % 3


def chain(*between):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), *between, nn.Linear(6, 3))


def step(module, loss=cross_entropy, x=X, y=Y):
    model = FlatModel(module)
    DPGradient(l2=0.1, noise_multiplier=0.0, batch_size=8)(model, loss, x, y)
    return model.grad


def centred(x):
    return x - x.mean(dim=0)


class CentredLinear(nn.Linear):
    def forward(self, x):
        return super().forward(centred(x))


class CentredChain(nn.Sequential):
    def forward(self, x):
        return super().forward(centred(x))


def with_pre_hook():
    net = chain()
    net[1].register_forward_pre_hook(lambda layer, given: (centred(given[0]),))
    return net


def with_hook():
    net = chain()
    net[0].register_forward_hook(lambda layer, given, out: centred(out))
    return net


def with_hook_of_the_whole():
    net = chain()
    net.register_forward_hook(lambda layer, given, out: centred(out))
    return net


def with_backward_hook():
    net = chain()
    net[1].register_full_backward_hook(lambda layer, given, put: (centred(given[0]),))
    return net


def with_a_forward_of_its_own():
    net = chain()
    net[1].forward = lambda x: torch.tanh(centred(x))
    return net


def with_a_parametrization():
    net = chain()
    parametrize.register_parametrization(net[0], "weight", nn.Identity())
    return net


ALTERED = {
    "softmax over the batch": lambda: chain(nn.Softmax(dim=0)),
    "batch statistics": lambda: chain(nn.BatchNorm1d(6, affine=False)),
    "pre-hook": with_pre_hook,
    "hook": with_hook,
    "hook of the whole": with_hook_of_the_whole,
    "backward hook": with_backward_hook,
    "forward of its own": with_a_forward_of_its_own,
    "subclass of a layer": lambda: nn.Sequential(CentredLinear(6, 3)),
    "subclass of the chain": lambda: CentredChain(*chain()),
    "parametrization": with_a_parametrization,
}


@pytest.mark.parametrize("case", ALTERED)
def test_a_chain_that_was_altered_is_run_and_refused(case):
    net = ALTERED[case]()
    assert not rowwise(net, X)
    with pytest.raises(UnsupportedModel):
        step(net)


def test_a_hook_on_all_modules_is_seen():
    net = chain()
    handle = nn.modules.module.register_module_forward_pre_hook(
        lambda layer, given: (centred(given[0]),) if isinstance(layer, nn.Tanh) else None
    )
    try:
        assert not rowwise(net, X)
        with pytest.raises(UnsupportedModel):
            step(net)
    finally:
        handle.remove()
    assert rowwise(net, X)


def test_a_loss_that_mixes_the_samples_of_a_chain_is_refused():
    def mixed(module, x, y):
        return cross_entropy(module, centred(x), y)

    with pytest.raises(UnsupportedModel, match="couples the samples"):
        step(chain(), mixed)


def test_a_chain_passes_first_under_our_loss_and_another_loss_is_looked_at_all_the_same():
    def mixed(module, x, y):
        return cross_entropy(module, centred(x), y)

    model, gradient = FlatModel(chain()), DPGradient(l2=0.1, noise_multiplier=0.0, batch_size=8)
    gradient(model, cross_entropy, X, Y)
    with pytest.raises(UnsupportedModel, match="couples the samples"):
        gradient(model, mixed, X, Y)


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Flatten(0)),
        nn.Sequential(nn.Linear(6, 3), nn.Flatten()),
        nn.Sequential(nn.Sequential(nn.Linear(6, 3))),
        nn.Sequential(nn.Conv2d(8, 2, 1)),
        nn.Linear(6, 3),
        nn.Sequential(*[nn.Linear(6, 6)] * 2),
    ],
    ids=["flat batch", "flatten last", "nested", "convolution", "no chain", "one layer twice"],
)
def test_what_is_not_known_has_to_be_run(net):
    assert not rowwise(net, X)


def test_a_batch_of_numbers_or_of_tokens_has_to_be_run():
    assert not rowwise(nn.Sequential(nn.Linear(8, 8)), torch.zeros(8))
    assert not rowwise(nn.Sequential(nn.Identity()), torch.zeros(8, 2, dtype=torch.long))


def test_a_chain_that_was_not_run_has_the_clipped_sum_of_its_samples():
    net = chain()
    assert rowwise(net, X)
    among = step(net).clone()
    alone = [step(net, x=X[i : i + 1], y=Y[i : i + 1]).clone() for i in range(8)]
    assert max(float(each.norm()) for each in alone) <= 0.1 / 8
    assert torch.allclose(among, torch.stack(alone).sum(dim=0), atol=1e-7)
