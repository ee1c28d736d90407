"""Many copies of one multilayer perceptron as batched matrix products: forward, backward and step
written out, without autograd.

Everything reads [K, features, B]. Logits lie so in memory too, which makes the batch the vectorised
axis of a softmax over few classes; hidden layers lie batch-first in memory, where the products of
their wide weights measured up to twice as fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from privfl.core import FlatModel, UnsupportedModel

ACTIVATIONS: tuple[type[nn.Module], ...] = (nn.ReLU, nn.Tanh, nn.Sigmoid)


@dataclass(frozen=True, slots=True)
class Layer:
    """One linear layer: where its weight [outputs, inputs] and bias [outputs] begin in the flat
    vector, and the activation after it.
    """

    inputs: int
    outputs: int
    weight: int
    bias: int | None
    activation: type[nn.Module] | None


def layers_of(model: FlatModel) -> tuple[Layer, ...]:
    """The linear layers of an MLP.

    Raises:
        UnsupportedModel: anything but an ``nn.Sequential`` of Flatten, then Linear layers with
            ReLU, Tanh or Sigmoid between them.

    >>> [
    ...     layer.outputs
    ...     for layer in layers_of(
    ...         FlatModel(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    ...     )
    ... ]
    [3, 2]
    """
    if not isinstance(model.module, nn.Sequential):
        raise UnsupportedModel(
            "only an nn.Sequential can be trained stacked, and the model is a"
            f" {type(model.module).__name__}."
        )
    if any(not parameter.requires_grad for parameter in model.module.parameters()):
        raise UnsupportedModel("a model with frozen parameters cannot be trained stacked.")
    starts = {slot.name: slot.start for slot in model.slots}
    found: list[Layer] = []
    for name, module in model.module.named_children():
        kind = type(module)
        if (
            isinstance(module, nn.Flatten)
            and not found
            and module.start_dim == 1
            and module.end_dim == -1
        ):
            continue
        if isinstance(module, nn.Linear) and kind is nn.Linear and f"{name}.weight" in starts:
            found.append(
                Layer(
                    module.in_features,
                    module.out_features,
                    starts[f"{name}.weight"],
                    starts.get(f"{name}.bias"),
                    None,
                )
            )
        elif kind in ACTIVATIONS and found and found[-1].activation is None:
            last = found[-1]
            found[-1] = Layer(last.inputs, last.outputs, last.weight, last.bias, kind)
        else:
            raise UnsupportedModel(
                f"layer '{name}', a {kind.__name__}, cannot be trained stacked where it stands."
            )
    if not found or found[-1].activation is not None:
        raise UnsupportedModel(
            "only a network that ends with a linear layer can be trained stacked."
        )
    if (
        sum(
            layer.inputs * layer.outputs + (layer.bias is not None) * layer.outputs
            for layer in found
        )
        != model.d
    ):
        raise UnsupportedModel(
            "some of the model's parameters belong to no linear layer, so it cannot be trained"
            " stacked."
        )
    return tuple(found)


class Scratch:
    """Memory for one step of K copies on batches of B, reused by every step of that size or less:
    fresh memory costs page faults.
    """

    def __init__(
        self, layers: Sequence[Layer], copies: int, batch: int, device: torch.device
    ) -> None:
        sizes = [layers[0].inputs, *(layer.outputs for layer in layers)]
        self.layers = tuple(layers)
        self.values = [torch.empty(copies * size * batch, device=device) for size in sizes]
        self.slopes = [
            torch.empty(copies * layer.outputs * batch, device=device) for layer in layers
        ]


@dataclass(frozen=True, slots=True)
class _Level:
    """One layer's views: the activations before and after it, values in and out, slopes, its
    parameters, and where its gradient goes.
    """

    entered: type[nn.Module] | None
    activation: type[nn.Module] | None
    before: Tensor
    turned: Tensor
    after: Tensor
    slope: Tensor
    behind: Tensor | None
    weight: Tensor
    weight_turned: Tensor
    bias: Tensor | None
    to_weight: Tensor
    to_bias: Tensor | None


class Stack:
    """K copies of an MLP at work on batches of B: views of the parameters [K, d] and of a
    `Scratch`, so nothing is allocated in a step.

    ``x`` [K, B, inputs] is where the caller gathers its batch.
    """

    def __init__(
        self,
        scratch: Scratch,
        parameters: Float[Tensor, "K d"],
        gradient: Float[Tensor, "K d"] | None,
        batch: int,
    ) -> None:
        K, layers = len(parameters), scratch.layers
        self.x = scratch.values[0][: K * batch * layers[0].inputs].view(K, batch, layers[0].inputs)
        self.ones = parameters.new_ones(K, batch, 1)
        before, behind, entered = self.x.transpose(1, 2), None, None
        target = parameters if gradient is None else gradient
        self.levels: list[_Level] = []
        for layer, values, slopes in zip(layers, scratch.values[1:], scratch.slopes, strict=True):
            after, slope = (
                _shaped(flat, K, layer.outputs, batch, last=layer is layers[-1])
                for flat in (values, slopes)
            )
            weight, bias = _parameters(parameters, layer)
            to_weight, to_bias = _parameters(target, layer)
            turned, weight_turned = before.transpose(1, 2), weight.transpose(1, 2)
            self.levels.append(
                _Level(
                    entered,
                    layer.activation,
                    before,
                    turned,
                    after,
                    slope,
                    behind,
                    weight,
                    weight_turned,
                    bias,
                    to_weight,
                    to_bias,
                )
            )
            before, behind, entered = after, slope, layer.activation
        self.logits, self.slope = before, slope
        self.backwards = self.levels[::-1]

    def forward(self) -> None:
        """Logits from ``x``."""
        for level in self.levels:
            if level.bias is None:
                torch.bmm(level.weight, level.before, out=level.after)
            else:
                torch.baddbmm(level.bias, level.weight, level.before, out=level.after)
            if level.activation is nn.ReLU:
                level.after.relu_()
            elif level.activation is nn.Tanh:
                level.after.tanh_()
            elif level.activation is nn.Sigmoid:
                level.after.sigmoid_()

    def loss(
        self,
        labels: Int[Tensor, "K 1 B"],
        share: Float[Tensor, "K 1 B"] | None,
        minus: Tensor,
        into: Float[Tensor, "K 1 B"],
    ) -> None:
        """Each sample's log-likelihood into ``into``; the slope of their cross-entropies' sum is
        kept for `backward`.

        ``share`` weighs each sample in that sum (0 for padding), ``minus`` is -1 in the shape of
        ``labels``.
        """
        torch.log_softmax(self.logits, 1, out=self.logits)
        torch.gather(self.logits, 1, labels, out=into)
        torch.exp(self.logits, out=self.slope)
        self.slope.scatter_add_(1, labels, minus)
        if share is not None:
            self.slope.mul_(share)

    def backward(self, scale: float, keep: float) -> None:
        """Go back through the layers: target = keep * target + scale * gradient, where the target
        is what `Stack` was given.

        With the parameters themselves as the target this is a whole SGD step: keep = 1 - lr *
        weight_decay, scale = -lr.
        """
        for level in self.backwards:
            if level.behind is not None:  # before the step changes the weight
                torch.bmm(level.weight_turned, level.slope, out=level.behind)
                _through(level.entered, level.behind, level.before)
            torch.baddbmm(
                level.to_weight,
                level.slope,
                level.turned,
                beta=keep,
                alpha=scale,
                out=level.to_weight,
            )
            if level.to_bias is not None:
                torch.baddbmm(
                    level.to_bias, level.slope, self.ones, beta=keep, alpha=scale, out=level.to_bias
                )


def _shaped(flat: Tensor, K: int, features: int, batch: int, last: bool) -> Tensor:
    """The first values of a scratch vector as [K, features, B], batch-first in memory unless they
    are the last layer's.
    """
    flat = flat[: K * features * batch]
    return flat.view(K, features, batch) if last else flat.view(K, batch, features).transpose(1, 2)


def _parameters(flat: Tensor, layer: Layer) -> tuple[Tensor, Tensor | None]:
    """A layer's weights [K, outputs, inputs] and biases [K, outputs, 1] as views of [K, d]."""
    weight = flat[:, layer.weight : layer.weight + layer.inputs * layer.outputs].view(
        -1, layer.outputs, layer.inputs
    )
    return weight, (
        None
        if layer.bias is None
        else flat[:, layer.bias : layer.bias + layer.outputs].view(-1, layer.outputs, 1)
    )


def _through(activation: type[nn.Module] | None, slope: Tensor, value: Tensor) -> None:
    """Multiply a slope by an activation's derivative at the value that came out of it, in place."""
    if activation is nn.ReLU:
        torch.ops.aten.threshold_backward.grad_input(slope, value, 0, grad_input=slope)
    elif activation is nn.Tanh:
        torch.ops.aten.tanh_backward.grad_input(slope, value, grad_input=slope)
    elif activation is nn.Sigmoid:
        torch.ops.aten.sigmoid_backward.grad_input(slope, value, grad_input=slope)


def bytes_per_copy(layers: Sequence[Layer], d: int, batch: int, vectors: int) -> int:
    """What one copy keeps warm in cache: ``vectors`` vectors [d], its batch, and activations and
    slopes.

    >>> bytes_per_copy((Layer(784, 10, 0, 7840, None),), d=7850, batch=32, vectors=1)
    134312
    """
    return 4 * (
        vectors * d + batch * (layers[0].inputs + 2 * sum(layer.outputs for layer in layers))
    )


def fits_samples(layers: Sequence[Layer], shape: Sequence[int], flattens: bool) -> bool:
    """Whether samples of this shape reach the first layer as one flat vector of its width."""
    return math.prod(shape) == layers[0].inputs and (flattens or len(shape) == 1)
