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


Sides = tuple[tuple[Tensor, Tensor | None], ...]
"""Each layer's weights [K, outputs, inputs] and biases [K, outputs, 1]."""


class Scratch:
    """Memory for K copies' steps on batches of B, so many at once, reused by every step of that
    size or less: fresh memory costs page faults.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        copies: int,
        batch: int,
        device: torch.device,
        steps: int = 1,
    ) -> None:
        def flat(*shape: int) -> Tensor:
            return torch.empty(math.prod(shape), device=device)

        many = steps * batch
        self.layers = tuple(layers)
        self.x = flat(copies, many, layers[0].inputs)
        self.ones = torch.ones(copies * many, device=device)
        self.values = [flat(copies, layer.outputs, batch) for layer in layers]
        self.slopes = [flat(copies, layer.outputs, batch) for layer in layers]
        if steps > 1:
            self.entering, self.leaving = (flat(copies, many, layers[0].outputs) for _ in range(2))
            self.alike = flat(copies, many, many), flat(copies, many, many)


@dataclass(frozen=True, slots=True)
class _Level:
    """One layer's views in one step, with the factors of its products as they stand: values out
    are ``left right`` + bias; slopes in are ``slope_rows weight``; its gradients are ``slope
    before`` and the product ``sums`` with ones.
    """

    entered: type[nn.Module] | None
    activation: type[nn.Module] | None
    left: Tensor
    right: Tensor
    bias: Tensor | None
    after: Tensor
    slope: Tensor
    slope_rows: Tensor
    weight: Tensor
    before: Tensor
    behind: Tensor | None
    to_weight: Tensor
    to_bias: Tensor | None
    sums: tuple[Tensor, Tensor]

    def forward(self) -> None:
        """Values out of values in."""
        if self.bias is None:
            torch.bmm(self.left, self.right, out=self.after)
        else:
            torch.baddbmm(self.bias, self.left, self.right, out=self.after)

    def activate(self) -> None:
        """In place."""
        if self.activation is nn.ReLU:
            self.after.relu_()
        elif self.activation is nn.Tanh:
            self.after.tanh_()
        elif self.activation is nn.Sigmoid:
            self.after.sigmoid_()

    def back(self, into: Tensor | None) -> None:
        """Slopes in from slopes out, to where the layer below has its own or elsewhere."""
        if self.behind is not None:
            torch.bmm(self.slope_rows, self.weight, out=self.behind)
            _through(self.entered, self.behind, self.before, self.behind if into is None else into)

    def gather(self, scale: float, keep: float) -> None:
        """Target = keep * target + scale * gradient."""
        torch.baddbmm(
            self.to_weight, self.slope, self.before, beta=keep, alpha=scale, out=self.to_weight
        )
        if self.to_bias is not None:
            torch.baddbmm(self.to_bias, *self.sums, beta=keep, alpha=scale, out=self.to_bias)


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A step's part of what several share: what the W at their beginning gives it, where its slopes
    go, and how its samples are like those of the steps before, whose slopes are ``known``.
    """

    entering: Tensor
    leaving: Tensor
    alike: Tensor
    known: Tensor


