"""What an executor is asked to do for a client, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from privfl.core import (
    Broadcast,
    Buffers,
    ClientId,
    ClientState,
    ConfigError,
    Dataset,
    FlatModel,
    LocalTraining,
    Loss,
    NoisySteps,
    Trains,
    Update,
    Vector,
    is_private,
)
from privfl.training.buffers import WithStatistics, on_model
from privfl.training.method import Method

IMAGES = 4
"""Axes of a batch of images: samples, channels, height, width."""


@dataclass(frozen=True, slots=True)
class Samples:
    """A client's samples: the rows ``index`` of ``x`` and ``y`` (None: all of them). Nothing is
    copied until a batch is drawn. ``channels_last``: images [n, c, h, w] lie in batches with their
    channels together, which many convolutions are faster on; their values are the same.
    """

    x: Tensor
    y: Tensor
    index: Tensor | None = None
    channels_last: bool = False

    @property
    def n(self) -> int:
        """How many samples."""
        return len(self.x) if self.index is None else len(self.index)

    def near(self) -> Samples:
        """The same samples with ``index`` beside them on their device, moved once."""
        if self.index is None or self.index.device == self.x.device:
            return self
        return replace(self, index=self.index.to(self.x.device))

    def batch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Features [b, ...] and labels [b, ...] at these positions [b] of the client's samples."""
        at = positions.to(self.x.device if self.index is None else self.index.device)
        at = at if self.index is None else self.index.index_select(0, at).to(self.x.device)
        if not (self.channels_last and self.x.dim() == IMAGES):
            return self.x.index_select(0, at), self.y.index_select(0, at)
        (_, c, h, w), like = self.x.shape, self.x.detach()  # a batch written into has no gradient
        # Strides are said in full: a tensor of one channel has both memory formats.
        laid = torch.empty_strided(
            (len(at), c, h, w), (c * h * w, 1, w * c, c), dtype=like.dtype, device=like.device
        )
        return torch.index_select(like, 0, at, out=laid), self.y.index_select(0, at)


@dataclass(frozen=True, slots=True)
class Trained:
    """What one client's training left beside the row of deltas that it wrote; ``noisy`` are its
    noisy steps, ``loss`` is the mean over its batches (NaN if unknown).
    """

    client: ClientId
    weight: float
    state: ClientState = ClientState()
    aux: Mapping[str, Vector] = field(default_factory=dict)
    noisy: tuple[NoisySteps, ...] = ()
    loss: float = float("nan")

    def update(self, delta: Vector) -> Update:
        """The update that leaves training, with the delta [d] from the client's row."""
        return Update(self.client, delta, self.weight, self.aux)

    def to(self, device: torch.device) -> Trained:
        """The same with every vector on a device."""
        aux = {name: vector.to(device) for name, vector in self.aux.items()}
        return replace(self, state=self.state.to(device), aux=aux)


@dataclass(frozen=True, slots=True)
class Failed:
    """A client whose training raised: its row is NaN, so that it can never be averaged by
    mistake. ``noisy`` are the noisy steps that were planned of it.
    """

    client: ClientId
    why: str
    noisy: tuple[NoisySteps, ...] = ()


Result: TypeAlias = Trained | Failed


@runtime_checkable
class FittingTraining(LocalTraining, Protocol):
    """Local training that can write its delta [d] where it is told, without copying data or
    delta.
    """

    def fit(
        self,
        client: ClientId,
        broadcast: Broadcast,
        samples: Samples,
        state: ClientState,
        rng: torch.Generator,
        out: Vector,
    ) -> Trained:
        """Train once and write the delta into ``out``."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """One client's training in a round: positions of its samples in the shared data set, and what
    it remembers.

    ``index`` None is all of the data. ``data`` takes the shared data set's place (a poisoned
    client, which may still be indexed), ``broadcast`` the round's (a server that sends a client
    another model), ``method`` the cohort's (a client with its own objective).
    """

    client: ClientId
    index: Tensor | None = None
    state: ClientState = ClientState()
    data: Dataset | None = None
    broadcast: Broadcast | None = None
    method: Trains | None = None

    def samples(self, shared: Dataset, channels_last: bool = False) -> Samples:
        """Its samples."""
        data = self.data_of(shared)
        return Samples(data.x, data.y, self.index, channels_last)

    def data_of(self, shared: Dataset) -> Dataset:
        """What its positions refer to, on the device of the shared data set."""
        if self.data is None:
            return shared
        device = shared.x.device
        alike = self.data.x.device == device and self.data.y.device == device
        return self.data if alike else self.data.to(device)


@dataclass(frozen=True, slots=True)
class Workload:
    """What every executor works on: one model to train in, the loss, the method, and the data that
    all clients' positions refer to. ``buffers`` says what becomes of running statistics where the
    model has such; the method is then `WithStatistics`.

    Raises:
        UnsupportedModel, ConfigError: as `buffers.on_model`.
    """

    model: FlatModel
    loss: Loss
    method: Method
    data: Dataset
    buffers: Buffers | None = None

    def __post_init__(self) -> None:
        if isinstance(self.method, WithStatistics):
            return
        object.__setattr__(self, "method", on_model(self.method, self.buffers, self.model))


def failed(task: Task, workload: Workload, why: str) -> Failed:
    """A client whose training raised, with all noisy steps of its plan: nobody knows how many it
    took, and that it failed, and when, may hang on each of them.
    """
    method = workload.method
    gradient, n = method.gradient, task.samples(workload.data).n
    if not is_private(gradient) or n == 0:
        return Failed(task.client, why)
    plan = method.recipe.plan
    try:
        noisy = gradient.noisy(n, plan, gradient.steps(n, plan))
    except ConfigError:  # it refuses the plan, and did so before the first step
        noisy = ()
    return Failed(task.client, why, noisy)
