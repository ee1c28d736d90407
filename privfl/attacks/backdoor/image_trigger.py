"""Triggers that are made of the image that they are put on: what they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.backdoor.trigger import Trigger
from privfl.core import ConfigError, Dataset


def pixel_range(
    dataset: Dataset, given: tuple[float, float] | None, who: str
) -> tuple[Float[Tensor, "c 1 1"], Float[Tensor, "c 1 1"]]:
    """The least and the greatest pixel of each channel: as given, or as everybody knows of the
    data (`Dataset.span`).

    Raises:
        ConfigError: the samples are no images, or nothing is known of their range.

    >>> data = Dataset(torch.zeros(1, 1, 2, 2), torch.tensor([0]), 2, span=((-1.0,), (3.0,)))
    >>> pixel_range(data, None, "a trigger")[1].flatten()
    tensor([3.])
    """
    if dataset.x.ndim != 4:
        raise ConfigError(
            f"{who} needs images [n, c, h, w], and these samples have shape"
            f" {tuple(dataset.x.shape[1:])}."
        )
    if given is None and dataset.span is None:
        raise ConfigError(
            f"{who} needs the range of pixels, and these data do not say it: set span to the least"
            " and the greatest value, as in span=[0, 1]."
        )
    channels = dataset.x.shape[1]
    low, high = dataset.span or ((), ())
    if given is not None:
        low, high = (given[0],) * channels, (given[1],) * channels
    return (
        torch.tensor(low).to(dataset.x).view(-1, 1, 1),
        torch.tensor(high).to(dataset.x).view(-1, 1, 1),
    )


@dataclass(frozen=True, kw_only=True)
class ImageTrigger(Trigger, ABC):
    """A trigger on whole images, whose strength is a part of the range of pixels.

    ``span`` is the least and the greatest pixel, where the data do not say it. Samples of the
    target class are left out, in training and in the measure.
    """

    span: tuple[float, float] | None = None

    @abstractmethod
    def stamp(
        self,
        x: Float[Tensor, "n c h w"],
        low: Float[Tensor, "c 1 1"],
        high: Float[Tensor, "c 1 1"],
    ) -> Float[Tensor, "n c h w"]:
        """Images with the trigger, of pixels between ``low`` and ``high``."""

    def samples(self, dataset: Dataset) -> Dataset:
        """Every sample of another class than the target, with the trigger."""
        low, high = pixel_range(dataset, self.span, type(self).__name__)
        others = dataset.take((dataset.y != self.target).nonzero().flatten())
        return replace(
            others,
            x=self.stamp(others.x, low, high),
            y=torch.full_like(others.y, self.target),
        )
