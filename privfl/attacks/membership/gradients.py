"""Per-sample gradients [n, d] of candidates and auxiliary samples at one model, which all attacks
on the update stream compare.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from privfl.attacks.inversion.simulate import Simulator
from privfl.core import Dataset, recurrent_layers, written_out

_FLOATS = 1 << 25
"""So many numbers are held at a time."""


def per_sample(simulator: Simulator, data: Dataset) -> Float[Tensor, "n d"]:
    """Every sample's own gradient at the simulator's model."""
    return torch.cat(list(_chunks(simulator, data)))


def _chunks(simulator: Simulator, data: Dataset) -> Iterator[Tensor]:
    if _fused(simulator):
        for x, y in zip(data.x, data.y, strict=True):
            value = simulator.loss_of(x[None], y[None])
            slopes = torch.autograd.grad(value, simulator.leaves, materialize_grads=True)
            yield torch.cat([slope.flatten() for slope in slopes])[None]
        return
    parameters = {
        name: leaf.detach() for name, leaf in zip(simulator.names, simulator.leaves, strict=True)
    }

    def loss(held: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        value: Tensor = functional_call(simulator.loss_of, held, (x[None], y[None]))
        return value

    each = vmap(grad(loss), in_dims=(None, 0, 0), randomness="same")
    d = sum(leaf.numel() for leaf in simulator.leaves)
    recurrent = recurrent_layers(simulator.module)
    for start in range(0, data.n, max(1, _FLOATS // d)):
        part = slice(start, start + max(1, _FLOATS // d))
        with written_out(recurrent):  # fused ones cannot be mapped
            found = each(parameters, data.x[part], data.y[part])
        yield torch.cat([found[name].flatten(1) for name in simulator.names], dim=1)


def losses(simulator: Simulator, data: Dataset) -> Float[Tensor, " n"]:
    """Every sample's own loss at the simulator's model."""
    if _fused(simulator):
        with torch.no_grad():
            pairs = zip(data.x, data.y, strict=True)
            return torch.stack([simulator.loss_of(x[None], y[None]) for x, y in pairs])
    with torch.no_grad(), written_out(recurrent_layers(simulator.module)):
        each = vmap(lambda x, y: simulator.loss_of(x[None], y[None]), randomness="same")
        return torch.cat(
            [
                each(x, y)
                for x, y in zip(torch.split(data.x, 512), torch.split(data.y, 512), strict=True)
            ]
        )


def _fused(simulator: Simulator) -> bool:
    """Whether there are recurrent layers that stay fused, which torch.func cannot map: samples go
    one by one then.
    """
    return any(type(layer) is not nn.LSTM for layer in recurrent_layers(simulator.module))
