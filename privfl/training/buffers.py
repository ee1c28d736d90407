"""What becomes of the running statistics of BatchNorm and its like in a federation: averaged, each
client's own, or frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from torch import nn

from privfl.core import (
    BUFFERS,
    BatchGradient,
    Broadcast,
    Buffers,
    ClientState,
    ConfigError,
    Dataset,
    FlatModel,
    LocalRecipe,
    LocalTraining,
    Loss,
    NoisySteps,
    UnsupportedModel,
    Update,
    Vector,
    Weighting,
    is_private,
    running_layers,
)
from privfl.core.types import ClientId
from privfl.training.method import Method, State

COUNTS = "batches seen"
"""Under which a client with statistics of its own remembers its layers' counts of batches."""

Left: TypeAlias = Callable[[ClientState], tuple[Mapping[str, Vector], ClientState]]
"""What training leaves of the statistics: from a client's memory to the extra vector that it sends,
if any, and its memory with them.
"""


@dataclass(frozen=True)
class WithStatistics:
    """A method on a network with running statistics ``start`` [s] (`core.FlatModel.state`).

    ``policy`` says what becomes of them. "averaged": every client starts from the server's, trains
    on the statistics of its batches, and sends the change of the running ones as the extra vector
    ``buffers`` [s]: rows of its own, a bound of its own (``bound.parts: {buffers: ...}``), a
    protocol run and a release of its own, as FedAvg on networks with BatchNorm averages them.
    Whoever reads that vector of a client that took one step has the means and variances of its
    batch at every layer exactly (`attacks.BatchStatistics`). "local": they stay with the client
    (SiloBN: Andreux, du Terrail, Beguier, Tramel 2020, section 3), who remembers them from round to
    round, and the server has none: a model is evaluated with those of the samples that it is
    evaluated on (`adapt`), as SiloBN is at a site that took no part. "frozen": layers compute with
    the statistics that the model began with, in training too, and nothing of a batch leaves.

    Counts of batches are never sent: a client begins with the server's, or its own where they are
    local. A variance that noise, rounding or a liar would make zero or less stays as it was, and so
    does what would no longer be finite, which is post-processing: clients that start from infinite
    statistics have no change to send, ever again.

    ``variances`` [s] marks which of the statistics are variances. What a model is made into one of
    these by is `on_model`.
    """

    inner: Method
    policy: Buffers
    start: Vector = field(repr=False)
    variances: Vector = field(repr=False)

    @property
    def weighting(self) -> Weighting:
        """As the method's."""
        return self.inner.weighting

    @property
    def gradient(self) -> BatchGradient:
        """As the method's."""
        return self.inner.gradient

    @property
    def recipe(self) -> LocalRecipe:
        """As the method's."""
        return self.inner.recipe

    def on(self, model: FlatModel, loss: Loss) -> LocalTraining:
        """The client half, at work on this model."""
        return _Tracked(self, model, self.inner.on(model, loss))

    def parts(self, d: int) -> Mapping[str, int]:
        """The method's, and the change of the statistics where they are averaged."""
        own = {BUFFERS: len(self.start)} if self.policy == "averaged" else {}
        return {**self.inner.parts(d), **own}

    def init(self, d: int) -> State:
        """The method's memory, and the statistics that the model begins with."""
        own = {} if self.policy == "local" else {BUFFERS: self.start}
        return {**self.inner.init(d), **own}

    def broadcast(self, state: State) -> Mapping[str, Vector]:
        """The method's, and the server's statistics."""
        own = {} if self.policy == "local" else {BUFFERS: state[BUFFERS]}
        return {**self.inner.broadcast(_without(state)), **own}

    def combine(
        self, aggregate: Vector, aux: Mapping[str, Vector], state: State, cohort_fraction: float
    ) -> tuple[Vector, State]:
        """The method's; the statistics move by the aggregated change."""
        rest = {name: vector for name, vector in aux.items() if name != BUFFERS}
        change, memory = self.inner.combine(aggregate, rest, _without(state), cohort_fraction)
        if self.policy == "local":
            return change, memory
        now = state[BUFFERS]
        if self.policy == "averaged":
            moved = now + aux[BUFFERS].to(now.device)
            odd = (self.variances.to(now.device) > 0) & (moved <= 0)
            now = torch.where(odd | ~moved.isfinite(), now, moved)
        return change, {**memory, BUFFERS: now}

    def arrived(self, state: ClientState, sent: Mapping[str, Vector]) -> ClientState:
        """The method's: nothing hangs on the statistics."""
        return self.inner.arrived(state, sent)

    def stand(self, model: FlatModel, extra: Mapping[str, Vector]) -> None:
        """Give a model the server's statistics of a broadcast or of its memory; where they are
        local, those that it began with.
        """
        model.write_state(self.start if self.policy == "local" else self.held(extra))

    def held(self, extra: Mapping[str, Vector]) -> Vector:
        """The server's statistics [s] in a broadcast or in its memory.

        Raises:
            ConfigError: there are none.
        """
        if BUFFERS not in extra:
            raise ConfigError(
                "this network's training needs the server's running statistics in the broadcast:"
                " send ServerHalf.broadcast(state) as its aux."
            )
        return extra[BUFFERS]

    def stand_as(self, model: FlatModel, client: ClientState) -> None:
        """Give a model the statistics that a client keeps, or those that it would begin with."""
        model.write_state(client.vectors.get(BUFFERS, self.start))

    @contextmanager
    def at_work(self, model: FlatModel, broadcast: Broadcast, state: ClientState) -> Iterator[Left]:
        """A client's training: the model has the statistics that it starts from, and its layers
        compute with those of batches, or frozen ones. Afterwards layers and counts are as before.

        Raises:
            ConfigError: the broadcast holds no statistics, and they are not local.
        """
        layers = [layer for _, layer in running_layers(model.module)]
        modes, counts = [layer.training for layer in layers], model.counts.clone()
        if self.policy == "local":
            self.stand_as(model, state)
            model.counts.copy_(state.vectors.get(COUNTS, counts))
        else:
            self.stand(model, broadcast.aux)
        before = model.state.clone()

        def left(after: ClientState) -> tuple[Mapping[str, Vector], ClientState]:
            if self.policy == "averaged":
                return {BUFFERS: model.state - before}, after
            if self.policy == "frozen":
                return {}, after
            own = {BUFFERS: model.state.clone(), COUNTS: model.counts.clone()}
            return {}, ClientState({**after.vectors, **own})

        try:
            for layer in layers:
                layer.train(self.policy != "frozen")
            yield left
        finally:
            for layer, mode in zip(layers, modes, strict=True):
                layer.train(mode)
            model.counts.copy_(counts)


