"""MultiBackdoor backdoors at once (Bagdasaryan et al. 2020, section V-H)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from privfl.attacks.backdoor.measure import accuracy
from privfl.attacks.backdoor.pixel_pattern import PixelPattern
from privfl.attacks.backdoor.trigger import Trigger
from privfl.core import ConfigError, DataPoison, Dataset, Examples, Measured


@dataclass(frozen=True)
class MultiBackdoor(DataPoison, Measured):
    """MultiBackdoor backdoors, every one of which is in every batch (Bagdasaryan, Veit, Hua,
    Estrin, Shmatikov 2020, section V-H).

    The fraction of backdoor samples is the sum of theirs. The measure gives each by number and
    ``backdoor``, the least of them.

    Seat: data. Knows its own data.

    Raises:
        ConfigError: no backdoors, one that is none, or fractions that sum to more than 1.

    >>> from privfl.attacks.backdoor.pixel_pattern import PixelPattern
    >>> two = MultiBackdoor(
    ...     (
    ...         PixelPattern(target=0, fraction=0.2),
    ...         PixelPattern(target=1, fraction=0.1, boxes=((4, 4, 4, 4),)),
    ...     )
    ... )
    >>> round(two.fraction, 3)
    0.3
    """

    examples: ClassVar[Examples] = {
        "": {"backdoors": (PixelPattern(target=0), PixelPattern(target=1, boxes=((5, 5, 1, 1),)))}
    }

    backdoors: tuple[Trigger, ...]

    def __post_init__(self) -> None:
        for one in self.backdoors:
            if not isinstance(one, Trigger):
                raise ConfigError(
                    "backdoors are backdoors (pixel_pattern, semantic, ...), and one is"
                    f" {type(one).__name__}."
                )
        if not self.backdoors:
            raise ConfigError("several backdoors need at least one.")
        if self.fraction > 1:
            raise ConfigError(
                f"the backdoors' fractions sum to {self.fraction:g}, which is more than all"
                " samples."
            )

    @property
    def fraction(self) -> float:
        """Of backdoor samples."""
        return sum(backdoor.fraction for backdoor in self.backdoors)

    def samples(self, dataset: Dataset) -> Dataset:
        """The samples of all, one backdoor after the other."""
        return _joined([backdoor.samples(dataset) for backdoor in self.backdoors])

    def pieces(self, dataset: Dataset) -> list[tuple[Trigger, Dataset]]:
        """Each backdoor with its samples."""
        return [piece for backdoor in self.backdoors for piece in backdoor.pieces(dataset)]

    def clean(self, dataset: Dataset) -> Dataset:
        """The data without samples that carry one of them by nature."""
        for backdoor in self.backdoors:
            dataset = backdoor.clean(dataset)
        return dataset

    def part(self, position: int, of: int) -> MultiBackdoor:
        """The part of one of its clients: all of it."""
        return self

    def poison_data(self, dataset: Dataset, rng: torch.Generator) -> Dataset:
        """The samples, a part of them replaced by each backdoor's samples."""
        order = torch.randperm(dataset.n, generator=rng)
        x, y = dataset.x.clone(), dataset.y.clone()
        for backdoor in self.backdoors:
            count = round(backdoor.fraction * dataset.n)
            chosen, order = order[:count], order[count:]
            drawn = backdoor.draw(backdoor.samples(dataset), len(chosen), rng)
            x[chosen], y[chosen] = drawn.x, drawn.y
        return Dataset(x, y, dataset.classes, dataset.attributes, dataset.groups)

    def measure(self, module: nn.Module, test: Dataset) -> Mapping[str, float]:
        """``backdoor 1``, ``backdoor 2``, ...: each one's accuracy; ``backdoor``: the least of
        them; ``main``: without any of them.
        """
        each = [backdoor.measure(module, test)["backdoor"] for backdoor in self.backdoors]
        named = {f"backdoor {i}": value for i, value in enumerate(each, 1)}
        return {**named, "backdoor": min(each), "main": accuracy(module, self.clean(test))}


def _joined(parts: list[Dataset]) -> Dataset:
    return Dataset(
        torch.cat([part.x for part in parts]),
        torch.cat([part.y for part in parts]),
        max(part.classes for part in parts),
    )
