"""What a sample's shape says: images with or without a channel axis, flat vectors, sequences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from privfl.core import ConfigError, UnsupportedModel, require, unknown

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


def activation(name: str) -> nn.Module:
    """A fresh activation layer.

    Raises:
        ConfigError: no such activation.

    >>> activation("tanh")
    Tanh()
    """
    if name not in ACTIVATIONS:
        raise ConfigError(unknown("activation", name, ACTIVATIONS))
    return ACTIVATIONS[name]()


def features(shape: Sequence[int], classes: int) -> int:
    """How many numbers a sample has, with shape and classes checked.

    Raises:
        ConfigError: an empty axis, or fewer than two classes.

    >>> features((3, 32, 32), classes=10)
    3072
    """
    require.at_least(2, classes=classes)
    for size in shape:
        require.at_least(1, size=size)
    return math.prod(shape)


def image(
    shape: Sequence[int], classes: int, *, model: str, smallest: int
) -> tuple[list[nn.Module], int, int, int]:
    """Layers that bring a batch to [B, channels, height, width], then channels, height and width.

    Raises:
        UnsupportedModel: the samples are no images, or smaller than ``smallest`` pixels.

    >>> image((8, 8), 10, model="cnn", smallest=4)
    ([Unflatten(dim=1, unflattened_size=(1, 8))], 1, 8, 8)
    """
    features(shape, classes)
    if len(shape) not in (2, 3):
        raise UnsupportedModel(
            f"model '{model}' reads images, (height, width) or (channels, height, width), and"
            f" samples have shape {tuple(shape)}: use mlp."
        )
    channels, height, width = shape if len(shape) == 3 else (1, *shape)
    if min(height, width) < smallest:
        raise UnsupportedModel(
            f"model '{model}' needs images of at least {smallest} x {smallest}, and got {height} x"
            f" {width}: use cnn or mlp."
        )
    lead: list[nn.Module] = [] if len(shape) == 3 else [nn.Unflatten(1, (1, height))]
    return lead, channels, height, width