@dataclass(frozen=True, slots=True)
class _Tracked:
    """A client's training with its statistics around it."""

    method: WithStatistics
    model: FlatModel
    inner: LocalTraining

    def __call__(
        self,
        client: ClientId,
        broadcast: Broadcast,
        dataset: Dataset,
        state: ClientState,
        rng: torch.Generator,
    ) -> tuple[Update, ClientState, tuple[NoisySteps, ...]]:
        """Train once."""
        with self.method.at_work(self.model, broadcast, state) as left:
            update, after, noisy = self.inner(client, broadcast, dataset, state, rng)
            aux, kept = left(after)
        return (
            Update(update.client, update.delta, update.weight, {**update.aux, **aux}),
            kept,
            noisy,
        )


def on_model(method: Method, buffers: Buffers | None, model: FlatModel) -> Method:
    """The method for this model: itself where that has no running statistics, else with what
    becomes of them.

    Raises:
        UnsupportedModel: nothing says what becomes of them; or the gradient claims privacy for each
            sample.
        ConfigError: something does, and there are none.
    """
    layers = running_layers(model.module)
    if not layers:
        if buffers is not None:
            raise ConfigError(
                f"training.buffers is {buffers}, and the model has no running statistics: leave it"
                " out."
            )
        return method
    name, layer = layers[0]
    which = f"layer '{name}' is a {type(layer).__name__}"
    if is_private(method.gradient):
        raise UnsupportedModel(
            f"{which}, which mixes the samples of a batch, so no sample has a gradient of its own"
            " to clip, and its running statistics would leave without noise: per-sample privacy is"
            " impossible. Use GroupNorm."
        )
    if buffers is None:
        raise UnsupportedModel(
            f"{which}, whose running statistics are no parameters: say what becomes of them by"
            " training.buffers: averaged, local or frozen. Or use GroupNorm."
        )
    variances = torch.zeros_like(model.state)
    for slot in model.state_slots:
        if slot.name.endswith("running_var"):
            variances[slot.start : slot.stop] = 1
    return WithStatistics(method, buffers, model.state.clone().cpu(), variances.cpu())


def plain(method: Method) -> Method:
    """The method without what becomes of running statistics."""
    return method.inner if isinstance(method, WithStatistics) else method


def in_place_of(method: Method, other: Method) -> Method:
    """Another method in a method's place, with what becomes of its running statistics."""
    return replace(method, inner=other) if isinstance(method, WithStatistics) else other


@torch.no_grad()
def adapt(module: nn.Module, x: torch.Tensor, batch: int = 1024) -> None:
    """Give a module the means and variances of these samples [n, ...] as its running statistics:
    the average over batches, each with its parameters as they are (AdaBN: Li, Wang, Shi, Liu, Hou
    2017, algorithm 1). Labels are not looked at; modes and counts stay.

    >>> norm = nn.BatchNorm1d(1)
    >>> adapt(norm, torch.tensor([[1.0], [3.0]]))
    >>> norm.running_mean, norm.running_var
    (tensor([2.]), tensor([2.]))
    """
    layers = [layer for _, layer in running_layers(module)]
    before = [(layer.training, layer.momentum, layer.num_batches_tracked) for layer in layers]
    training = module.training
    module.eval()
    try:
        for layer in layers:
            layer.num_batches_tracked = torch.tensor(0)  # it averages over what it has counted
            layer.train()
            layer.momentum = None
        for part in torch.split(x, batch):
            module(part)
    finally:
        module.train(training)
        for layer, (mode, momentum, count) in zip(layers, before, strict=True):
            layer.train(mode)
            layer.momentum, layer.num_batches_tracked = momentum, count


def _without(state: State) -> State:
    return {name: value for name, value in state.items() if name != BUFFERS}
