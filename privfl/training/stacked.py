"""Stacked training: the parameters of several clients [K, d] trained at once by batched matrix
products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privfl.core import Broadcast, CoinSource, Dataset, UnsupportedModel, Vector
from privfl.training.cohort import (
    InBlocks,
    Planned,
    Step,
    start_of,
    stretches,
    table,
    trained_together,
    unpadded,
)
from privfl.training.copies import Copies, cut
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
            stacked; `Vmapped` takes other networks, and `Sequential` all of them.
    """

    def __init__(self, workload: Workload) -> None:
        self.method, gradient = trained_together(workload, "stacked")
        self.workload, self.layers = workload, layers_of(workload.model)
        why = self._unfit(workload.data)
        if why is not None:
            raise UnsupportedModel(why)
        self.blocks = InBlocks(workload, gradient, self.method)

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
        return self.blocks.train(broadcast, tasks, out, seeds, self._most, self._room)

    def close(self) -> None:
        """Nothing to give back."""

    def _stepwise(self, group: Sequence[Planned]) -> bool:
        """Whether steps need whole gradients."""
        return bool(self.method.momentum or self.method.prox) or any(
            self.method.correction(c.sent, c.task.state) is not None for c in group
        )

    def _shape(self, group: Sequence[Planned]) -> tuple[int, int, bool]:
        """The widest batch of a group, how many steps are taken at once, whether stepwise."""
        stepwise = self._stepwise(group)
        width = max(c.batches.shape[1] for c in group)
        at_once = not stepwise and not self.method.weight_decay
        return width, steps_at_once(self.layers, width) if at_once else 1, stepwise

    def _most(self, group: Sequence[Planned]) -> int:
        """As many as stay in cache."""
        width, ahead, stepwise = self._shape(group)
        on_cpu, d = self.workload.model.flat.device.type == "cpu", self.workload.model.d
        warm = d // ahead if on_cpu else d  # touched once in so many steps
        vectors = 1 + stepwise + bool(self.method.momentum)
        each = bytes_per_copy(self.layers, warm, ahead * width, vectors)
        return (CACHE if on_cpu else DEVICE) // each

    def _room(self, group: Sequence[Planned], together: int) -> _Room:
        width, ahead, stepwise = self._shape(group)
        device = self.workload.model.flat.device
        scratch = Scratch(self.layers, together, width, device, ahead)
        space = Copies(self.layers, together, self.workload.model.d, device, stepwise)
        return _Room(self.method, scratch, space, ahead)


@dataclass(frozen=True, slots=True)
class _Room:
    """Copies of the layers, and what their steps write (`cohort.Room`)."""

    method: LocalSGD
    scratch: Scratch
    space: Copies
    ahead: int

    def ended(self, block: Sequence[Planned]) -> list[bool]:
        """Inner products of huge samples may overflow, and what a later model makes of a sample
        that pads a batch.
        """
        alone = self.ahead == 1 and unpadded(block)
        return [True] * len(block) if alone else self.space.finite(len(block))

    def change(self, k: int, start: Vector, out: Vector) -> None:
        """See `Copies.change`."""
        self.space.change(k, start, out)

    def train(self, data: Dataset, block: Sequence[Planned]) -> list[float]:
        """Train a block in the first copies, so many steps at a time as ``ahead`` says."""
        method, lr, space = self.method, self.method.rate(block[0].sent.version), self.space
        start = start_of(block)
        space.begin(start, len(block))
        at, share = table(block)
        at, share = at.to(data.x.device), share.to(data.x.device)
        labels, nll, minus = data.y[at], torch.zeros_like(share), share.new_full((1, 1, 1), -1.0)
        step = (
            None
            if space.rows is None or space.gradient is None
            else Step(
                method, start, block, space.rows[: len(block)], space.gradient[: len(block)], lr
            )
        )
        x = data.x.flatten(1)
        for began, ended, active, width, even in stretches(block):
            mean = 1 / width if even else 1.0  # one factor for every sample, or each by its share
            scale, keep = (
                (-lr * mean, 1 - lr * method.weight_decay) if step is None else (mean, 0.0)
            )
            minus_one = minus.expand(active, 1, width)
            parameters, target = (cut(side, slice(active)) for side in (space.sides, space.target))
            stacks = {
                steps: Stack(self.scratch, parameters, target, width, steps)
                for steps in {min(self.ahead, ended - began), (ended - began) % self.ahead} - {0}
            }
            now = slice(began, ended), slice(active), slice(None), slice(width)
            rows, label, part, likelihood = (each[now] for each in (at, labels, share, nll))
            for first in range(0, ended - began, self.ahead):
                some = rows[first : first + self.ahead]
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
