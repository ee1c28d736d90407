"""ResNet-20 with GroupNorm or BatchNorm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn

from privfl.core import ConfigError, unknown
from privfl.models.shapes import image

NORMS = ("group", "batch")


class Block(nn.Module):
    """Two 3x3 convolutions with normalisation and a shortcut around them, a 1x1 projection where
    the shape changes. ``norm`` makes a layer for so many channels.
    """

    def __init__(
        self, before: int, after: int, stride: int, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm1 = norm(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = norm(after)
        self.relu1 = nn.ReLU()
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), norm(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[B, before, h, w] to [B, after, h / stride, w / stride]."""
        inner: Tensor = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        out: Tensor = self.relu2(inner + self.shortcut(x))
        return out


def resnet20(
    shape: Sequence[int],
    classes: int,
    *,
    norm: Literal["group", "batch"] = "group",
    groups: int = 8,
    width: int = 16,
) -> nn.Sequential:
    """ResNet-20 for small images (He et al. 2016, section 4.2, shortcuts B) with GroupNorm (Wu, He
    2018) or, as in the paper, BatchNorm (Ioffe, Szegedy 2015): 272,474 weights either way.

    BatchNorm's running statistics are no parameters, and it mixes the samples of a batch:
    per-sample gradients are refused, and what becomes of the statistics has to be said
    (`privfl.training.WithStatistics`). ``groups`` are GroupNorm's; ``width`` is the number of
    channels of the first stage, 16 in the paper.

    Raises:
        ConfigError: ``groups`` does not divide ``width``; no such ``norm``.
        UnsupportedModel: samples that are no images of at least 8 x 8.

    >>> sum(p.numel() for p in resnet20((3, 32, 32), 10).parameters())
    272474
    >>> sum(p.numel() for p in resnet20((3, 32, 32), 10, norm="batch").parameters())
    272474
    """
    if norm not in NORMS:
        raise ConfigError(unknown("norm of resnet20", norm, NORMS))
    if width < 1:
        raise ConfigError(f"width must be at least 1, and is {width}.")
    if norm == "group" and (groups < 1 or width % groups):
        raise ConfigError(
            f"resnet20 has {width}, {2 * width} and {4 * width} channels, which groups={groups}"
            f" does not divide: use a divisor of {width}."
        )
    made = nn.BatchNorm2d if norm == "batch" else partial(nn.GroupNorm, groups)
    lead, colours, _, _ = image(shape, classes, model="resnet20", smallest=8)
    layers: list[nn.Module] = [
        *lead,
        nn.Conv2d(colours, width, 3, padding=1, bias=False),
        made(width),
        nn.ReLU(),
    ]
    before = width
    for after, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
        for number in range(3):
            layers.append(Block(before, after, stride if number == 0 else 1, made))
            before = after
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, classes)
    )
