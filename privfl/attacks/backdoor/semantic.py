"""Backdoors without a mark: real inputs that only the attacker mislabels (Bagdasaryan et al. 2020;
Wang et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from privfl.attacks.backdoor.trigger import Trigger
from privfl.core import ConfigError, Dataset, Examples, require


@dataclass(frozen=True, kw_only=True)
class Semantic(Trigger):
    """Inputs with a feature that occurs in nature get the target (Bagdasaryan, Veit, Hua, Estrin,
    Shmatikov 2020, section IV-A).

    Which inputs: those of class ``source``, with ``value`` in the attribute ``attribute``, and
    those that ``select`` marks in a bool tensor [n]; all conditions that are given hold together.
    The paper's noise on them is 0.05. The main task is measured on data without them; honest
    clients should hold none of them either.

    Seat: data. Knows its own data.

    Raises:
        ConfigError: no condition is given.

    >>> data = Dataset(
    ...     torch.zeros(3, 1),
    ...     torch.tensor([7, 7, 5]),
    ...     classes=10,
    ...     attributes={"crossed": torch.tensor([1, 0, 1])},
    ... )
    >>> Semantic(source=7, attribute="crossed", value=1, target=5).samples(data).y
    tensor([5])
    """

    examples: ClassVar[Examples] = {"": {"target": 0, "source": 1}}

    noise: float = 0.05
    source: int | None = None
    attribute: str | None = None
    value: int = 1
    select: Callable[[Dataset], Tensor] | None = None

    def __post_init__(self) -> None:
        Trigger.__post_init__(self)
        if self.source is None and self.attribute is None and self.select is None:
            raise ConfigError(
                "a semantic backdoor needs to know its inputs: give source, attribute and value, or"
                " select."
            )

    def marked(self, dataset: Dataset) -> Tensor:
        """Which samples [n] carry the feature.

        Raises:
            ConfigError: the data have no such attribute, or no class for each sample.
        """
        found = torch.ones(dataset.n, dtype=torch.bool, device=dataset.y.device)
        if self.source is not None:
            if dataset.y.ndim != 1:
                raise ConfigError(
                    f"a semantic backdoor of class {self.source} needs one class a sample, and"
                    f" these labels have shape {tuple(dataset.y.shape)}: give an attribute."
                )
            found &= dataset.y == self.source
        if self.attribute is not None:
            if self.attribute not in dataset.attributes:
                known = ", ".join(sorted(dataset.attributes)) or "none"
                raise ConfigError(
                    f"a semantic backdoor asks for the attribute '{self.attribute}', and the data"
                    f" have: {known}."
                )
            found &= (dataset.attributes[self.attribute] == self.value).to(found.device)
        if self.select is not None:
            found &= self.select(dataset).to(found.device)
        return found

    def samples(self, dataset: Dataset) -> Dataset:
        """The samples with the feature, labelled with the target."""
        mine = dataset.take(self.marked(dataset).nonzero().flatten())
        return replace(mine, y=torch.full_like(mine.y, self.target))

    def clean(self, dataset: Dataset) -> Dataset:
        """The samples without it."""
        return dataset.take((~self.marked(dataset)).nonzero().flatten())


@dataclass(frozen=True, kw_only=True)
class EdgeCase(Trigger):
    """Inputs from the tail of a class get the target (Wang, Sreenivasan et al. 2020: Attack of the
    tails, section 3).

    The tail is ``tail`` for training and ``tail_test`` for the measure, samples from elsewhere that
    look like class ``source`` but that nobody holds; or, without them, the ``quantile`` of the
    source class's samples that lie farthest from the class's mean, with every feature scaled by its
    spread.

    Seat: data. Knows its own data.

    Raises:
        ConfigError: only one of ``tail`` and ``tail_test``, or a number out of range.

    >>> data = Dataset(
    ...     torch.tensor([[0.0], [0.1], [0.2], [9.0]]), torch.zeros(4, dtype=torch.int64), classes=2
    ... )
    >>> EdgeCase(source=0, target=1, quantile=0.25).samples(data).x
    tensor([[9.]])
    """

    examples: ClassVar[Examples] = {"": {"target": 0, "source": 1, "quantile": 0.3}}

    source: int
    quantile: float = 0.05
    tail: Dataset | None = None
    tail_test: Dataset | None = None

    def __post_init__(self) -> None:
        Trigger.__post_init__(self)
        require.within(0, 1, quantile=self.quantile)
        if (self.tail is None) != (self.tail_test is None):
            raise ConfigError(
                "an edge case from elsewhere needs both tail (to train on) and tail_test (to"
                " measure with)."
            )

    def farthest(self, dataset: Dataset) -> Tensor:
        """Positions of the tail of the source class in this data."""
        own = (dataset.y == self.source).nonzero().flatten()
        count = round(self.quantile * len(own))
        if count == 0:
            return own[:0]
        x = dataset.x[own].flatten(1).double()
        scale = x.std(dim=0, correction=0)
        apart = (
            torch.where(scale > 0, (x - x.mean(dim=0)) / scale.clamp(min=1e-12), 0.0)
            .square()
            .sum(dim=1)
        )
        return own[apart.argsort(descending=True, stable=True)[:count]]

    def samples(self, dataset: Dataset) -> Dataset:
        """The tail, labelled with the target."""
        if self.tail is None:
            mine = dataset.take(self.farthest(dataset))
        else:
            mine = self.tail.to(dataset.x.device)
        return replace(mine, y=torch.full_like(mine.y, self.target))

    def clean(self, dataset: Dataset) -> Dataset:
        """The samples outside of the tail."""
        if self.tail is not None:
            return dataset
        kept = torch.ones(dataset.n, dtype=torch.bool, device=dataset.y.device)
        kept[self.farthest(dataset)] = False
        return dataset.take(kept.nonzero().flatten())

    def probes(self, test: Dataset) -> Dataset:
        """The tail that was held out."""
        if self.tail_test is None:
            tail = self.samples(test)
        else:
            tail = self.tail_test.to(test.x.device)
        return replace(tail, y=torch.full_like(tail.y, self.target))
