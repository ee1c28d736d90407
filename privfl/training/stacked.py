"""Stacked training: the parameters of several clients [K, d] trained at once by batched matrix
products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from privfl.core import Broadcast, CoinSource, Dataset, UnsupportedModel, cross_entropy
from privfl.training.copies import Copies, cut
from privfl.training.executor import Sequential, fits
from privfl.training.gradient import PlainGradient
from privfl.training.layers import (
    Scratch,
    Stack,
    bytes_per_copy,
    fits_samples,
    layers_of,
    steps_at_once,
)
from privfl.training.sgd import LocalSGD
from privfl.training.task import Result, Task, Workload

CACHE = 7 << 19
"""Bytes that a block of clients may keep warm on a CPU: more than a core's second-level cache of 1
or 2 MiB, as larger blocks are fewer calls.
"""
DEVICE = 1 << 30
"""The same where there is an accelerator, which wants large products."""


@dataclass(frozen=True, slots=True)
class _Client:
    """A task with its row of the output and the rows of the data set in each of its batches, padded
    to one length with a row of its own; and the model that it starts from.
    """

    task: Task
    row: int
    batches: Int[Tensor, "steps B"]
    sizes: tuple[int, ...]
    n: int
    sent: Broadcast


class Stacked:
    """Several clients at once, for softmax regression and multilayer perceptrons under plain local
    SGD and its relatives.

    Batches are those of `Sequential`, in the same order, and results agree with it to about 1e-5,
    but where a ReLU stands within rounding of its corner, and each way takes another side.
    Clients of different sizes share a block: short batches are padded with samples of weight 0, and
    a client that has finished leaves. Clients may start from different models: a block trains at
    one rate, from a row of its own for each. A client with a method of its own is trained as
    `Sequential` would.

    Raises:
        UnsupportedModel: the model, the loss, the data or one of the method's seats cannot be
            stacked; `Sequential` takes all of them.
    """

    def __init__(self, workload: Workload) -> None:
        method, model = workload.method, workload.model
        if not isinstance(method, LocalSGD):
            raise UnsupportedModel(
                "only local SGD and its relatives can be stacked, and the method is"
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
                "a gradient, an objective or an adversarial seat of its own cannot be stacked: use"
                " the sequential executor."
            )
        if workload.loss is not cross_entropy:
            raise UnsupportedModel(
                "only cross_entropy can be trained stacked: use the sequential executor."
            )
        self.workload, self.method, self.gradient, self.layers = (
            workload,
            method,
            gradient,
            layers_of(model),
        )
        why = self._unfit(workload.data)
        if why is not None:
            raise UnsupportedModel(why)
        self.alone = Sequential(workload)

    def _unfit(self, data: Dataset) -> str | None:
        flattens = isinstance(self.workload.model.module, nn.Sequential) and isinstance(
            self.workload.model.module[0], nn.Flatten
        )
        if data.x.dtype != torch.float32 or data.y.ndim != 1:
            return (
                f"only float32 features with one label each can be stacked, not {data.x.dtype} with"
                f" labels {tuple(data.y.shape)}."
            )
        if not fits_samples(self.layers, data.x.shape[1:], flattens):
            return (
                f"samples of shape {tuple(data.x.shape[1:])} do not fit a first layer of"
                f" {self.layers[0].inputs} inputs."
            )
        return None

    def train(
        self,
        broadcast: Broadcast,
        tasks: Sequence[Task],
        out: Float[Tensor, "n d"],
        seeds: CoinSource,
    ) -> list[Result]:
        """Train every task's client; see `Executor.train`."""
        fits(broadcast, tasks, out)
        results: dict[int, Result] = {}
        groups: dict[tuple[int, float], list[_Client]] = {}
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
            self._train_group(broadcast, group, out, seeds, results)
        return [results[row] for row in range(len(tasks))]

    def close(self) -> None:
        """Nothing to give back."""

    def _plan(self, broadcast: Broadcast, row: int, task: Task, seeds: CoinSource) -> _Client:
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
        return _Client(task, row, at.view(-1, width), sizes * len(passes), samples.n, sent)

    def _train_group(
        self,
        broadcast: Broadcast,
        group: list[_Client],
        out: Tensor,
        seeds: CoinSource,
        results: dict[int, Result],
    ) -> None:
        """Clients that share a data set: those of like length together, longest first, in blocks
        that stay in cache.
        """
        group.sort(key=lambda c: (len(c.sizes), c.batches.shape[1], c.n), reverse=True)
        data = group[0].task.data_of(self.workload.data)
        device, d = self.workload.model.flat.device, self.workload.model.d
        stepwise = bool(self.method.momentum or self.method.prox) or any(
            self.method.correction(c.sent, c.task.state) is not None for c in group
        )
        width = max(c.batches.shape[1] for c in group)
        ahead = 1
        if not stepwise and not self.method.weight_decay:
            ahead = steps_at_once(self.layers, width)
        vectors = 1 + stepwise + bool(self.method.momentum)
        warm = d // ahead if device.type == "cpu" else d  # touched once in so many steps
        each = bytes_per_copy(self.layers, warm, ahead * width, vectors)
        together = max(1, min(len(group), (CACHE if device.type == "cpu" else DEVICE) // each))
        together = -(-len(group) // -(-len(group) // together))  # blocks of even size
        scratch = Scratch(self.layers, together, width, device, ahead)
        space = Copies(self.layers, together, d, device, stepwise)
        apart = None if out.device == device else torch.empty(d, device=device)
        for first in range(0, len(group), together):
            block = group[first : first + together]
            try:
                losses = self._train_block(data, block, scratch, space, ahead)
            except (
                RuntimeError,
                IndexError,
            ):  # somebody's data: one by one, so that only its owner fails, and by name
                results.update(
                    {
                        c.row: self.alone.train_one(broadcast, c.task, out[c.row], seeds)
                        for c in block
                    }
                )
                continue
            # what a step alone never computes may overflow: inner products of huge samples, and
            # what a later model makes of one that pads a batch
            alone = ahead == 1 and _unpadded(block)
            ended = [True] * len(block) if alone else space.finite(len(block))
            for k, c in enumerate(block):
                if not ended[k]:
                    results[c.row] = self.alone.train_one(broadcast, c.task, out[c.row], seeds)
                    continue
                row = out[c.row] if apart is None else apart
                space.change(k, c.sent.parameters, row)
                steps, loss = len(c.sizes), losses[k] / len(c.sizes)
                done = self.method.finish(
                    c.task.client, row, c.sent, c.task.state, c.n, steps, loss
                )
                if apart is not None:
                    out[c.row].copy_(row)
                    done = done.to(out.device)
                results[c.row] = done

    def _train_block(
        self,
        data: Dataset,
        block: list[_Client],
        scratch: Scratch,
        space: Copies,
        ahead: int,
    ) -> list[float]:
        """Train a block in the first copies of ``space``, so many steps at a time as ``ahead``
        says; each client's sum of batch losses.
        """
        method, lr = self.method, self.method.rate(block[0].sent.version)
        start = _start(block)
        space.begin(start, len(block))
        at, share = _table(block)
        at, share = at.to(data.x.device), share.to(data.x.device)
        labels, nll, minus = data.y[at], torch.zeros_like(share), share.new_full((1, 1, 1), -1.0)
        step = (
            None
            if space.rows is None or space.gradient is None
            else _Step(
                method, start, block, space.rows[: len(block)], space.gradient[: len(block)], lr
            )
        )
        x = data.x.flatten(1)
        for began, ended, active, width, even in _stretches(block):
            mean = 1 / width if even else 1.0  # one factor for every sample, or each by its share
            scale, keep = (
                (-lr * mean, 1 - lr * method.weight_decay) if step is None else (mean, 0.0)
            )
            minus_one = minus.expand(active, 1, width)
            parameters, target = (cut(side, slice(active)) for side in (space.sides, space.target))
            stacks = {
                steps: Stack(scratch, parameters, target, width, steps)
                for steps in {min(ahead, ended - began), (ended - began) % ahead} - {0}
            }
            now = slice(began, ended), slice(active), slice(None), slice(width)
            rows, label, part, likelihood = (table[now] for table in (at, labels, share, nll))
            for first in range(0, ended - began, ahead):
                some = rows[first : first + ahead]
                stack = stacks[len(some)]
                order = some.transpose(0, 1).reshape(-1)  # a client's steps after one another
                torch.index_select(x, 0, order, out=stack.x.view(len(order), -1))
                stack.begin()
                for s in range(len(some)):
                    i = first + s
                    stack.forward(s, scale)
                    stack.loss(label[i], None if even else part[i], minus_one, likelihood[i])
                    stack.backward(s, scale, keep)
                    if step is not None:
                        step(active)
                stack.end(scale)
        losses: list[float] = nll.mul_(share).sum((0, 2, 3)).neg_().tolist()
        return losses


class _Step:
    """From gradients [K, d] to parameters [K, d], as `LocalTrainer` steps, for the first rows that
    are still at work.
    """

    def __init__(
        self,
        method: LocalSGD,
        start: Float[Tensor, "*K d"],
        block: list[_Client],
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


def _start(block: list[_Client]) -> Float[Tensor, "*K d"]:
    """The model [d] that all of a block start from, or each client's own [K, d]."""
    first = block[0].sent
    if all(c.sent is first for c in block):
        return first.parameters
    return torch.stack([c.sent.parameters for c in block])


def _unpadded(block: list[_Client]) -> bool:
    """Whether those who are at work have batches of one size in every step."""
    return all(c.sizes == block[0].sizes[: len(c.sizes)] for c in block)


def _stretches(block: list[_Client]) -> Iterator[tuple[int, int, int, int, bool]]:
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


def _table(block: list[_Client]) -> tuple[Int[Tensor, "S K 1 B"], Float[Tensor, "S K 1 B"]]:
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
