"""What a guest and a host keep between batches: their columns, their part of the network, its
optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from privfl.core import Abort, ConfigError, PartyId, require
from privfl.data import Holding
from privfl.vertical.defences import LabelDefence
from privfl.vertical.message import Batch
from privfl.vertical.networks import mean_loss
from privfl.vertical.parties import Cuts, GuestParty, HostParty, leaf

Optimise: TypeAlias = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True, slots=True)
class VerticalTraining:
    """How every party trains its own part: all of these act on each coordinate alone, so that
    split training is joint training.

    Raises:
        ConfigError: a rate, batch size or number of epochs that is not positive, or momentum with
            Adam, which would ignore it.

    >>> VerticalTraining(epochs=2).batch_size
    128
    """

    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = 0.02
    momentum: float = 0.0
    weight_decay: float = 0.0
    epochs: int = 6
    batch_size: int = 128

    def __post_init__(self) -> None:
        require.positive(lr=self.lr, epochs=self.epochs, batch_size=self.batch_size)
        require.finite(lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        require.at_least(0.0, momentum=self.momentum, weight_decay=self.weight_decay)
        if self.momentum and self.optimizer == "adam":
            raise ConfigError("momentum is sgd's, and adam has its own: leave it out.")

    def optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Fresh, for one party's parameters."""
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(
            parameters, self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )


class Host:
    """A party with columns and a bottom, and without labels."""

    def __init__(self, holding: Holding, bottom: nn.Module, optimise: Optimise) -> None:
        self.holding, self.bottom = holding, bottom
        self._optimiser = optimise(bottom.parameters())

    def enter(self, batch: Batch) -> HostParty:
        """Its part in one batch."""
        with torch.set_grad_enabled(batch.training):
            sent = self.bottom(self.holding.x[batch.rows])

        def learn(gradients: Float[Tensor, "B k"]) -> None:
            self._optimiser.zero_grad()
            torch.autograd.backward([sent], [gradients])
            self._optimiser.step()

        return HostParty(batch, sent, learn)


class Guest:
    """The party with the labels: columns, a bottom and the top of the network.

    ``y`` are the labels to train with: the defence has been at them once, and the true ones are not
    here.
    """

    def __init__(
        self,
        holding: Holding,
        y: Int[Tensor, " n"],
        bottom: nn.Module,
        top: nn.Module,
        optimise: Optimise,
        *,
        widths: Mapping[PartyId, int],
        defence: LabelDefence,
    ) -> None:
        self.holding, self.bottom, self.top = holding, bottom, top
        self._y, self._widths, self._defence = y, widths, defence
        self._optimiser = optimise([*bottom.parameters(), *top.parameters()])
        self.logits: Float[Tensor, "B k"] | None = None

    def enter(self, batch: Batch) -> GuestParty:
        """Its part in one batch; afterwards ``logits`` are those of the batch."""
        self.logits = None

        def answer(cuts: Cuts) -> Cuts:
            return self._trained(batch, cuts) if batch.training else self._asked(batch, cuts)

        return GuestParty(batch, self._widths, answer)

    def _asked(self, batch: Batch, cuts: Cuts) -> Cuts:
        with torch.no_grad():
            own = self.bottom(self.holding.x[batch.rows])
            self.logits = self.top([*cuts.values(), own])
        return {}

    def _trained(self, batch: Batch, cuts: Cuts) -> Cuts:
        leaves = {host: leaf(cut) for host, cut in cuts.items()}
        logits = self.top([*leaves.values(), self.bottom(self.holding.x[batch.rows])])
        if not bool(logits.isfinite().all()):
            raise Abort(
                "its logits are not finite: activations of a host or columns of its own are too"
                " large, or lr is"
            )
        self._optimiser.zero_grad()
        torch.autograd.backward([mean_loss(logits, self._y[batch.rows])])
        self._optimiser.step()
        self.logits = logits.detach()
        return {
            host: self._defence.gradients(cut.grad)
            for host, cut in leaves.items()
            if cut.grad is not None
        }
