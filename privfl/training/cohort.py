"""Clients that are trained together, block by block: who may be, in what order, and their steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from privfl.core import Broadcast, CoinSource, Dataset, UnsupportedModel, Vector, cross_entropy
from privfl.training.executor import Sequential, fits
from privfl.training.gradient import PlainGradient
from privfl.training.sgd import LocalSGD
from privfl.training.task import Result, Task, Workload


@dataclass(frozen=True, slots=True)
class Planned:
    """A task with its row of the output and the rows of the data set in each of its batches, padded
    to one length with a row of its own; and the model that it starts from.
    """

    task: Task
    row: int
    batches: Int[Tensor, "steps B"]
    sizes: tuple[int, ...]
    n: int
    sent: Broadcast


class Room(Protocol):
    """Memory in which one block after another is trained."""

    def train(self, data: Dataset, block: Sequence[Planned]) -> list[float]:
        """Train a block; each client's sum of batch losses."""
        ...

    def ended(self, block: Sequence[Planned]) -> list[bool]:
        """Who of the block just trained ended as it would have ended alone: what a step alone never
        computes may overflow, and such a client is trained again by itself.
        """
        ...

    def change(self, k: int, start: Vector, out: Vector) -> None:
        """What training changed in the k-th client's model, into ``out`` [d]."""
        ...


MakeRoom = Callable[[Sequence[Planned], int], Room]
"""Of a group and the most clients of a block: room for its blocks."""


def trained_together(workload: Workload, word: str) -> tuple[LocalSGD, PlainGradient]:
    """The method and the gradient of clients whose steps can be taken together.

    Raises:
        UnsupportedModel: another method, gradient, objective or loss, or an adversarial seat.
    """
    method = workload.method
    if not isinstance(method, LocalSGD):
        raise UnsupportedModel(
            f"only local SGD and its relatives can be {word}, and the method is"
            f" {type(method).__name__}."
        )
    gradient = method.gradient
    if (
        not isinstance(gradient, PlainGradient)
        or type(gradient) is not PlainGradient
        or method.objective is not None
        or method.adversarial is not None
    ):
        raise UnsupportedModel(
            f"a gradient, an objective or an adversarial seat of its own cannot be {word}: use"
            " the sequential executor."
        )
    if workload.loss is not cross_entropy:
        raise UnsupportedModel(
            f"only cross_entropy can be trained {word}: use the sequential executor."
        )
    return method, gradient


