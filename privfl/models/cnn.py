"""A plain small convolutional net."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from privfl.models.shapes import image


def cnn(shape: Sequence[int], classes: int, *, channels: int = 16) -> nn.Sequential:
    """Two 3x3 convolutions with ReLU and 2x2 max-pooling, then one linear layer: 20k weights on
    MNIST, 26k on CIFAR-10.

    The shape of the CNN of McMahan et al. (2017) at an eightieth of its size.

    Raises:
        UnsupportedModel: samples that are no images of at least 4 x 4.

    >>> sum(p.numel() for p in cnn((28, 28), 10).parameters())
    20490
    """
    lead, colours, height, width = image(shape, classes, model="cnn", smallest=4)
    return nn.Sequential(
        *lead,
        nn.Conv2d(colours, channels, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * channels * (height // 4) * (width // 4), classes),
    )
