"""What optimised poison points share: which samples they take the place of, where they start, the
box that they stay in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.core import ConfigError, DataPoison, Dataset, Examples, require


@dataclass(frozen=True, slots=True)
class Bilevel(DataPoison, ABC):
    """Poison points that maximise the loss, on the attacker's held-out samples, of a linear model
    trained with them.

    A ``fraction`` of the samples is replaced. Points start at copies of samples with the label C -
    1 - y and ascend by ``ascents`` steps, each moving a point by ``step`` times the width of the
    box that the attacker's data lie in, and are projected to that box. A third of the samples are
    the attacker's validation set. ``decay`` is the model's L2 penalty.
    """

    examples: ClassVar[Examples] = {"": {"ascents": 3}}

    fraction: float = 0.2
    ascents: int = 10
    step: float = 0.1
    decay: float = 0.01

    def __post_init__(self) -> None:
        require.within(0, 1, fraction=self.fraction)
        require.at_least(0, ascents=self.ascents)
        require.positive(step=self.step, decay=self.decay)

    def poison_data(self, dataset: Dataset, rng: torch.Generator) -> Dataset:
        """The samples, a fraction of them replaced by poison points.

        Raises:
            ConfigError: features are tokens, labels are sequences, or there are fewer than 6
                samples.
        """
        if not dataset.x.is_floating_point() or dataset.y.ndim != 1:
            raise ConfigError(
                "optimised poison points need numbers with one label each, and these data are"
                " tokens."
            )
        if dataset.n < 6:
            raise ConfigError(
                "optimised poison points need at least 6 samples to learn from, and this client"
                f" has {dataset.n}."
            )
        order = torch.randperm(dataset.n, generator=rng)
        flat = dataset.x.flatten(1).double()
        held, train = order[: dataset.n // 3], order[dataset.n // 3 :]
        count = max(1, round(self.fraction * dataset.n))
        bad = order[-min(count, len(train) - 1) :]
        clean = train[: len(train) - len(bad)]
        low, high = flat.amin(dim=0), flat.amax(dim=0)
        points, labels = flat[bad].clone(), dataset.classes - 1 - dataset.y[bad]
        valid = flat[held], dataset.y[held]
        for _ in range(self.ascents):
            slope = self._slope(
                points, labels, (flat[clean], dataset.y[clean]), valid, dataset.classes
            )
            longest = slope.abs().amax(dim=1, keepdim=True).clamp(min=1e-300)
            points = (points + self.step * (high - low) * slope / longest).clamp(low, high)
        x, y = dataset.x.clone(), dataset.y.clone()
        x[bad] = points.to(x).view(-1, *x.shape[1:])
        y[bad] = labels
        return replace(dataset, x=x, y=y)

    @abstractmethod
    def _slope(
        self,
        points: Float[Tensor, "b d"],
        labels: Int[Tensor, " b"],
        clean: tuple[Float[Tensor, "n d"], Int[Tensor, " n"]],
        valid: tuple[Float[Tensor, "v d"], Int[Tensor, " v"]],
        classes: int,
    ) -> Float[Tensor, "b d"]:
        """The gradient of the validation loss in the poison points."""