class Stack:
    """K copies of an MLP at work on batches of B: views of their parameters, of where the step
    goes (the parameters themselves, or a gradient) and of a `Scratch`, so nothing is allocated in
    a step.

    ``x`` [K, steps B, inputs] is where the caller gathers the batches of so many steps, which
    `begin`, then `forward`, `loss` and `backward` of each, and `end` go through. Of more than one
    step the first layer W changes once, by all of them together: in step t its values are those
    of the W that was there at the beginning, W x_t, and what earlier steps would have brought it,
    scale * sum_s slope_s (x_s . x_t). A wide W, larger than a core's nearest caches, is then read
    and written once instead of in each step, by larger products.
    """

    def __init__(
        self, scratch: Scratch, parameters: Sides, target: Sides, batch: int, steps: int = 1
    ) -> None:
        K, many, layers = len(parameters[0][0]), steps * batch, scratch.layers

        def rows(flat: Tensor, n: int, features: int) -> Tensor:
            return flat[: K * n * features].view(K, n, features)

        def level(n: int, before: Tensor, batch: int, *spaces: Tensor) -> _Level:
            layer, last = layers[n], n == len(layers) - 1
            (weight, bias), (to_weight, to_bias) = parameters[n], target[n]
            after, slope = (
                rows(flat, layer.outputs, batch) if last else rows(flat, batch, layer.outputs)
                for flat in spaces
            )
            across, ones = slope.transpose(1, 2), rows(scratch.ones, batch, 1)
            sums = (slope, ones) if last else (ones.view(K, 1, batch), slope)
            if not last and bias is not None and to_bias is not None:
                bias, to_bias = bias.transpose(1, 2), to_bias.transpose(1, 2)
            return _Level(
                entered=layers[n - 1].activation if n else None,
                activation=layer.activation,
                left=weight if last else before,
                right=before.transpose(1, 2) if last else weight.transpose(1, 2),
                bias=bias,
                after=after,
                slope=slope if last else across,
                slope_rows=across if last else slope,
                weight=weight,
                before=before,
                behind=rows(scratch.slopes[n - 1], batch, layer.inputs) if n else None,
                to_weight=to_weight,
                to_bias=to_bias,
                sums=sums,
            )

        self.x = rows(scratch.x, many, layers[0].inputs)
        self.levels: list[_Level] = []
        for n, spaces in enumerate(zip(scratch.values, scratch.slopes, strict=True)):
            before = self.levels[-1].after if n else self.x[:, :batch]
            self.levels.append(level(n, before, batch, *spaces))
        self.logits, self.slope = self.levels[-1].after, self.levels[-1].slope
        self.products: list[tuple[Tensor, Tensor, Tensor]] = []
        self.ahead: list[_Ahead] = []
        if steps == 1:
            return
        self.whole = level(0, self.x, many, scratch.entering, scratch.leaving)
        # samples are compared with earlier ones alone: a quarter is left out
        half = -(-steps // 2) * batch
        for flat, first, end in zip(scratch.alike, (0, half), (half, many), strict=True):
            alike = flat[: K * (end - first) * end].view(K, end - first, end)
            self.products.append((self.x[:, first:end], self.x[:, :end].transpose(1, 2), alike))
            for start in range(first, end, batch):
                part = slice(start, start + batch)
                self.ahead.append(
                    _Ahead(
                        self.whole.after[:, part],
                        self.whole.slope_rows[:, part],
                        alike[:, start - first : start - first + batch, :start],
                        self.whole.slope_rows[:, :start],
                    )
                )

    def begin(self) -> None:
        """Look at all steps' batches in ``x``."""
        if not self.ahead:
            return
        torch.bmm(self.whole.left, self.whole.right, out=self.whole.after)
        for left, right, alike in self.products:
            torch.bmm(left, right, out=alike)
            if self.whole.bias is not None:
                alike.add_(1.0)  # a bias is the weight of an input of 1

    def forward(self, step: int, scale: float) -> None:
        """A step's logits; ``scale`` as `backward` of the steps before was given it."""
        first, *others = self.levels
        if not self.ahead:
            first.forward()
        else:
            ahead = self.ahead[step]
            if first.bias is None:
                first.after.copy_(ahead.entering)
            else:
                torch.add(ahead.entering, first.bias, out=first.after)
            if step:
                torch.baddbmm(first.after, ahead.alike, ahead.known, alpha=scale, out=first.after)
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
        for n in reversed(range(len(self.levels))):
            level = self.levels[n]
            # before the step changes the weight
            level.back(self.ahead[step].leaving if self.ahead and n == 1 else None)
            if n or not self.ahead:
                level.gather(scale, keep)

    def end(self, scale: float) -> None:
        """Bring what several steps found to the first layer."""
        if self.ahead:
            self.whole.gather(scale, 1.0)


def _through(
    activation: type[nn.Module] | None, slope: Tensor, value: Tensor, into: Tensor
) -> None:
    """A slope times an activation's derivative at the value that came out of it."""
    if activation is nn.ReLU:
        torch.ops.aten.threshold_backward.grad_input(slope, value, 0, grad_input=into)
    elif activation is nn.Tanh:
        torch.ops.aten.tanh_backward.grad_input(slope, value, grad_input=into)
    elif activation is nn.Sigmoid:
        torch.ops.aten.sigmoid_backward.grad_input(slope, value, grad_input=into)
    elif into is not slope:
        into.copy_(slope)


TOGETHER = 40
"""So many samples of several steps go through a wide first layer at once: larger products have
more to gain from their own inner products than those cost. 32 to 64 measured alike.
"""
PAIRED = 32
"""Batches up to this size go two at once, at least."""


def steps_at_once(layers: Sequence[Layer], batch: int) -> int:
    """How many steps `Stack` should take together.

    >>> wide, last = Layer(784, 200, 0, None, nn.ReLU), Layer(200, 10, 156800, None, None)
    >>> [steps_at_once((wide, last), batch) for batch in (8, 32, 64)]
    [5, 2, 1]
    """
    hidden = len(layers) > 1 and layers[0].outputs >= 2 * PAIRED
    return max(2 if batch <= PAIRED else 1, TOGETHER // batch) if hidden else 1


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
