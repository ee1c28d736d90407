"""The multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from privfl.core import require
from privfl.models.shapes import activation as activation_layer
from privfl.models.shapes import features


def mlp(
    shape: Sequence[int], classes: int, *, hidden: Sequence[int] = (200,), activation: str = "relu"
) -> nn.Sequential:
    """Linear layers with an activation between them; ``hidden=(200, 200)`` is the 2NN of McMahan et
    al. (2017).

    Raises:
        ConfigError: an empty hidden layer, or an unknown activation.

    >>> sum(p.numel() for p in mlp((28, 28), 10, hidden=(200, 200)).parameters())
    199210
    """
    width = features(shape, classes)
    layers: list[nn.Module] = [nn.Flatten()]
    for size in hidden:
        require.at_least(1, hidden=size)
        layers += [nn.Linear(width, size), activation_layer(activation)]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, classes))
