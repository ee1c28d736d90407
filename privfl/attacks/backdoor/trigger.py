"""What every backdoor is: inputs with a mark, the answer that the attacker wants to them, and how
to see whether it took.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from privfl.attacks.backdoor.measure import accuracy, success
from privfl.core import ConfigError, DataPoison, Dataset, Measured, require


@dataclass(frozen=True, kw_only=True)
class Trigger(DataPoison, Measured, ABC):
    """A backdoor with its target. By itself it is data poisoning: ``fraction`` of the client's
    samples make room for backdoor samples.

    ``noise`` is the standard deviation of Gaussian noise on each backdoor sample that is trained
    on, in the features' units.
    """

    target: int
    fraction: float = 0.3
    noise: float = 0.0

    def __post_init__(self) -> None:
        require.within(0, 1, fraction=self.fraction)
        require.at_least(0, noise=self.noise, target=self.target)

    @abstractmethod
    def samples(self, dataset: Dataset) -> Dataset:
        """Trigger samples that can be made of, or found in, this data, labelled with the target;
        possibly none.
        """

    def probes(self, test: Dataset) -> Dataset:
        """Trigger samples that the measure asks the model about."""
        return self.samples(test)

    def pieces(self, dataset: Dataset) -> list[tuple[Trigger, Dataset]]:
        """The backdoor with its samples: what an attacker's own training mixes into every batch."""
        return [(self, self.samples(dataset))]

    def clean(self, dataset: Dataset) -> Dataset:
        """The data without samples that carry the backdoor by nature: what the main task is
        measured on.
        """
        return dataset

    def part(self, position: int, of: int) -> Trigger:
        """The part of one of its clients: all of it, unless it declares itself divided."""
        return self

    def draw(self, samples: Dataset, count: int, rng: torch.Generator) -> Dataset:
        """``count`` backdoor samples drawn with replacement, with noise.

        Raises:
            ConfigError: there are none, or the target is no class of the data.
        """
        if self.target >= samples.classes:
            raise ConfigError(
                f"{type(self).__name__} has target {self.target}, and the classes are 0 to"
                f" {samples.classes - 1}."
            )
        if samples.n == 0:
            raise ConfigError(
                f"{type(self).__name__} finds no backdoor samples in the attacker's data: give it a"
                " client that holds some."
            )
        drawn = samples.take(torch.randint(samples.n, (count,), generator=rng))
        if not self.noise or not drawn.x.is_floating_point():
            return drawn
        return replace(
            drawn, x=drawn.x + (self.noise * torch.randn(drawn.x.shape, generator=rng)).to(drawn.x)
        )

    def poison_data(self, dataset: Dataset, rng: torch.Generator) -> Dataset:
        """The samples, ``fraction`` of them replaced by backdoor samples."""
        count = round(self.fraction * dataset.n)
        drawn = self.draw(self.samples(dataset), count, rng)
        chosen = torch.randperm(dataset.n, generator=rng)[:count]
        x, y = dataset.x.clone(), dataset.y.clone()
        x[chosen], y[chosen] = drawn.x, drawn.y
        return replace(dataset, x=x, y=y)

    def measure(self, module: nn.Module, test: Dataset) -> Mapping[str, float]:
        """``backdoor``: how often test inputs with the backdoor get the target; ``main``: the
        accuracy on test data without it.
        """
        return {
            "backdoor": success(module, self.probes(test).x, self.target),
            "main": accuracy(module, self.clean(test)),
        }
