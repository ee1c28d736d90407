"""What one party of a vertical run saw: its mail, its own columns and its own part of the network,
public facts. Attacks take this and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from privfl.core import NotVisible, Outcome, PartyId
from privfl.data import Holding
from privfl.vertical.message import Batch, Kind, opened
from privfl.vertical.parties import GUEST


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """One batch as it was played, with the bodies of its messages."""

    batch: Batch
    outcome: Outcome[None] = field(repr=False)
    epoch: int = 0

    def came(self, party: PartyId) -> Mapping[PartyId, bytes]:
        """What a party was handed in it, by sender."""
        mails = self.outcome.received([party])[party]
        return {sender: bytes(body) for mail in mails for sender, body in mail.items()}


@dataclass(frozen=True, slots=True, eq=False)
class HostView:
    """A host's: gradients [m, k] of every sample in every epoch by what it sent, the rows [m] that
    they are of, the number of the batch [m] and the epoch [m] in which each came; its columns, and
    its bottom as it is after the run.

    ``classes`` is public, and so is the order of the rows: the host trains with them.
    """

    host: PartyId
    holding: Holding
    bottom: nn.Module
    classes: int
    rows: Int[Tensor, " m"]
    batches: Int[Tensor, " m"]
    epochs: Int[Tensor, " m"]
    gradients: Float[Tensor, "m k"]

    @classmethod
    def of(
        cls,
        host: PartyId,
        played: Sequence[Played],
        holding: Holding,
        bottom: nn.Module,
        classes: int,
        width: int,
    ) -> HostView:
        """Out of its mail.

        Raises:
            NotVisible: it got no gradients.
        """
        training = [one for one in played if one.batch.training]
        found = _came(training, host, GUEST, "gradients", width)
        if not found:
            raise NotVisible(f"{host} got no gradients in what was recorded of this run.")
        rows = torch.cat([one.batch.rows for one, _ in found])
        numbers = torch.cat([torch.full_like(one.batch.rows, one.batch.number) for one, _ in found])
        gradients = torch.cat([values for _, values in found])
        return cls(host, holding, bottom, classes, rows, numbers, _epochs(found), gradients)

    def features(self) -> Float[Tensor, "n k"]:
        """What its bottom makes of all its samples."""
        with torch.no_grad():
            made: Tensor = self.bottom(self.holding.x)
        return made


@dataclass(frozen=True, slots=True, eq=False)
class GuestView:
    """The guest's: what a host sent [m, k] of every sample in every epoch, the rows [m] and the
    epochs [m], its own columns, bottom and top. It holds nothing of the host's bottom.
    """

    host: PartyId
    holding: Holding
    bottom: nn.Module
    top: nn.Module
    rows: Int[Tensor, " m"]
    epochs: Int[Tensor, " m"]
    activations: Float[Tensor, "m k"]

    @classmethod
    def of(
        cls,
        host: PartyId,
        played: Sequence[Played],
        holding: Holding,
        bottom: nn.Module,
        top: nn.Module,
        width: int,
    ) -> GuestView:
        """Out of its mail.

        Raises:
            NotVisible: this host sent nothing.
        """
        found = _came(played, GUEST, host, "activations", width)
        if not found:
            raise NotVisible(f"{host} sent nothing in what was recorded of this run.")
        rows = torch.cat([one.batch.rows for one, _ in found])
        activations = torch.cat([values for _, values in found])
        return cls(host, holding, bottom, top, rows, _epochs(found), activations)


def _came(
    played: Sequence[Played], to: PartyId, sender: PartyId, kind: Kind, width: int
) -> list[tuple[Played, Tensor]]:
    """The batches in which such a letter came, with what it holds."""
    return [
        (one, opened(one.batch, kind, width, mail[sender]))
        for one in played
        if sender in (mail := one.came(to))
    ]


def _epochs(found: Sequence[tuple[Played, Tensor]]) -> Int[Tensor, " m"]:
    return torch.cat([torch.full_like(one.batch.rows, one.epoch) for one, _ in found])


def by_sample(
    values: Float[Tensor, "m k"], rows: Int[Tensor, " m"], epochs: Int[Tensor, " m"]
) -> tuple[Int[Tensor, " n"], Float[Tensor, "n E k"]]:
    """The samples [n] in order, and of each what came of it in every one of E epochs, in each of
    which every sample comes once.

    >>> rows, epochs = torch.tensor([1, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    >>> found, seen = by_sample(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), rows, epochs)
    >>> found.tolist(), seen[:, :, 0].tolist()
    ([0, 1], [[2.0, 3.0], [1.0, 4.0]])
    """
    count = len(torch.unique(epochs))
    order = (rows * (int(epochs.max()) + 1) + epochs).argsort()
    return rows[order][::count], values[order].reshape(-1, count, values.shape[1])
