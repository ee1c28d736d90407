"""Networks that are split between parties: a bottom for each, a top at the guest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from privfl.core import PartyId, require
from privfl.models import initialised


class Summed(nn.Module):
    """The top of a linear model: logits are the sum of what the parties computed."""

    def forward(self, cuts: Sequence[Float[Tensor, "B k"]]) -> Float[Tensor, "B k"]:
        """Their sum [B, k]."""
        return torch.stack(list(cuts)).sum(dim=0)


class JoinedTop(nn.Module):
    """A network [B, sum of cuts] -> [B, outputs] on the cuts of all parties, side by side."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, cuts: Sequence[Float[Tensor, "B _"]]) -> Float[Tensor, "B k"]:
        """The logits."""
        logits: Tensor = self.layers(torch.cat(list(cuts), dim=1))
        return logits


@dataclass(frozen=True, slots=True, eq=False)
class SplitNetwork:
    """A bottom for each party, the width of what it sends, and the top."""

    bottoms: Mapping[PartyId, nn.Module]
    widths: Mapping[PartyId, int]
    top: nn.Module

    def logits(self, x: Mapping[PartyId, Float[Tensor, "B _"]]) -> Float[Tensor, "B k"]:
        """What one owner of all columns would compute."""
        made: Tensor = self.top([bottom(x[party]) for party, bottom in self.bottoms.items()])
        return made


@runtime_checkable
class VerticalModel(Protocol):
    """A network for parties that hold so many columns each; the guest is the last of them."""

    def __call__(self, columns: Mapping[PartyId, int], classes: int, *, seed: int) -> SplitNetwork:
        """With weights that the seed repeats."""
        ...


@dataclass(frozen=True, slots=True)
class VerticalLinear:
    """Logistic regression (softmax for more than two classes): a host sends its share of the
    logits, and what comes back is each sample's residual.

    >>> VerticalLinear()({"host/0": 3, "guest": 2}, 2, seed=0).widths
    {'host/0': 1, 'guest': 1}
    """

    def __call__(self, columns: Mapping[PartyId, int], classes: int, *, seed: int) -> SplitNetwork:
        """Its parts; only the guest has a bias."""
        out = outputs(classes)
        *hosts, guest = columns
        bottoms = {
            party: initialised(_linear, (count,), out, seed=seed + place, bias=party == guest)
            for place, (party, count) in enumerate(columns.items())
        }
        return SplitNetwork(bottoms, dict.fromkeys((*hosts, guest), out), Summed())


@dataclass(frozen=True, slots=True)
class VerticalMLP:
    """A layer of ``cut`` ReLUs at each party, and a top of one hidden layer on all of them.

    Raises:
        ConfigError: widths below one.

    >>> VerticalMLP(cut=4)({"host/0": 3, "guest": 2}, 5, seed=0).widths
    {'host/0': 4, 'guest': 4}
    """

    cut: int = 8
    hidden: int = 32

    def __post_init__(self) -> None:
        require.positive(cut=self.cut, hidden=self.hidden)

    def __call__(self, columns: Mapping[PartyId, int], classes: int, *, seed: int) -> SplitNetwork:
        """Its parts."""
        bottoms = {
            party: nn.Sequential(
                initialised(_linear, (count,), self.cut, seed=seed + place, bias=True), nn.ReLU()
            )
            for place, (party, count) in enumerate(columns.items())
        }
        both = self.cut * len(columns)
        first, last = (
            initialised(_linear, (wide,), narrow, seed=seed + len(columns) + place, bias=True)
            for place, (wide, narrow) in enumerate(
                [(both, self.hidden), (self.hidden, outputs(classes))]
            )
        )
        top = JoinedTop(first, nn.ReLU(), last)
        return SplitNetwork(bottoms, dict.fromkeys(columns, self.cut), top)


def _linear(shape: Sequence[int], classes: int, bias: bool) -> nn.Module:
    return nn.Linear(shape[0], classes, bias=bias)


def outputs(classes: int) -> int:
    """Logits of a task: one for two classes."""
    return 1 if classes == 2 else classes


def mean_loss(logits: Float[Tensor, "B k"], y: Int[Tensor, " B"]) -> Float[Tensor, ""]:
    """Cross-entropy of a batch, its mean."""
    if logits.shape[1] == 1:
        return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], y.to(logits.dtype))
    return nn.functional.cross_entropy(logits, y)


def predicted(logits: Float[Tensor, "B k"]) -> Int[Tensor, " B"]:
    """The class of each sample."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)
