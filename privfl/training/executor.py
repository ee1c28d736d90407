"""How a cohort is trained: the protocol, and the plain way of one client after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import (
    Broadcast,
    ClientState,
    CoinSource,
    ConfigError,
    Dataset,
    LocalTraining,
    Vector,
    keep_freed_pages,
)
from privfl.training.buffers import WithStatistics, plain
from privfl.training.method import Method
from privfl.training.sgd import LocalSGD
from privfl.training.task import (
    FittingTraining,
    Result,
    Task,
    Trained,
    Workload,
    failed,
)

_SENT = 8
"""So many broadcasts an executor keeps on an accelerator at a time."""


@runtime_checkable
class Executor(Protocol):
    """A way to train a cohort. The same seed gives the same bits, executor by executor; between
    executors they agree to about 1e-5.

    What is sent, what clients remember and where deltas are written may lie on another device than
    the model: a broadcast is moved once, and so is each client's delta. What comes back lies where
    the deltas do.
    """

    def train(
        self,
        broadcast: Broadcast,
        tasks: Sequence[Task],
        out: Float[Tensor, "n d"],
        seeds: CoinSource,
    ) -> list[Result]:
        """Train every task's client and write its delta into its row of ``out``, whose rows may lie
        apart.

        A client that raises is a `Failed` with a row of NaN; the others are not touched by it. A
        client's chance is ``seeds.generator("training", round, client)``, whatever the order and
        the company.

        Raises:
            ConfigError: ``out`` has not one row of d values for each task.
        """
        ...

    def close(self) -> None:
        """Give back workers and memory. An executor that is closed trains no more."""
        ...


@runtime_checkable
class TrainsInTurn(Executor, Protocol):
    """An executor to which it is all the same with whom a client is trained: the bits are those of
    training it alone.
    """

    @property
    def together(self) -> int:
        """How many clients it is worth handing it at a time."""
        ...


def fits(broadcast: Broadcast, tasks: Sequence[Task], out: Tensor) -> None:
    """Refuse an output matrix that does not fit the tasks [tasks, d].

    Raises:
        ConfigError: not one row of d values for each task.
    """
    if out.shape != (len(tasks), len(broadcast.parameters)):
        raise ConfigError(
            f"{len(tasks)} clients with {len(broadcast.parameters)} parameters do not fit a matrix"
            f" {tuple(out.shape)}."
        )


class Sequential:
    """One client after the other in one model: works for every module, method and seat.

    ``channels_last`` lays batches of images out with their channels together: convolutions and
    pooling are often faster on them, other layers slower, and sums round differently.

    >>> from torch import nn
    >>> from privfl.core import Dataset, FlatModel, Seeds
    >>> from privfl.training import LocalSGD, cross_entropy
    >>> data = Dataset(torch.eye(4), torch.tensor([0, 1, 0, 1]), classes=2)
    >>> model = FlatModel(nn.Linear(4, 2))
    >>> out = torch.empty(1, model.d)
    >>> executor = Sequential(Workload(model, cross_entropy, LocalSGD(), data))
    >>> (done,) = executor.train(
    ...     Broadcast(0, model.read()), [Task(3)], out, Seeds(0)
    ... )
    >>> done.client, done.weight
    (3, 4.0)
    """

    def __init__(self, workload: Workload, *, channels_last: bool = False) -> None:
        keep_freed_pages()
        self.workload, self.channels_last = workload, channels_last
        self.trainer = plain(workload.method).on(workload.model, workload.loss)
        self._near: dict[int, tuple[Broadcast, Broadcast]] = {}

    def train(
        self,
        broadcast: Broadcast,
        tasks: Sequence[Task],
        out: Float[Tensor, "n d"],
        seeds: CoinSource,
    ) -> list[Result]:
        """Train every task's client; see `Executor.train`."""
        fits(broadcast, tasks, out)
        return [self.train_one(broadcast, task, out[row], seeds) for row, task in enumerate(tasks)]

    def train_one(self, broadcast: Broadcast, task: Task, out: Vector, seeds: CoinSource) -> Result:
        """Train one client; whatever it raises is its `Failed`."""
        device = self.workload.model.flat.device
        rng = seeds.generator("training", broadcast.version, task.client)
        try:
            sent = self.near(task.broadcast or broadcast)
            if out.device == device:
                return self._train_here(sent, task, out, rng)
            row = torch.empty_like(self.workload.model.flat)
            done = self._train_here(sent, replace(task, state=task.state.to(device)), row, rng)
            out.copy_(row)
            return done.to(out.device)
        except Exception as error:
            out.fill_(float("nan"))
            return failed(task, self.workload, f"{type(error).__name__}: {error}")

    def near(self, sent: Broadcast) -> Broadcast:
        """What was sent, on the device of the model: moved once, however many train from it."""
        device = self.workload.model.flat.device
        if device.type == "cpu":
            return sent.to(device)
        if id(sent) not in self._near:
            if len(self._near) >= _SENT:
                self._near.clear()
            self._near[id(sent)] = sent, sent.to(device)
        return self._near[id(sent)][1]

    def _train_here(
        self, sent: Broadcast, task: Task, out: Vector, rng: torch.Generator
    ) -> Trained:
        """Train where everything lies on the model's device."""
        own, work = task.method, self.workload
        trainer = self.trainer if own is None else own.on(work.model, work.loss)
        if not isinstance(work.method, WithStatistics):
            return _fit(trainer, sent, task, work, out, rng, self.channels_last)
        with work.method.at_work(work.model, sent, task.state) as left:
            done = _fit(trainer, sent, task, work, out, rng, self.channels_last)
            aux, state = left(done.state)
        return replace(done, state=state, aux={**done.aux, **aux})

    @property
    def together(self) -> int:
        """One: it trains one client at a time anyway (`TrainsInTurn`)."""
        return 1

    def close(self) -> None:
        """Nothing to give back."""


def _fit(
    trainer: LocalTraining,
    sent: Broadcast,
    task: Task,
    workload: Workload,
    out: Vector,
    rng: torch.Generator,
    channels_last: bool,
) -> Trained:
    if isinstance(trainer, FittingTraining):
        samples = task.samples(workload.data, channels_last)
        return trainer.fit(task.client, sent, samples, task.state, rng, out)
    data = task.data_of(workload.data)
    update, state, noisy = trainer(
        task.client, sent, data if task.index is None else data.take(task.index), task.state, rng
    )
    out.copy_(update.delta)
    aux: Mapping[str, Vector] = update.aux
    method = plain(workload.method)
    if not method.parts(len(out)).keys() <= aux.keys():
        own, state = _by_the_recipe(method, sent, task, workload.data, out)
        aux = {**own, **aux}
    return Trained(task.client, update.weight, state, aux, noisy)


def _by_the_recipe(
    method: Method, sent: Broadcast, task: Task, shared: Dataset, out: Vector
) -> tuple[Mapping[str, Vector], ClientState]:
    """The extra vectors and the memory of a client that trained its own way and claims that the
    recipe's steps on its samples led to the change ``out`` [d], which the method may rewrite as it
    does an honest one's.

    Raises:
        ConfigError: the method has no recipe that could be claimed.
    """
    if not isinstance(method, LocalSGD):
        raise ConfigError(
            f"client {task.client} trains its own way and hands out nothing beside its change, and"
            f" {type(method).__name__} needs {', '.join(method.parts(len(out)))} of every client:"
            " only local SGD and its relatives make these of a change."
        )
    batches = method.gradient.batches(task.samples(shared).n, method.plan, torch.Generator())
    return method.hand_out(out, sent, task.state, sum(1 for _ in batches))
