"""Image transformations that were searched for: policies of ATS, by their numbers."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import ConfigError, Dataset
from privfl.data.seats.transforms import SIGNED, TRANSFORMS, Transform

_LIBRARY = """
invert 7, contrast 6, rotate 2, translate_x 9, sharpness 1,
sharpness 3, shear_y 2, translate_y 2, autocontrast 5, equalize 2,
shear_y 5, posterize 5, color 3, brightness 5, sharpness 9,
brightness 9, equalize 5, equalize 1, contrast 7, sharpness 5,
color 5, translate_x 5, equalize 7, autocontrast 8, translate_y 3,
sharpness 6, brightness 6, color 8, solarize 0, invert 0,
equalize 0, autocontrast 0, equalize 8, equalize 4, color 5,
equalize 5, autocontrast 4, solarize 4, brightness 3, color 0,
solarize 1, autocontrast 0, translate_y 3, translate_y 3, autocontrast 1,
solarize 1, equalize 5, invert 0, translate_y 3, autocontrast 1
"""
LIBRARY = tuple(
    (name, int(level)) for name, level in (entry.split() for entry in _LIBRARY.split(","))
)
"""The fifty transformations that a policy's numbers name, from 0, each with its level from 0 to 9
(those of the authors' code, after AutoAugment).
"""


@dataclass(frozen=True, slots=True)
class ATS:
    """Every image transformed by a policy of Automatic Transformation Search (Gao, Guo, Zhang, Qiu,
    Wen, Liu 2021, section 4), so that gradients would show a transformed image only.

    A policy is a list of numbers of the library's transformations, carried out in this order, as in
    "3-1-7"; of a hybrid, "3-1-7+43-18-18", each image takes one at random in each round. Shifts,
    shears, rotations and enhancements go one way or the other by a coin. The search for a policy is
    not here: these are the two that the paper reports for ResNet-20 on CIFAR-100.

    No guarantee: broken by `Untransforming` (after Balunović et al. 2022), which knows the policy,
    as everybody does. Each image is transformed by itself, by coins that hang on the round and on
    this image alone, so DP-SGD's sensitivity stands beside it.

    Args:
        policies: numbers joined by "-", policies by "+".

    Raises:
        ConfigError: a number out of the library.

    >>> [LIBRARY[at] for at in ATS("3-1-7").lists[0]]
    [('translate_x', 9), ('contrast', 6), ('translate_y', 2)]
    """

    broken_by: ClassVar[tuple[str, ...]] = ("untransforming",)
    alone: ClassVar[bool] = True

    policies: str = "3-1-7+43-18-18"

    def __post_init__(self) -> None:
        if not self.lists or not all(self.lists):
            raise ConfigError("ats needs a policy, as in '3-1-7'.")

    @property
    def lists(self) -> tuple[tuple[int, ...], ...]:
        """The policies' numbers.

        Raises:
            ConfigError: a number out of the library.
        """
        try:
            told = tuple(
                tuple(int(at) for at in policy.split("-"))
                for policy in str(self.policies).split("+")
            )
        except ValueError:
            raise ConfigError(
                f"ats.policies is numbers from 0 to {len(LIBRARY) - 1} joined by '-', and policies"
                f" joined by '+', as in '3-1-7+43-18-18', and is '{self.policies}'."
            ) from None
        for at in (at for policy in told for at in policy):
            if not 0 <= at < len(LIBRARY):
                raise ConfigError(
                    f"ats.policies names transformation {at}, and there are {len(LIBRARY)}, from 0."
                )
        return told

    def fits(self, dataset: Dataset) -> None:
        """Refuse what are no images of a known range.

        Raises:
            ConfigError: they are not.
        """
        if dataset.x.dim() != 4 or not dataset.x.is_floating_point() or dataset.span is None:
            raise ConfigError(
                "ats transforms images [channels, height, width] whose range the data set says"
                f" (Dataset.span), and these are {tuple(dataset.x.shape[1:])}"
                f"{'' if dataset.span else ' without a range'}: leave it out."
            )

    def encode(self, dataset: Dataset, rng: torch.Generator) -> Dataset:
        """Transformed images with their labels.

        Raises:
            ConfigError: see `fits`.
        """
        self.fits(dataset)
        shape = tuple(dataset.x.shape[1:])
        low, high = (
            dataset.x.new_tensor(side).view(-1, 1, 1).expand(shape) for side in dataset.span or ()
        )
        ways = self._ways()
        drawn = _coins_of(dataset.x, rng)
        policy = (drawn[:, 0] * len(self.lists)).long()
        coin = drawn[:, 1]
        x = dataset.x.clone()
        for number in range(len(self.lists)):
            mine = [way for way in ways if way[0] == number]
            which = (coin * len(mine)).long().clamp(max=len(mine) - 1)
            for position, way in enumerate(mine):
                at = ((policy == number) & (which == position)).nonzero().squeeze(1)
                if len(at):
                    at = at.to(x.device)
                    x[at] = _carried_out(way[1], low, high)(dataset.x[at])
        return replace(dataset, x=x)

    def maps(
        self, shape: tuple[int, ...], low: Tensor, high: Tensor
    ) -> tuple[Callable[[Tensor], Tensor], ...]:
        """Every policy with every outcome of its coins, on samples [n, *shape] between ``low`` and
        ``high`` [*shape].
        """
        return tuple(_carried_out(steps, low, high) for _, steps in self._ways())

    def _ways(self) -> list[tuple[int, tuple[Transform, ...]]]:
        """Each policy's number with its transformations, by every outcome of its coins."""
        ways: list[tuple[int, tuple[Transform, ...]]] = []
        for number, policy in enumerate(self.lists):
            sides = [(-1.0, 1.0) if LIBRARY[at][0] in SIGNED else (1.0,) for at in policy]
            for coins in itertools.product(*sides):
                steps = tuple(
                    functools.partial(TRANSFORMS[LIBRARY[at][0]], level=LIBRARY[at][1] / 9, way=way)
                    for at, way in zip(policy, coins, strict=True)
                )
                ways.append((number, steps))
        return ways


def _coins_of(x: Float[Tensor, "n *shape"], rng: torch.Generator) -> Float[Tensor, "n 2"]:
    """Two draws in [0, 1) for each image, by a key of the round and the image alone. Were they
    drawn in a row, a sample more or less would move all others', and whoever knows the coins would
    see more than one sample's gradients change.
    """
    key = torch.randint(256, (32,), generator=rng, dtype=torch.uint8).numpy().tobytes()
    rows = x.detach().cpu().contiguous().flatten(1).numpy()
    told = b"".join(blake2b(row.tobytes(), digest_size=8, key=key).digest() for row in rows)
    return torch.from_numpy(np.frombuffer(told, "<u4").reshape(-1, 2).astype(np.float64) / 2**32)


def _carried_out(
    steps: tuple[Transform, ...], low: Tensor, high: Tensor
) -> Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n c h w"]]:
    """Transformations one after the other, on features between ``low`` and ``high`` [c, h, w]."""

    def carried_out(x: Tensor) -> Tensor:
        least, most = low.to(x), high.to(x)
        unit = (x - least) / (most - least)
        for step in steps:
            unit = step(unit.clamp(0, 1)).clamp(0, 1)
        return least + unit * (most - least)

    return carried_out
