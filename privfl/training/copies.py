"""The parameters of several copies of one multilayer perceptron, layer by layer or in rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.training.layers import Layer, Sides

LINE = 16
"""Values of float32 in a cache line of 64 bytes."""


def sides_of(flat: Float[Tensor, "K d"], layers: Sequence[Layer]) -> Sides:
    """The layers' weights and biases as views of K flat vectors.

    >>> from torch import nn
    >>> layer = Layer(inputs=3, outputs=2, weight=0, bias=6, activation=None)
    >>> [(weight, bias)] = sides_of(torch.arange(8.0)[None], [layer])
    >>> weight.tolist(), bias.tolist()
    ([[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]], [[[6.0], [7.0]]])
    """

    def side(start: int, *shape: int) -> Tensor:
        return flat[:, start : start + math.prod(shape)].view(-1, *shape)

    return tuple(
        (
            side(layer.weight, layer.outputs, layer.inputs),
            None if layer.bias is None else side(layer.bias, layer.outputs, 1),
        )
        for layer in layers
    )


def cut(sides: Sides, copies: slice) -> Sides:
    """Some of the copies."""
    return tuple((weight[copies], None if bias is None else bias[copies]) for weight, bias in sides)


def _tensors(sides: Sides) -> list[Tensor]:
    return [side for both in sides for side in both if side is not None]


class Copies:
    """Memory for the parameters of K copies, and where a step goes (``target``).

    Steps are taken layer by layer, each layer's parameters in one piece: a batched product into a
    tensor with gaps between its matrices is one call for each of them. Or they are taken with
    whole gradients (``whole``): ``rows`` [K, d] beside ``gradient``, which begin at cache lines,
    as products into rows that do not took up to twice the time.
    """

    def __init__(
        self, layers: Sequence[Layer], copies: int, d: int, device: torch.device, whole: bool
    ) -> None:
        def empty(*shape: int) -> Tensor:
            return torch.empty(copies, *shape, device=device)

        self.layers = tuple(layers)
        self.rows: Tensor | None = None
        self.gradient: Tensor | None = None
        if whole:
            self.rows, self.gradient = (empty(-(-d // LINE) * LINE)[:, :d] for _ in range(2))
            self.sides = sides_of(self.rows, layers)
            self.target = sides_of(self.gradient, layers)
            return
        self.sides = self.target = tuple(
            (
                empty(layer.outputs, layer.inputs),
                None if layer.bias is None else empty(layer.outputs, 1),
            )
            for layer in layers
        )

    def begin(self, start: Float[Tensor, "*K d"], copies: int) -> None:
        """The first copies from one model [d], or each from its own."""
        given = sides_of(start.expand(copies, -1), self.layers)
        mine = cut(self.sides, slice(copies))
        for side, value in zip(_tensors(mine), _tensors(given), strict=True):
            side.copy_(value)

    def change(self, copy: int, start: Float[Tensor, " d"], out: Float[Tensor, " d"]) -> None:
        """What training changed in a copy, into ``out``."""
        mine = cut(self.sides, slice(copy, copy + 1))
        before, into = (sides_of(flat[None], self.layers) for flat in (start, out))
        for side, value, change in zip(*map(_tensors, (mine, before, into)), strict=True):
            torch.sub(side, value, out=change)

    def finite(self, copies: int) -> list[bool]:
        """Which of the first copies are finite, sums of weights included."""
        sums = [side.sum((1, 2)) for side in _tensors(cut(self.sides, slice(copies)))]
        found: list[bool] = torch.stack(sums).isfinite().all(0).tolist()
        return found
