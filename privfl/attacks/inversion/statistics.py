"""Statistics of batches at layers that keep running ones: as a function of guessed samples, and as
an update's part shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privfl.attacks.inversion.twice import moments
from privfl.core import Vector, running_layers


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer with running statistics: how many channels it has, and the rate q of its running
    means (None: the mean over all batches since ``count``). ``ears`` are what its listeners have
    heard so far.
    """

    layer: nn.Module
    channels: int
    momentum: float | None
    count: int
    ears: list[list[Tensor]] = field(default_factory=list, compare=False)

    def rate(self, batch: int) -> float:
        """By how much of the way the running statistics go to those of batch number ``batch``."""
        return 1.0 / (self.count + batch + 1) if self.momentum is None else self.momentum


def replaced_by_batches(module: nn.Module) -> list[Norm]:
    """Let the layers with running statistics compute with their batches'; what they are."""
    found = []
    for _, layer in running_layers(module):
        count = 0 if layer.num_batches_tracked is None else int(layer.num_batches_tracked)
        found.append(Norm(layer, layer.num_features, layer.momentum, count))
        layer.track_running_stats = False
        layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    return found


def hold(module: nn.Module, statistics: Vector) -> None:
    """Write statistics [s] into a module's layers."""
    start = 0
    for _, layer in running_layers(module):
        for name in ("running_mean", "running_var"):
            stop = start + layer.num_features
            layer.register_buffer(name, statistics[start:stop].clone())
            start = stop


@dataclass(slots=True)
class Heard:
    """Means and variances of the batches that went through each layer, in order, with their
    graph.
    """

    norms: Sequence[Norm]
    by_layer: list[list[Tensor]] = field(default_factory=list)

    def batches(self) -> list[Float[Tensor, " s"]]:
        """The statistics of each pass [s], in the order of `core.FlatModel.state`."""
        return [torch.cat(parts) for parts in zip(*self.by_layer, strict=True)]

    def change(
        self, start: Float[Tensor, " s"], clients: int, l2: float = float("inf")
    ) -> Float[Tensor, " s"]:
        """The mean change [s] of running statistics from ``start`` that the passes make, an equal
        share of them each client's, clipped to ``l2`` at each.
        """
        passes = self.batches()
        each = len(passes) // clients
        changes = []
        for client in range(clients):
            now = start
            for at, batch in enumerate(passes[client * each : (client + 1) * each]):
                q = self.rates(at).to(batch)
                now = (1 - q) * now + q * batch
            change = now - start
            if l2 < float("inf"):
                change = change * (l2 / change.norm().clamp(min=1e-30)).clamp(max=1)
            changes.append(change)
        return torch.stack(changes).mean(dim=0)

    def rates(self, batch: int) -> Float[Tensor, " s"]:
        """The rate of each statistic at a batch."""
        return torch.cat([torch.full((2 * n.channels,), n.rate(batch)) for n in self.norms])

    def weight(self, steps: int) -> Float[Tensor, " s"]:
        """How much of the running statistics is of the last ``steps`` batches."""
        kept = torch.ones(sum(2 * norm.channels for norm in self.norms))
        for at in range(steps):
            kept = kept * (1 - self.rates(at))
        return 1 - kept


@contextmanager
def listening(norms: Sequence[Norm]) -> Iterator[Heard]:
    """Hear the statistics of every batch that goes through these layers meanwhile."""
    heard = Heard(norms, [[] for _ in norms])

    def hear(at: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            heard.by_layer[at].append(of_batch(layer, inputs[0]))

        return note

    for norm, ear in zip(norms, heard.by_layer, strict=True):
        norm.ears.append(ear)
    hooks = [norm.layer.register_forward_pre_hook(hear(at)) for at, norm in enumerate(norms)]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()
        for norm in norms:
            norm.ears.pop()


def of_batch(layer: nn.Module, z: Float[Tensor, "n c *rest"]) -> Float[Tensor, " s"]:
    """Mean and unbiased variance of each channel, as the layer adds them to its running ones: over
    the batch, or of each sample and then averaged where the layer normalises samples apart.
    """
    if isinstance(layer, nn.modules.instancenorm._InstanceNorm):
        flat = z.flatten(2)
        return torch.cat([flat.mean(dim=2).mean(dim=0), flat.var(dim=2).mean(dim=0)])
    given: tuple[Any, Any, Any] = layer.weight, layer.bias, layer.eps
    return moments(z, *given)


def by_layer(norms: Sequence[Norm], vector: Float[Tensor, " s"]) -> list[Tensor]:
    """The means and the variances of each layer, one after the other."""
    sizes = [size for norm in norms for size in (norm.channels, norm.channels)]
    return list(torch.split(vector, sizes))


def distance(
    norms: Sequence[Norm], a: Float[Tensor, " s"], b: Float[Tensor, " s"]
) -> Float[Tensor, ""]:
    """R_BN of Yin et al. (2021, equation 11): over layers, the L2 distance of means plus that of
    variances.
    """
    alike = [(size, 2 * len(list(run))) for size, run in groupby(one.channels for one in norms)]
    runs = torch.split(a - b, [size * many for size, many in alike])
    pairs = zip(runs, alike, strict=True)
    together: Tensor = torch.cat([run.view(-1, size).norm(dim=1) for run, (size, _) in pairs]).sum()
    return together
