"""Modules that cannot couple samples, by what they are made of: none has to run to show it."""

from __future__ import annotations

from torch import Tensor, nn

_ROWWISE: frozenset[type[nn.Module]] = frozenset(
    {
        nn.Linear,
        nn.Identity,
        nn.ReLU,
        nn.Tanh,
        nn.Sigmoid,
        nn.GELU,
        nn.SiLU,
        nn.ELU,
        nn.LeakyReLU,
        nn.Softplus,
    }
)
"""Each makes row i of its output of row i of its input [b, ..., i], whatever the other rows are."""


def rowwise(module: nn.Module, x: Tensor) -> bool:
    """Whether a module is a chain of linear layers and activations that nobody has changed, on x
    [b, ...], so that each row of its output and each row of its errors is made of that row alone.

    False says nothing: such a module has to be run to see whether it couples samples. Layers are
    taken by their exact type, without hooks, with a weight of their own each: what a subclass, a
    hook, a parametrization or a shared weight does is not known from here.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> rowwise(net, torch.zeros(5, 2, 2)), rowwise(nn.Sequential(nn.Softmax(0)), torch.zeros(5, 2))
    (True, False)
    """
    if type(module) is not nn.Sequential or x.ndim < 2 or not x.is_floating_point():
        return False
    layers = list(module)
    if layers and type(layers[0]) is nn.Flatten:
        first = vars(layers.pop(0))
        if (first["start_dim"], first["end_dim"]) != (1, -1) or _altered(module[0]):
            return False
    weights = [p for layer in layers for p in layer.parameters()]
    return (
        not nn.modules.module._has_any_global_hook()  # type: ignore[no-untyped-call]
        and not _altered(module)
        and all(type(layer) in _ROWWISE and not _altered(layer) for layer in layers)
        and all(type(p) is nn.Parameter for p in weights)
        and len({id(p) for p in weights}) == len(weights)
    )


def _altered(layer: nn.Module) -> bool:
    """Whether a layer has hooks, or a forward that is not its class's."""
    hooks = (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
    )
    return any(map(len, hooks)) or "forward" in vars(layer)
