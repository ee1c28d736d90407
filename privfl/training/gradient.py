"""The plain gradient: shuffled batches, and one backward pass a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from privfl.core import FlatModel, LocalPlan, Loss, NoisySteps

WHOLE = 1 << 62
"""A batch size that holds any client's data: full-batch gradients."""


@dataclass(frozen=True, slots=True)
class PlainGradient:
    """The mean gradient of a batch, without any privacy.

    Epochs are shuffled passes whose last batch may be short. With ``steps``, each batch is
    ``batch_size`` samples (or all, where there are fewer) drawn without replacement, afresh each
    step.

    >>> plan, rng = LocalPlan(batch_size=2), torch.Generator().manual_seed(0)
    >>> [len(batch) for batch in PlainGradient().batches(5, plan, rng)]
    [2, 2, 1]
    """

    private: ClassVar[bool] = False

    def passes(self, n: int, plan: LocalPlan, rng: torch.Generator) -> Iterator[Tensor]:
        """Positions of each pass, a shuffled epoch or one step's draw, to be cut into batches of
        ``batch_size``.
        """
        for _ in range(plan.epochs if plan.steps is None else plan.steps):
            order = torch.randperm(n, generator=rng)
            yield order if plan.steps is None else order[: plan.batch_size]

    def batches(self, n: int, plan: LocalPlan, rng: torch.Generator) -> Iterator[Tensor]:
        """Positions of each batch."""
        for order in self.passes(n, plan, rng):
            yield from torch.split(order, min(plan.batch_size, n))

    def __call__(self, model: FlatModel, loss: Loss, x: Tensor, y: Tensor) -> float | Tensor:
        """Write the batch's mean gradient into ``model.grad``; its mean loss, which stays on an
        accelerator: reading it would wait for the step.
        """
        model.grad.zero_()
        value = loss(model.module, x, y)
        value.backward()  # type: ignore[no-untyped-call]
        return value.item() if value.device.type == "cpu" else value.detach().double()

    def noisy(self, n: int, plan: LocalPlan, steps: int) -> tuple[NoisySteps, ...]:
        """None: nothing here is private."""
        return ()
