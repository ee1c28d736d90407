"""Local training and the two seats inside it: how a batch's gradient is made, and what the loss
is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, TypeAlias, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn

from privfl.core.dataset import Dataset
from privfl.core.flat import FlatModel
from privfl.core.privacy import NoisySteps
from privfl.core.threat import Coins
from privfl.core.types import ClientId, Vector
from privfl.core.update import Broadcast, Update

Loss: TypeAlias = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(module, x, y) -> the batch's mean loss, a scalar with a graph."""


Weighting: TypeAlias = Literal["samples", "uniform"]
"""Whether a client weighs its number of samples, or as much as every other."""


Buffers: TypeAlias = Literal["averaged", "local", "frozen"]
"""What becomes of a network's running statistics: averaged over clients, each client's own, or as
the model began with them.
"""
BUFFERS = "buffers"
"""The part of a round in which clients send the change of their running statistics, and the name
under which the server broadcasts its own.
"""


@dataclass(frozen=True, slots=True)
class ClientState:
    """What one client's training remembers between rounds, by name: control variates, momentum.
    Data, so a checkpoint can hold it.
    """

    vectors: Mapping[str, Vector] = field(default_factory=dict)

    def to(self, device: torch.device) -> ClientState:
        """The same memory with every vector on a device; itself where all lie there."""
        if all(vector.device == device for vector in self.vectors.values()):
            return self
        return ClientState({name: vector.to(device) for name, vector in self.vectors.items()})


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """A round of training at a client: ``steps`` batches of ``batch_size``, or ``epochs`` over its
    data where ``steps`` is None.
    """

    batch_size: int
    epochs: int = 1
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class LocalRecipe:
    """What everybody is told of a client's training, and an adaptive attack simulates: plain SGD
    where nothing else is said. ``prox`` and ``decay`` as in `training.LocalSGD`.

    >>> LocalRecipe(lr=0.5).plan
    LocalPlan(batch_size=32, epochs=1, steps=None)
    """

    lr: float = 1.0
    plan: LocalPlan = LocalPlan(batch_size=32)
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    prox: float = 0.0
    decay: float = 1.0


@runtime_checkable
class LocalTraining(Protocol):
    """One client's training: what was broadcast, its data, what it remembers, and chance; out come
    the update, memory and the noisy steps that were taken.
    """

    def __call__(
        self,
        client: ClientId,
        broadcast: Broadcast,
        dataset: Dataset,
        state: ClientState,
        rng: torch.Generator,
    ) -> tuple[Update, ClientState, tuple[NoisySteps, ...]]:
        """Train once."""
        ...


@runtime_checkable
class BatchGradient(Protocol):
    """The gradient seat: how batches are drawn and how a batch becomes a gradient. DP-SGD fills it;
    plain SGD is the default. ``private``: whether it claims privacy (`PrivateGradient`).
    """

    private: ClassVar[bool]

    def batches(self, n: int, plan: LocalPlan, rng: torch.Generator) -> Iterator[Tensor]:
        """Positions of each batch, out of n samples. A batch may be empty where the sampler is
        Poisson: it is still a step.
        """
        ...

    def __call__(self, model: FlatModel, loss: Loss, x: Tensor, y: Tensor) -> float | Tensor:
        """Write the step's gradient into ``model.grad`` and return the batch's mean loss: a number,
        or one in float64 on the model's device, for which nobody has to wait.
        """
        ...

    def noisy(self, n: int, plan: LocalPlan, steps: int) -> tuple[NoisySteps, ...]:
        """What ``steps`` such steps on a client's n samples were; none where there is no noise."""
        ...


@runtime_checkable
class PrivateGradient(BatchGradient, Protocol):
    """A gradient that claims privacy for each sample: clipped to ``l2``, noised, charged for."""

    @property
    def l2(self) -> int | float:
        """The clip of a sample's gradient."""
        ...

    @property
    def sampling(self) -> Coins:
        """Where its batches are drawn from."""
        ...

    def steps(self, n: int, plan: LocalPlan) -> int:
        """How many steps a plan has on n samples."""
        ...


def is_private(gradient: BatchGradient) -> TypeGuard[PrivateGradient]:
    """Whether a gradient declares that it claims privacy."""
    return gradient.private


Presenting: TypeAlias = Callable[[nn.Module, Loss, Tensor, Tensor], Iterator[Tensor]]
"""(module, loss, x, y) -> the samples [b, ...] that each step on a batch is taken on, one after the
other. Each step has been taken, with its gradient in them where they ask for one, before the next
are asked for.
"""


@runtime_checkable
class Perturbation(Protocol):
    """The sample seat of local training: a batch's samples are moved before their gradient is
    taken (adversarial training). ``alone``: where one sample is moved to hangs on no other, and
    each batch is stepped on once.
    """

    @property
    def alone(self) -> bool:
        """Whether clipping still bounds what one sample changes."""
        ...

    def begin(self) -> Presenting:
        """One training's perturbations, with what they remember of it."""
        ...


@runtime_checkable
class Objective(Protocol):
    """The loss seat: another loss around the task's, which may look at where the round began
    (constrain-and-scale, FedProx).
    """

    def objective(self, loss: Loss, start: Vector) -> Loss:
        """The loss that local training minimises instead."""
        ...