class InBlocks:
    """Trains a cohort in blocks of clients that share a data set and a rate, those of like length
    together and longest first. A client with a method, soft labels or vectors of its own is trained
    as `Sequential` would, and so is everybody of a block that fails, so that only the owner of what
    is wrong fails, and by name.
    """

    def __init__(self, workload: Workload, gradient: PlainGradient, method: LocalSGD) -> None:
        self.workload, self.gradient, self.method = workload, gradient, method
        self.alone = Sequential(workload)
        self._had_room: int | None = None  # so many of a block, where more had none

    def train(
        self,
        broadcast: Broadcast,
        tasks: Sequence[Task],
        out: Float[Tensor, "n d"],
        seeds: CoinSource,
        most: Callable[[Sequence[Planned]], int],
        room: MakeRoom,
    ) -> list[Result]:
        """Train every task's client; see `Executor.train`. ``most`` says how many of a group to
        train at a time, and ``room`` makes memory for that many.
        """
        fits(broadcast, tasks, out)
        results: dict[int, Result] = {}
        groups: dict[tuple[int, float], list[Planned]] = {}
        for row, task in enumerate(tasks):
            sent = task.broadcast or broadcast
            if (
                task.method is not None
                or task.samples(self.workload.data).n == 0
                or (task.data is not None and task.data.y.is_floating_point())
                or sent.parameters.shape != broadcast.parameters.shape
                or sent.aux.keys() != broadcast.aux.keys()
            ):
                results[row] = self.alone.train_one(broadcast, task, out[row], seeds)
            else:
                alike = id(task.data or self.workload.data), self.method.rate(sent.version)
                groups.setdefault(alike, []).append(self._plan(broadcast, row, task, seeds))
        for group in groups.values():
            group.sort(key=lambda c: (len(c.sizes), c.batches.shape[1], c.n), reverse=True)
            self._train_group(broadcast, group, out, seeds, results, most(group), room)
        return [results[row] for row in range(len(tasks))]

    def _plan(self, broadcast: Broadcast, row: int, task: Task, seeds: CoinSource) -> Planned:
        samples = task.samples(self.workload.data)
        rng = seeds.generator("training", broadcast.version, task.client)
        passes = list(self.gradient.passes(samples.n, self.method.plan, rng))
        width = min(self.method.plan.batch_size, samples.n)
        full, rest = divmod(len(passes[0]), width)
        sizes = (width,) * full + ((rest,) if rest else ())
        padding = len(sizes) * width - len(
            passes[0]
        )  # with position 0, a sample of the client's own
        positions = torch.stack(passes) if len(passes) > 1 else passes[0]
        positions = (functional.pad(positions, (0, padding)) if padding else positions).view(-1)
        at = positions if samples.index is None else samples.index.cpu().index_select(0, positions)
        sent = self.alone.near(task.broadcast or broadcast)
        task = replace(task, state=task.state.to(sent.parameters.device))
        return Planned(task, row, at.view(-1, width), sizes * len(passes), samples.n, sent)

    def _train_group(
        self,
        broadcast: Broadcast,
        group: list[Planned],
        out: Tensor,
        seeds: CoinSource,
        results: dict[int, Result],
        most: int,
        room: MakeRoom,
    ) -> None:
        data = group[0].task.data_of(self.workload.data)
        together = max(1, min(len(group), most, self._had_room or most))
        together = -(-len(group) // -(-len(group) // together))  # blocks of even size
        space: Room | None = None
        first = 0
        while first < len(group):
            block = group[first : first + together]
            losses: list[float] | None = None
            crowded = False  # an accelerator, which may have room for fewer
            try:
                space = room(group, together) if space is None else space
                losses = space.train(data, block)
            except torch.OutOfMemoryError:
                crowded = True
            except (RuntimeError, IndexError):
                pass
            if crowded:  # out here, where the error no longer holds what was given
                space = None
                if len(block) > 1:
                    self._had_room = together = (len(block) + 1) // 2
                    continue
            if losses is None or space is None:
                self._one_by_one(broadcast, block, out, seeds, results)
            else:
                self._hand_out(broadcast, block, out, seeds, results, space, losses)
            first += len(block)

    def _one_by_one(
        self,
        broadcast: Broadcast,
        block: list[Planned],
        out: Tensor,
        seeds: CoinSource,
        results: dict[int, Result],
    ) -> None:
        for c in block:
            results[c.row] = self.alone.train_one(broadcast, c.task, out[c.row], seeds)

    def _hand_out(
        self,
        broadcast: Broadcast,
        block: list[Planned],
        out: Tensor,
        seeds: CoinSource,
        results: dict[int, Result],
        space: Room,
        losses: list[float],
    ) -> None:
        device = self.workload.model.flat.device
        apart = None if out.device == device else torch.empty(out.shape[1], device=device)
        ended = space.ended(block)
        for k, c in enumerate(block):
            if not ended[k]:
                self._one_by_one(broadcast, [c], out, seeds, results)
                continue
            row = out[c.row] if apart is None else apart
            space.change(k, c.sent.parameters, row)
            steps, loss = len(c.sizes), losses[k] / len(c.sizes)
            done = self.method.finish(c.task.client, row, c.sent, c.task.state, c.n, steps, loss)
            if apart is not None:
                out[c.row].copy_(row)
                done = done.to(out.device)
            results[c.row] = done


class Step:
    """From gradients [K, d] to parameters [K, d], as `LocalTrainer` steps, for the first rows that
    are still at work.
    """

    def __init__(
        self,
        method: LocalSGD,
        start: Float[Tensor, "*K d"],
        block: Sequence[Planned],
        parameters: Tensor,
        gradient: Tensor,
        lr: float,
    ) -> None:
        self.method, self.parameters, self.gradient, self.lr = method, parameters, gradient, lr
        self.start = start.expand_as(parameters)
        self.velocity = torch.zeros_like(gradient) if method.momentum else None
        given = [method.correction(c.sent, c.task.state) for c in block]
        none = torch.zeros_like(gradient[0])  # some may have one and others not
        self.corrections = (
            None
            if all(c is None for c in given)
            else torch.stack([none if c is None else c for c in given])
        )

    def __call__(self, active: int) -> None:
        """Take a step with the first so many rows."""
        method, w, g = self.method, self.parameters[:active], self.gradient[:active]
        if method.weight_decay:
            g.add_(w, alpha=method.weight_decay)
        if method.prox:
            g.add_(w - self.start[:active], alpha=method.prox)
        if self.corrections is not None:
            g.add_(self.corrections[:active])
        if self.velocity is None:
            w.add_(g, alpha=-self.lr)
            return
        v = self.velocity[:active].mul_(method.momentum).add_(g)
        w.add_(g.add_(v, alpha=method.momentum) if method.nesterov else v, alpha=-self.lr)


def start_of(block: Sequence[Planned]) -> Float[Tensor, "*K d"]:
    """The model [d] that all of a block start from, or each client's own [K, d]."""
    first = block[0].sent
    if all(c.sent is first for c in block):
        return first.parameters
    return torch.stack([c.sent.parameters for c in block])


def unpadded(block: Sequence[Planned]) -> bool:
    """Whether those who are at work have batches of one size in every step."""
    return all(c.sizes == block[0].sizes[: len(c.sizes)] for c in block)


def stretches(block: Sequence[Planned]) -> Iterator[tuple[int, int, int, int, bool]]:
    """Runs of steps of one shape: first step, end, clients at work, width of their widest batch,
    whether all are as wide.
    """
    began, shape = 0, (0, 0, True)
    for s in range(len(block[0].sizes) + 1):
        sizes = [c.sizes[s] for c in block if s < len(c.sizes)]
        width = max(sizes, default=0)
        now = (len(sizes), width, min(sizes, default=0) == width)
        if now != shape:
            if s:
                yield began, s, *shape
            began, shape = s, now


def table(
    block: Sequence[Planned],
) -> tuple[Int[Tensor, "S K 1 B"], Float[Tensor, "S K 1 B"]]:
    """Rows of the data set in each step of each client, and each sample's share in its batch's
    mean; padding is a client's own sample.
    """
    steps, width = len(block[0].sizes), max(c.batches.shape[1] for c in block)
    if all(c.sizes == block[0].sizes for c in block):
        at = torch.stack([c.batches for c in block], dim=1)
        sizes = torch.tensor(block[0].sizes)[:, None].expand(steps, len(block))
    else:
        at = torch.stack([c.batches[0, 0] for c in block])[None, :, None].repeat(steps, 1, width)
        sizes = torch.ones(steps, len(block), dtype=torch.int64)
        for k, c in enumerate(block):
            at[: len(c.sizes), k, : c.batches.shape[1]] = c.batches
            sizes[: len(c.sizes), k] = torch.tensor(c.sizes)
    there = torch.arange(width) < sizes[:, :, None]
    return at[:, :, None], (there / sizes[:, :, None])[:, :, None]
