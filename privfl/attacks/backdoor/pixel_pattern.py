"""Pixel patterns: a mark stamped on images (Gu et al. 2017: BadNets), and one that attackers share
out (Xie et al. 2020: DBA).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from privfl.attacks.backdoor.trigger import Trigger
from privfl.core import ConfigError, Dataset, Divided, Examples

Box: TypeAlias = tuple[int, int, int, int]
"""Top row, left column, height, width, in pixels."""


@dataclass(frozen=True, kw_only=True)
class PixelPattern(Trigger):
    """Images with bright boxes on them are the target class (Gu, Dolan-Gavitt, Garg 2017: BadNets,
    section 3).

    ``boxes`` are stamped on every channel with ``value``, in the images' own (standardised) units;
    None is the brightest value in the data. Samples of the target class are left out, in training
    and in the measure. The attacker must also change inputs when the model is used.

    Seat: data. Knows its own data.

    >>> data = Dataset(torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), classes=2)
    >>> stamped = PixelPattern(target=1, boxes=((0, 0, 2, 2),)).samples(data)
    >>> stamped.y, bool((stamped.x[0, 0, :2, :2] == data.x.max()).all())
    (tensor([1]), True)
    """

    examples: ClassVar[Examples] = {"": {"target": 0}}

    boxes: tuple[Box, ...] = ((0, 0, 4, 4),)
    value: float | None = None

    def stamp(self, x: Tensor) -> Tensor:
        """Images [n, c, h, w] with the pattern.

        Raises:
            ConfigError: these are no images, or a box lies outside of them.
        """
        if x.ndim != 4:
            raise ConfigError(
                "a pixel pattern needs images [n, c, h, w], and these samples have shape"
                f" {tuple(x.shape[1:])}."
            )
        bright = (
            x.amax(dim=(0, 2, 3)).view(-1, 1, 1)
            if self.value is None
            else torch.tensor(self.value).to(x)
        )
        marked = x.clone()
        for top, left, height, width in self.boxes:
            if min(top, left) < 0 or top + height > x.shape[2] or left + width > x.shape[3]:
                raise ConfigError(
                    f"the box {(top, left, height, width)} lies outside of images of"
                    f" {x.shape[2]}x{x.shape[3]} pixels."
                )
            marked[:, :, top : top + height, left : left + width] = bright
        return marked

    def samples(self, dataset: Dataset) -> Dataset:
        """Every sample of another class than the target, stamped."""
        others = dataset.take((dataset.y != self.target).nonzero().flatten())
        if others.n == 0:
            return others
        value = (
            float(dataset.x.max()) if self.value is None and dataset.x.shape[1] == 1 else self.value
        )
        return replace(
            others,
            x=replace(self, value=value).stamp(others.x),
            y=torch.full_like(others.y, self.target),
        )


@dataclass(frozen=True, kw_only=True)
class DBA(PixelPattern, Divided):
    """A distributed backdoor: each attacker stamps one part of the pattern, and the model answers
    to the whole (Xie et al. 2020: DBA).

    The default boxes are the paper's four strips of 1 x 4 pixels for MNIST. With more attackers
    than boxes, boxes go round. The measure stamps the union. For the paper's scaled attack put it
    into `ModelReplacement`.

    Seat: data. Knows its own data; the parts are agreed beforehand.

    >>> [DBA(target=2).part(i, of=4).boxes for i in range(2)]
    [((0, 0, 1, 4),), ((0, 6, 1, 4),)]
    """

    examples: ClassVar[Examples] = {
        "": {"target": 0, "boxes": ((0, 0, 1, 2), (0, 4, 1, 2), (3, 0, 1, 2), (3, 4, 1, 2))}
    }

    boxes: tuple[Box, ...] = ((0, 0, 1, 4), (0, 6, 1, 4), (3, 0, 1, 4), (3, 6, 1, 4))

    def part(self, position: int, of: int) -> PixelPattern:
        """The local pattern of one attacker: its share of the boxes."""
        mine = (
            self.boxes[position % len(self.boxes) :: of]
            if of < len(self.boxes)
            else (self.boxes[position % len(self.boxes)],)
        )
        return PixelPattern(
            target=self.target,
            fraction=self.fraction,
            noise=self.noise,
            boxes=mine,
            value=self.value,
        )
