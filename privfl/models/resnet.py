"""ResNet-20 with GroupNorm."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from privfl.core import ConfigError
from privfl.models.shapes import image


class Block(nn.Module):
    """Two 3x3 convolutions with GroupNorm and a shortcut around them, a 1x1 projection where the
    shape changes.
    """

    def __init__(self, before: int, after: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(groups, after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, after)
        self.relu1 = nn.ReLU()
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.GroupNorm(groups, after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[B, before, h, w] to [B, after, h / stride, w / stride]."""
        inner: Tensor = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        out: Tensor = self.relu2(inner + self.shortcut(x))
        return out


def resnet20(shape: Sequence[int], classes: int, *, groups: int = 8) -> nn.Sequential:
    """ResNet-20 for small images (He et al. 2016, section 4.2, shortcuts B) with GroupNorm (Wu, He
    2018) for BatchNorm: 272,474 weights.

    BatchNorm's statistics neither average over clients nor allow per-sample gradients.

    Raises:
        ConfigError: ``groups`` does not divide 16 channels.
        UnsupportedModel: samples that are no images of at least 8 x 8.

    >>> sum(p.numel() for p in resnet20((3, 32, 32), 10).parameters())
    272474
    """
    if groups < 1 or 16 % groups:
        raise ConfigError(
            f"resnet20 has 16, 32 and 64 channels, which groups={groups} does not divide: use 1, 2,"
            " 4, 8 or 16."
        )
    lead, colours, _, _ = image(shape, classes, model="resnet20", smallest=8)
    layers: list[nn.Module] = [
        *lead,
        nn.Conv2d(colours, 16, 3, padding=1, bias=False),
        nn.GroupNorm(groups, 16),
        nn.ReLU(),
    ]
    before = 16
    for after, stride in ((16, 1), (32, 2), (64, 2)):
        for number in range(3):
            layers.append(Block(before, after, stride if number == 0 else 1, groups))
            before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
