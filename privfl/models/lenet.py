"""LeNet as the gradient-inversion literature uses it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from privfl.models.shapes import activation as activation_layer
from privfl.models.shapes import image


def lenet(shape: Sequence[int], classes: int, *, activation: str = "sigmoid") -> nn.Sequential:
    """Three 5x5 convolutions of 12 channels and one linear layer (Zhu, Liu, Han 2019: Deep Leakage
    from Gradients, section 4.1).

    With ``activation="sigmoid"`` weights and biases start uniform in [-0.5, 0.5] as theirs do: with
    smaller ones a sigmoid net passes hardly any gradient. Other activations keep PyTorch's start.

    Raises:
        UnsupportedModel: samples that are no images of at least 4 x 4.

    >>> sum(p.numel() for p in lenet((3, 32, 32), 10).parameters())
    15826
    """
    lead, colours, height, width = image(shape, classes, model="lenet", smallest=4)
    rows, columns = (height + 3) // 4, (width + 3) // 4
    net = nn.Sequential(
        *lead,
        nn.Conv2d(colours, 12, 5, stride=2, padding=2),
        activation_layer(activation),
        nn.Conv2d(12, 12, 5, stride=2, padding=2),
        activation_layer(activation),
        nn.Conv2d(12, 12, 5, padding=2),
        activation_layer(activation),
        nn.Flatten(),
        nn.Linear(12 * rows * columns, classes),
    )
    if activation == "sigmoid":
        for parameter in net.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5)
    return net
