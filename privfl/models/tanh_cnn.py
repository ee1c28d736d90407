"""The tanh CNNs of the DP-SGD literature."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from privfl.models.shapes import image


def tanh_cnn(shape: Sequence[int], classes: int) -> nn.Sequential:
    """The small CNN with bounded activations that DP-SGD likes (Papernot et al. 2020, tables 5 and
    6; Tramèr, Boneh 2021, appendix).

    One channel: two strided convolutions, 26,010 weights on 28 x 28. Three channels: six
    convolutions, 550,570 weights on 32 x 32.

    Raises:
        UnsupportedModel: samples that are no images of at least 14 x 14.

    >>> sum(p.numel() for p in tanh_cnn((28, 28), 10).parameters())
    26010
    """
    lead, colours, height, width = image(shape, classes, model="tanh_cnn", smallest=14)
    return nn.Sequential(
        *lead,
        *(
            _grey(height, width, classes)
            if colours == 1
            else _coloured(colours, height, width, classes)
        ),
    )


def _grey(height: int, width: int, classes: int) -> list[nn.Module]:
    rows, columns = (_after(_after(side, 8, 3), 4, 0) for side in (height, width))
    return [
        nn.Conv2d(1, 16, 8, stride=2, padding=3),
        nn.Tanh(),
        nn.MaxPool2d(2, stride=1),
        nn.Conv2d(16, 32, 4, stride=2),
        nn.Tanh(),
        nn.MaxPool2d(2, stride=1),
        nn.Flatten(),
        nn.Linear(32 * rows * columns, 32),
        nn.Tanh(),
        nn.Linear(32, classes),
    ]


def _after(side: int, kernel: int, padding: int) -> int:
    """The side of an image after a convolution of stride 2 and a 2x2 pooling of stride 1."""
    return (side + 2 * padding - kernel) // 2


def _coloured(colours: int, height: int, width: int, classes: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for channels in (32, 64, 128):
        layers += [
            nn.Conv2d(colours, channels, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.Tanh(),
        ]
        layers.append(nn.MaxPool2d(2))
        colours = channels
    return [
        *layers,
        nn.Flatten(),
        nn.Linear(128 * (height // 8) * (width // 8), 128),
        nn.Tanh(),
        nn.Linear(128, classes),
    ]
