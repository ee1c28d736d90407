"""Label flip: honest training on wrong labels (Tolpegin et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from privfl.attacks.backdoor.measure import confusion
from privfl.core import ConfigError, DataPoison, Dataset, Measured


@dataclass(frozen=True, slots=True)
class LabelFlip(DataPoison, Measured):
    """Relabel samples of class ``source`` as ``target`` (Tolpegin, Truex, Gursoy, Liu 2020, section
    3.2).

    ``pairs`` flips several classes at once (FedSecurity: 3 to 9 and 2 to 1); without source, target
    and pairs, every class y becomes C - 1 - y (Fang et al. 2020, section 4). A flip moves one way:
    to swap two classes, give both pairs.

    Seat: data. Knows its own data.

    Raises:
        ConfigError: a source without a target, or one source with two targets.

    >>> data = Dataset(torch.zeros(3, 1), torch.tensor([0, 1, 2]), classes=3)
    >>> LabelFlip(source=1, target=2).poison_data(data, torch.Generator()).y
    tensor([0, 2, 2])
    """

    source: int | None = None
    target: int | None = None
    pairs: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if (self.source is None) != (self.target is None):
            raise ConfigError("a label flip has a source and a target, or neither.")
        if len({source for source, _ in self._pairs()}) < len(self._pairs()):
            raise ConfigError(
                f"a label flip sends every source class to one target, and got {self._pairs()}."
            )

    def _pairs(self) -> tuple[tuple[int, int], ...]:
        return (
            *self.pairs,
            *(
                ((self.source, self.target),)
                if self.source is not None and self.target is not None
                else ()
            ),
        )

    def flips(self, classes: int) -> dict[int, int]:
        """Target by source.

        Raises:
            ConfigError: there is no such class.
        """
        pairs = self._pairs() or tuple((y, classes - 1 - y) for y in range(classes))
        for label in (label for pair in pairs for label in pair):
            if not 0 <= label < classes:
                raise ConfigError(
                    f"a label flip names class {label}, and the classes are 0 to {classes - 1}."
                )
        return dict(pairs)

    def poison_data(self, dataset: Dataset, rng: torch.Generator) -> Dataset:
        """The samples with flipped labels."""
        becomes = torch.arange(dataset.classes, device=dataset.y.device)
        for source, target in self.flips(dataset.classes).items():
            becomes[source] = target
        return replace(dataset, y=becomes[dataset.y])

    def measure(self, module: nn.Module, test: Dataset) -> Mapping[str, float]:
        """``flipped``: the fraction of test samples of the source classes that the model takes for
        their targets.
        """
        pairs = tuple((s, t) for s, t in self.flips(test.classes).items() if s != t)
        counts = confusion(module, test)
        samples = sum(int(counts[source].sum()) for source, _ in pairs)
        return {
            "flipped": (
                sum(int(counts[source, target]) for source, target in pairs) / max(samples, 1)
            )
        }
