"""Local training and the two seats inside it: how a batch's gradient is made, and what the loss
is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from privfl.core.dataset import Dataset
from privfl.core.flat import FlatModel
from privfl.core.privacy import Charge
from privfl.core.types import ClientId, Vector
from privfl.core.update import Broadcast, Update

Loss: TypeAlias = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(module, x, y) -> the batch's mean loss, a scalar with a graph."""


@dataclass(frozen=True, slots=True)
class ClientState:
    """What one client's training remembers between rounds, by name: control variates, momentum.
    Data, so a checkpoint can hold it.
    """

    vectors: Mapping[str, Vector] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """A round of training at a client: ``steps`` batches of ``batch_size``, or ``epochs`` over its
    data where ``steps`` is None.
    """

    batch_size: int
    epochs: int = 1
    steps: int | None = None


@runtime_checkable
class LocalTraining(Protocol):
    """One client's training: what was broadcast, its data, what it remembers, and chance; out come
    the update, memory and DP charges.
    """

    def __call__(
        self,
        client: ClientId,
        broadcast: Broadcast,
        dataset: Dataset,
        state: ClientState,
        rng: torch.Generator,
    ) -> tuple[Update, ClientState, tuple[Charge, ...]]:
        """Train once."""
        ...


@runtime_checkable
class BatchGradient(Protocol):
    """The gradient seat: how batches are drawn and how a batch becomes a gradient. DP-SGD fills it;
    plain SGD is the default.
    """

    def batches(self, n: int, plan: LocalPlan, rng: torch.Generator) -> Iterator[Tensor]:
        """Positions of each batch, out of n samples. A batch may be empty where the sampler is
        Poisson: it is still a step.
        """
        ...

    def __call__(self, model: FlatModel, loss: Loss, x: Tensor, y: Tensor) -> float:
        """Write the step's gradient into ``model.grad`` and return the batch's mean loss."""
        ...

    def charges(
        self, round: int, client: ClientId, n: int, plan: LocalPlan, steps: int
    ) -> tuple[Charge, ...]:
        """What ``steps`` such steps cost in privacy."""
        ...


@runtime_checkable
class Objective(Protocol):
    """The loss seat: another loss around the task's, which may look at where the round began
    (constrain-and-scale, FedProx).
    """

    def objective(self, loss: Loss, start: Vector) -> Loss:
        """The loss that local training minimises instead."""
        ...
