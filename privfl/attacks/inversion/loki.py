"""A server that gives every client kernels of its own, so that clients fall apart in their sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from privfl.attacks.inference import Family, Inference, Lacking, recipe, summed
from privfl.attacks.inversion.bins import (
    by_bin,
    check_bins,
    filled,
    fitted_levels,
    normal_levels,
    scale_of,
    treat_alike,
)
from privfl.attacks.knowledge import Knowledge
from privfl.attacks.result import ByRow, Reconstruction, Result
from privfl.core import (
    AttackSeat,
    Broadcast,
    ClientId,
    ConfigError,
    Dataset,
    Examples,
    Vector,
    View,
    require,
)

_UNEVEN = 0.05
"""By so large a share of its mean a bin's weight may vary from pixel to pixel."""


@dataclass(frozen=True, slots=True)
class Loki(Inference):
    """LOKI (Zhao, Sharma, Elkordy, Ezzeldin, Avestimehr, Bagchi 2024): kernels and bins for each
    client, so that a sum over clients holds each one's samples in a place of its own.

    The architecture begins with a 1 x 1 convolution and a linear layer of ``bins`` rows (`lokied`).
    The convolution has a block of kernels for each client: those of its own block pass its samples
    on as they are, and one more answers 1 everywhere; all others are zero, and so is every gradient
    behind them. The linear layer sorts by brightness, as `Imprint` does. In the sum of all updates
    a client's block then holds its samples by bin, and the constant kernel their weights, however
    many clients there are: a sample comes out exactly that is alone of its client's n samples in
    one of k bins, a share of (1 - 1/k)^(n - 1) where bins fill evenly (`alone`).

    It needs another model at every client. Here plans name the model and protocols bind what
    clients send to their plans, so these contributions fit nobody's sum and are refused by name
    (`engine.ClientSide.agreed`); rows in clear need no such trick. What it takes from a sum that
    binds nothing is read off the rows added up.

    Args:
        shape: channels, height and width of a sample; ``clients`` those that get a block, in order.
        bins: rows of the linear layer; ``outputs`` the size of the next.
        centre, spread, levels: where the bins are, as in `Imprint`.

    Raises:
        ConfigError: a size out of range, or another number of levels than bins.

    >>> Loki((1, 8, 8), clients=(0, 1), bins=16, outputs=64).blocks
    2
    """

    examples: ClassVar[Examples] = {
        "": {"shape": (1, 4, 4), "clients": (0, 4), "bins": 2, "outputs": 2}
    }
    seats: ClassVar[frozenset[AttackSeat]] = frozenset({"broadcast"})

    family: ClassVar[Family] = "inversion"
    shape: tuple[int, int, int]
    clients: tuple[ClientId, ...]
    bins: int
    outputs: int
    centre: float = 0.0
    spread: float = 0.5
    levels: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        require.at_least(1, outputs=self.outputs, clients=len(self.clients))
        check_bins(self.bins, self.spread, self.levels)

    @property
    def blocks(self) -> int:
        """How many blocks of kernels."""
        return len(self.clients)

    def fitted(self, data: Dataset) -> Loki:
        """The same with bins that these samples fill evenly."""
        spread, levels = fitted_levels(data, self.bins)
        return replace(self, spread=spread, levels=levels)

    def poison_broadcast(
        self, broadcast: Broadcast, client: ClientId, rng: torch.Generator
    ) -> Broadcast:
        """The model with this client's own kernels; the honest one where it has no block."""
        if client not in self.clients:
            return broadcast
        return replace(broadcast, parameters=self.planted(broadcast.parameters, client))

    def planted(self, parameters: Vector, client: ClientId) -> Vector:
        """The parameters [d] that a client is sent.

        Raises:
            ConfigError: they are too few for layers of these sizes.
        """
        ends = self._ends()
        if len(parameters) < ends[-1]:
            raise ConfigError(
                f"kernels for {self.blocks} clients and {self.bins} bins do not fit a model of"
                f" {len(parameters)} parameters: begin it as privfl.attacks.lokied does."
            )
        channels, height, width = self.shape
        planted = parameters.clone()
        planted[: ends[2]] = 0
        own = self.clients.index(client) * (channels + 1)
        kernels = planted[: ends[0]].view(-1, channels)
        kernels[own : own + channels] = torch.eye(channels)
        planted[ends[0] : ends[1]][own + channels] = 1
        scale = scale_of(self.bins, self.spread)
        sorting = planted[ends[1] : ends[2]].view(self.bins, self.blocks, channels + 1, -1)
        sorting[:, :, :channels] = scale / (channels * height * width)
        levels = self.levels or normal_levels(self.bins, self.centre, self.spread)
        planted[ends[2] : ends[3]] = -scale * torch.tensor(levels)
        treat_alike(planted[ends[3] : ends[4]].view(self.outputs, self.bins))
        return planted

    def _ends(self) -> tuple[int, ...]:
        """Where kernels, their biases, the sorting rows, their biases and the next layer end."""
        channels, height, width = self.shape
        kernels = self.blocks * (channels + 1)
        sizes = (
            kernels * channels,
            kernels,
            self.bins * kernels * height * width,
            self.bins,
            self.outputs * self.bins,
        )
        return tuple(sum(sizes[: at + 1]) for at in range(len(sizes)))

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Result:
        """Of the first view's sum, the samples of each client that has a block: one for each of its
        bins that holds something.

        Raises:
            NotVisible: the view shows no sum.
            Lacking: no client's block holds anything, or what is there varies from pixel to pixel
                where the constant kernel answers 1 everywhere: nobody was sent its kernels.
        """
        view = views[0]
        forward = recipe(view, knowledge)
        ends, (channels, *_) = self._ends(), self.shape
        mean = summed(view).mean()
        if len(mean) < ends[-1]:
            raise Lacking(f"a model of {len(mean)} parameters has no room for these kernels.")
        rows = mean[ends[1] : ends[2]].view(self.bins, self.blocks, channels + 1, -1).double()
        noise = 6 * forward.local_noise / max(view.plan.n, 1) ** 0.5
        answers: list[tuple[tuple[ClientId, ...], Result]] = []
        for block, client in enumerate(self.clients):
            inside = by_bin(rows[:, block, :channels].flatten(1))
            everywhere = by_bin(rows[:, block, channels])
            weight = everywhere.mean(dim=1)
            held = filled(weight, noise)
            off = (everywhere - weight[:, None]).abs().amax(dim=1)
            even = off[held] <= (_UNEVEN * weight[held].abs()).clamp(min=noise)
            held = held[even]
            if not len(held):
                continue
            x = (inside[held] / weight[held, None]).float().view(-1, *self.shape)
            samples = x.clamp(*forward.span(x))
            notes = {"bins filled": f"{len(held)} of {self.bins}"}
            unknown = torch.full((len(held),), -1)
            found = Reconstruction(
                type(self).__name__, view.adversary, samples, unknown, notes=notes
            )
            answers.append(((client,), found))
        if not answers:
            raise Lacking(
                "no client's block holds a sample by which its constant kernel answers the same at"
                " every pixel: were clients sent their kernels?"
            )
        return ByRow(type(self).__name__, view.adversary, tuple(answers))


def alone(samples: int, bins: int) -> float:
    """The share of samples that are alone in a bin, of so many samples in bins that fill evenly.

    >>> round(alone(64, 256), 2), round(alone(800, 1024), 2)
    (0.78, 0.46)
    """
    return (1 - 1 / bins) ** (samples - 1)


def lokied(module: nn.Module, shape: Sequence[int], blocks: int, bins: int) -> nn.Sequential:
    """A model behind kernels for so many clients and a layer of bins: what a malicious server calls
    its architecture.

    >>> lokied(nn.Flatten(), (1, 2, 2), blocks=3, bins=8)(torch.zeros(5, 1, 2, 2)).shape
    torch.Size([5, 4])
    """
    channels, height, width = shape
    kernels = blocks * (channels + 1)
    return nn.Sequential(
        nn.Conv2d(channels, kernels, 1),
        nn.Flatten(),
        nn.Linear(kernels * height * width, bins),
        nn.ReLU(),
        nn.Linear(bins, math.prod(shape)),
        nn.Unflatten(1, tuple(shape)),
        module,
    )
