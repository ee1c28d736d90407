"""Statistics of batches at layers that keep running ones: as a function of guessed samples, and as
an update's part shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from math import prod
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
    """Means and variances of the batches that went through each layer, in order, with their graph:
    of none through a layer that the network does not use, of several a pass through one that it
    uses again.
    """

    norms: Sequence[Norm]
    by_layer: list[list[Tensor]] = field(default_factory=list)

    def batches(self) -> list[Float[Tensor, " s"]]:
        """The statistics of each pass [s], where each went through every layer once."""
        return [torch.cat(parts) for parts in zip(*self.by_layer, strict=True)]

    def mean(self, otherwise: Float[Tensor, " s"]) -> Float[Tensor, " s"]:
        """The mean of all batches at each layer [s], in the order of `core.FlatModel.state`; where
        none went through one, what stands there in ``otherwise``.
        """
        parts = zip(self.by_layer, self._parted(otherwise), strict=True)
        return torch.cat([torch.stack(told).mean(dim=0) if told else own for told, own in parts])

    def change(
        self, start: Float[Tensor, " s"], clients: int, l2: float = float("inf")
    ) -> Float[Tensor, " s"]:
        """The mean change [s] of running statistics from ``start`` that the passes make, an equal
        share of them each client's, clipped to ``l2`` at each.
        """
        changes = []
        for client in range(clients):
            moved = []
            for norm, told, own in zip(self.norms, self.by_layer, self._parted(start), strict=True):
                each, now = len(told) // clients, own
                for at, batch in enumerate(told[client * each : (client + 1) * each]):
                    q = norm.rate(at)
                    now = (1 - q) * now + q * batch
                moved.append(now - own)
            change = torch.cat(moved)
            if l2 < float("inf"):
                change = change * (l2 / change.norm().clamp(min=1e-30)).clamp(max=1)
            changes.append(change)
        return torch.stack(changes).mean(dim=0)

    def weight(self, clients: int) -> Float[Tensor, " s"]:
        """How much of each client's running statistics is of these batches."""
        return weight(self.norms, [len(told) // clients for told in self.by_layer])

    def _parted(self, statistics: Float[Tensor, " s"]) -> tuple[Tensor, ...]:
        return torch.split(statistics, [2 * norm.channels for norm in self.norms])


def unmoved(norms: Sequence[Norm]) -> Float[Tensor, " s"]:
    """The running statistics of layers that no batch went through."""
    return torch.cat([torch.arange(2.0).repeat_interleave(norm.channels) for norm in norms])


def weight(norms: Sequence[Norm], batches: Sequence[int]) -> Float[Tensor, " s"]:
    """How much of the running statistics is of so many last batches at each layer."""
    parts = [
        torch.full((2 * norm.channels,), 1 - prod(1 - norm.rate(at) for at in range(many)))
        for norm, many in zip(norms, batches, strict=True)
    ]
    return torch.cat(parts)


def unmixed(change: Float[Tensor, " s"], weight: Float[Tensor, " s"]) -> Float[Tensor, " s"]:
    """How far batches of this weight in a change are from what was before; zero where they have
    none: in a layer that is not used, or whose running statistics do not run.
    """
    weight = weight.to(change)
    return torch.where(weight > 0, change / weight.clamp(min=1e-30), 0.0)


@contextmanager
def listening(norms: Sequence[Norm]) -> Iterator[Heard]:
    """Hear the statistics of every batch that goes through these layers meanwhile."""
    heard = Heard(norms, [[] for _ in norms])

    def hear(at: int) -> Callable[..., None]:
        def note(layer: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            (z,) = (*given, *named.values())
            heard.by_layer[at].append(of_batch(layer, z))

        return note

    for norm, ear in zip(norms, heard.by_layer, strict=True):
        norm.ears.append(ear)
    hooks = [
        norm.layer.register_forward_pre_hook(hear(at), with_kwargs=True)
        for at, norm in enumerate(norms)
    ]
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
