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
    """One layer's views in one step: the activations before and after it, values in and out,
    slopes, its parameters, and where its gradient goes.
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

    def forward(self) -> None:
        """Values out of values in."""
        if self.bias is None:
            torch.bmm(self.weight, self.before, out=self.after)
        else:
            torch.baddbmm(self.bias, self.weight, self.before, out=self.after)

    def activate(self) -> None:
        """In place."""
        if self.activation is nn.ReLU:
            self.after.relu_()
        elif self.activation is nn.Tanh:
            self.after.tanh_()
        elif self.activation is nn.Sigmoid:
            self.after.sigmoid_()

    def back(self) -> None:
        """Slopes in from slopes out."""
        if self.behind is not None:
            torch.bmm(self.weight_turned, self.slope, out=self.behind)
            _through(self.entered, self.behind, self.before)

    def gather(self, ones: Tensor, scale: float, keep: float) -> None:
        """Target = keep * target + scale * gradient."""
        torch.baddbmm(
            self.to_weight, self.slope, self.turned, beta=keep, alpha=scale, out=self.to_weight
        )
        if self.to_bias is not None:
            torch.baddbmm(self.to_bias, self.slope, ones, beta=keep, alpha=scale, out=self.to_bias)


class Stack:
    """K copies of an MLP at work on batches of B: views of the parameters [K, d] and of a
    `Scratch`, so nothing is allocated in a step.

    ``x`` [K, steps B, inputs] is where the caller gathers the batches of so many steps, which
    `begin`, then `forward`, `loss` and `backward` of each, and `end` go through. Of more than one
    step the first layer W changes once, by all of them together: in step t its values are those
    of the W that was there at the beginning, W x_t, and what earlier steps would have brought it,
    scale * sum_s slope_s (x_s . x_t). A wide W, larger than a core's nearest caches, is then read
    and written once instead of in each step, by larger products.
    """

    def __init__(
        self,
        scratch: Scratch,
        parameters: Float[Tensor, "K d"],
        gradient: Float[Tensor, "K d"] | None,
        batch: int,
        steps: int = 1,
    ) -> None:
        K, many, inputs = len(parameters), steps * batch, scratch.layers[0].inputs
        target = parameters if gradient is None else gradient
        self.x = scratch.values[0][: K * many * inputs].view(K, many, inputs)
        self.ones = parameters.new_ones(K, many, 1)
        self.alike = parameters.new_empty(K, many, many) if steps > 1 else None
        spaces = zip(scratch.layers, scratch.values[1:], scratch.slopes, strict=True)
        shaped = [
            [
                _shaped(flat, K, layer.outputs, batch if n else many, layer is scratch.layers[-1])
                for flat in (values, slopes)
            ]
            for n, (layer, values, slopes) in enumerate(spaces)
        ]
        sides = [
            (*_parameters(parameters, layer), *_parameters(target, layer))
            for layer in scratch.layers
        ]

        def level(n: int, part: slice, before: Tensor, below: _Level | None) -> _Level:
            layer, (weight, bias, to_weight, to_bias) = scratch.layers[n], sides[n]
            after, slope = (side if n else side[:, :, part] for side in shaped[n])
            return _Level(
                below.activation if below else None,
                layer.activation,
                before,
                before.transpose(1, 2),
                after,
                slope,
                below.slope if below else None,
                weight,
                weight.transpose(1, 2),
                bias,
                to_weight,
                to_bias,
            )

        self.whole = level(0, slice(many), self.x.transpose(1, 2), None)
        self.parts = [slice(step * batch, (step + 1) * batch) for step in range(steps)]
        self.levels: list[list[_Level]] = []
        for part in self.parts:
            levels = [level(0, part, self.whole.before[:, :, part], None)]
            for n in range(1, len(scratch.layers)):
                levels.append(level(n, part, levels[-1].after, levels[-1]))
            self.levels.append(levels)
        self.logits, self.slope = self.levels[0][-1].after, self.levels[0][-1].slope

    def begin(self) -> None:
        """Look at all steps' batches in ``x``."""
        if self.alike is None:
            return
        self.whole.forward()
        torch.bmm(self.whole.turned, self.whole.before, out=self.alike)
        if self.whole.bias is not None:
            self.alike.add_(1.0)  # a bias is the weight of an input of 1

    def forward(self, step: int, scale: float) -> None:
        """A step's logits; ``scale`` as `backward` of the steps before was given it."""
        first, *others = self.levels[step]
        if self.alike is None:
            first.forward()
        elif step:
            part = self.parts[step]
            known = slice(part.start)
            torch.baddbmm(
                first.after,
                self.whole.slope[:, :, known],
                self.alike[:, known, part],
                alpha=scale,
                out=first.after,
            )
        first.activate()
        for level in others:
            level.forward()
            level.activate()

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

    def backward(self, step: int, scale: float, keep: float) -> None:
        """Go back through the layers: target = keep * target + scale * gradient, where the target
        is what `Stack` was given; of several steps, `end` does so for the first layer.

        With the parameters themselves as the target this is a whole SGD step: keep = 1 - lr *
        weight_decay, scale = -lr.
        """
        for level in reversed(self.levels[step]):
            level.back()  # before the step changes the weight
            if self.alike is None or level.behind is not None:
                level.gather(self.ones[:, : self.parts[0].stop], scale, keep)

    def end(self, scale: float) -> None:
        """Bring what several steps found to the first layer."""
        if self.alike is not None:
            self.whole.gather(self.ones, scale, 1.0)


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


TOGETHER = 32
"""So many samples of several steps go through a wide first layer at once: larger products have
more to gain from their own inner products than those cost.
"""


def steps_at_once(layers: Sequence[Layer], batch: int) -> int:
    """How many steps `Stack` should take together.

    >>> wide, last = Layer(784, 200, 0, None, nn.ReLU), Layer(200, 10, 156800, None, None)
    >>> steps_at_once((wide, last), batch=8), steps_at_once((wide, last), batch=32)
    (4, 1)
    """
    hidden = len(layers) > 1 and layers[0].outputs >= 2 * TOGETHER
    return max(1, TOGETHER // batch) if hidden else 1


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
