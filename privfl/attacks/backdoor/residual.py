"""A residual that hangs on the image that it is added to: two small convolutions, whose weights are
drawn from a key or learnt.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

HIDDEN = 8
"""Channels between the two convolutions."""
_PATCH = 9


def size(channels: int) -> int:
    """How many weights there are for images of so many channels.

    >>> size(1)
    153
    """
    return HIDDEN * (channels * _PATCH + 1) + channels * (HIDDEN * _PATCH + 1)


def fresh(channels: int, rng: torch.Generator) -> Float[Tensor, " p"]:
    """Random weights [p], as large as keeps the signal (He et al. 2015); no biases."""
    first = torch.randn(HIDDEN, channels * _PATCH, generator=rng) * math.sqrt(
        2 / (channels * _PATCH)
    )
    second = torch.randn(channels, HIDDEN * _PATCH, generator=rng) * math.sqrt(
        2 / (HIDDEN * _PATCH)
    )
    return torch.cat(
        [first.flatten(), torch.zeros(HIDDEN), second.flatten(), torch.zeros(channels)]
    )


def field(
    weights: Float[Tensor, " p"],
    x: Float[Tensor, "n c h w"],
    low: Float[Tensor, "c 1 1"],
    high: Float[Tensor, "c 1 1"],
) -> Float[Tensor, "n c h w"]:
    """W2 * relu(W1 * x), with a graph, of images whose pixels lie between ``low`` and ``high``."""
    c = x.shape[1]
    sizes = [HIDDEN * c * _PATCH, HIDDEN, c * HIDDEN * _PATCH, c]
    first, bias, second, last = torch.split(weights.to(x), sizes)
    around = 2 * (x - low) / (high - low).clamp(min=1e-12) - 1  # a channel may be constant
    hidden = functional.conv2d(around, first.view(HIDDEN, c, 3, 3), bias, padding=1).relu()
    return functional.conv2d(hidden, second.view(c, HIDDEN, 3, 3), last, padding=1)


def add(
    x: Float[Tensor, "n c h w"],
    residual: Float[Tensor, "n c h w"],
    epsilon: float,
    low: Float[Tensor, "c 1 1"],
    high: Float[Tensor, "c 1 1"],
) -> Float[Tensor, "n c h w"]:
    """Images with ``epsilon`` of the range of pixels times a residual in [-1, 1], cut to that
    range.
    """
    moved = x + epsilon * (high - low) * residual
    return torch.minimum(torch.maximum(moved, low), high)
