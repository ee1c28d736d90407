"""Vmapped training: the steps of several clients' networks at once, by `torch.func.vmap`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional

from privfl.core import (
    Broadcast,
    CoinSource,
    Dataset,
    FlatModel,
    UnsupportedModel,
    Vector,
    recurrent_layers,
    written_out,
)
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
from privfl.training.mappable import IGNORED, Gradients, parts, refuse_unmappable
from privfl.training.sgd import LocalSGD
from privfl.training.task import Result, Task, Workload

MOST = 256
"""Clients of a block at most: where an accelerator has no room for so many, half as many are
tried.
"""


class Vmapped:
    """Several clients at once, for any network that `torch.func` can trace and that reads samples
    one by one (convolutions, GroupNorm, attention, LSTMs), under plain local SGD and its relatives.

    It is for accelerators, where small networks mostly wait for their kernels to be launched: K
    clients share each launch. On a CPU `Sequential` is faster. Batches, padding and company are as
    in `Stacked`, and results agree with `Sequential` to about 1e-5 a step, but where a ReLU stands
    within rounding of its corner, as some of a deep network's do in every step; a client with a
    method of its own is trained as that would. An LSTM is written out step by step, because the
    fused ones cannot be mapped. `mappable` says what a network is asked before: what differs by
    less than 1e-2 of a gradient and 1e-4 of a loss passes (what rounding takes over the corners of
    ReLUs).

    Raises:
        UnsupportedModel: the loss or one of the method's seats cannot be mapped, the network draws
            random numbers (dropout), mixes the samples of a batch, has running statistics
            (BatchNorm), writes into itself while it computes or has hooks on its gradients,
            torch.func cannot trace it, or no samples are there to try it on; `Sequential` takes all
            of them.

    >>> from privfl.core import Seeds
    >>> from privfl.models import cnn
    >>> from privfl.training import LocalSGD, Sequential, cross_entropy
    >>> _ = torch.manual_seed(0)
    >>> data = Dataset(torch.rand(12, 1, 16, 16), torch.arange(12) % 3, classes=3)
    >>> load = Workload(FlatModel(cnn((1, 16, 16), 3)), cross_entropy, LocalSGD(), data)
    >>> tasks = [Task(0, torch.arange(7)), Task(1, torch.arange(7, 12))]
    >>> sent, (mapped, plain) = Broadcast(0, load.model.read()), torch.empty(2, 2, load.model.d)
    >>> _ = Vmapped(load).train(sent, tasks, mapped, Seeds(0))
    >>> _ = Sequential(load).train(sent, tasks, plain, Seeds(0))
    >>> torch.allclose(mapped, plain, atol=1e-5)
    True
    """

    def __init__(self, workload: Workload) -> None:
        self.method, gradient = trained_together(workload, "vmapped")
        self.workload = workload
        if workload.data.y.is_floating_point():
            raise UnsupportedModel("soft labels cannot be mapped: use the sequential executor.")
        self.gradients = mapped_gradients(workload.model.module)
        refuse_unmappable(workload, self.gradients)
        self.blocks = InBlocks(workload, gradient, self.method)

    def train(
        self,
        broadcast: Broadcast,
        tasks: Sequence[Task],
        out: Float[Tensor, "n d"],
        seeds: CoinSource,
    ) -> list[Result]:
        """Train every task's client; see `Executor.train`."""
        return self.blocks.train(broadcast, tasks, out, seeds, lambda _: MOST, self._room)

    def close(self) -> None:
        """Nothing to give back."""

    def _room(self, group: Sequence[Planned], together: int) -> _Room:
        model = self.workload.model
        rows, gradient = (
            torch.empty(together, model.d, device=model.flat.device) for _ in range(2)
        )
        return _Room(self.method, model, self.gradients, rows, gradient)


@dataclass(frozen=True, slots=True)
class _Room:
    """Rows of parameters and gradients [K, d] (`cohort.Room`)."""

    method: LocalSGD
    model: FlatModel
    gradients: Gradients
    rows: Float[Tensor, "K d"]
    gradient: Float[Tensor, "K d"]

    def ended(self, block: Sequence[Planned]) -> list[bool]:
        """What a later model makes of a sample that pads a batch may be infinite."""
        if unpadded(block):
            return [True] * len(block)
        finite: list[bool] = self.rows[: len(block)].sum(1).isfinite().tolist()
        return finite

    def change(self, k: int, start: Vector, out: Vector) -> None:
        """What training changed in a row."""
        torch.sub(self.rows[k], start, out=out)

    def train(self, data: Dataset, block: Sequence[Planned]) -> list[float]:
        """Train a block in the first rows."""
        start = start_of(block)
        self.model.write(block[0].sent.parameters)  # frozen parameters and constants are its own
        rows, gradient = self.rows[: len(block)], self.gradient[: len(block)]
        rows.copy_(start.expand_as(rows))
        at, share = (each.squeeze(2).to(data.x.device) for each in table(block))
        lr = self.method.rate(block[0].sent.version)
        step = Step(self.method, start, block, rows, gradient, lr)
        total = torch.zeros(len(block), dtype=torch.float64, device=rows.device)
        for began, ended, active, width, _ in stretches(block):
            for s in range(began, ended):
                some, there = at[s, :active, :width], share[s, :active, :width] > 0
                found, losses = self.gradients(
                    parts(self.model, rows[:active]), data.x[some], data.y[some], there
                )
                torch.cat(
                    [found[slot.name].flatten(1) for slot in self.model.slots],
                    dim=1,
                    out=gradient[:active],
                )
                total[:active] += losses
                step(active)
        sums: list[float] = total.tolist()
        return sums


def mapped_gradients(module: nn.Module) -> Gradients:
    """The gradients of the mean cross-entropies of K networks of one architecture, each on its own
    batch; samples that are not there count nothing.
    """
    places = _places(module)

    def loss(
        parameters: dict[str, Tensor], x: Tensor, y: Tensor, there: Bool[Tensor, " B"]
    ) -> Tensor:
        at = {place: parameters[name] for place, name in places if name in parameters}
        logits: Tensor = functional_call(module, at, (x,), tie_weights=False)
        each = functional.cross_entropy(
            logits.flatten(0, -2), y.flatten(), ignore_index=IGNORED, reduction="none"
        )
        counted = there.view(-1, *[1] * (y.dim() - 1)).expand_as(y).flatten() & (
            y.flatten() != IGNORED
        )
        mean: Tensor = (each * counted).sum() / counted.sum()
        return mean

    mapped: Gradients = vmap(grad_and_value(loss), randomness="error")
    recurrent = recurrent_layers(module)

    def written(
        parameters: dict[str, Tensor], x: Tensor, y: Tensor, there: Bool[Tensor, "K B"]
    ) -> tuple[dict[str, Tensor], Tensor]:
        with written_out(recurrent):
            return mapped(parameters, x, y, there)

    return written if recurrent else mapped


def _places(module: nn.Module) -> list[tuple[str, str]]:
    """Where the parameters lie, each place once, and the name of the one that lies there. Of a
    layer that a network has under two names, ``functional_call`` would tie the two, put parameters
    into one place twice, and leave there what it found the second time.
    """
    first: dict[int, str] = {}
    return [
        (place := f"{above}.{own}".removeprefix("."), first.setdefault(id(p), place))
        for above, layer in module.named_modules()
        for own, p in layer._parameters.items()
        if p is not None
    ]
