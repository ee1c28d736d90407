"""A vertical run: batches through the parties, one scene a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.core import (
    NO_FAULTS,
    ConfigError,
    Faults,
    PartyId,
    RoundFailed,
    Seeds,
    drive_all,
)
from privfl.data import Holding
from privfl.vertical.defences import LabelDefence, Undefended
from privfl.vertical.members import Guest, Host, VerticalTraining
from privfl.vertical.message import Batch
from privfl.vertical.networks import SplitNetwork, VerticalModel, predicted
from privfl.vertical.parties import GUEST
from privfl.vertical.view import GuestView, HostView, Played


@dataclass(frozen=True, slots=True, eq=False)
class VerticalRun:
    """What came of a run: the network (the parties' parts, which only the simulator holds
    together), all batches with their messages, bytes that travelled in training.
    """

    guest: Guest
    hosts: Mapping[PartyId, Host]
    network: SplitNetwork
    classes: int
    played: tuple[Played, ...] = field(repr=False)
    bytes_sent: int

    def host_view(self, host: PartyId) -> HostView:
        """What a host saw of the training.

        Raises:
            ConfigError: no such host.
            NotVisible: nothing was recorded.
        """
        member = self._host(host)
        width = self.network.widths[host]
        return HostView.of(host, self.played, member.holding, member.bottom, self.classes, width)

    def guest_view(self, host: PartyId) -> GuestView:
        """What the guest saw of a host in the training.

        Raises:
            ConfigError: no such host.
            NotVisible: nothing was recorded.
        """
        self._host(host)
        guest, width = self.guest, self.network.widths[host]
        return GuestView.of(host, self.played, guest.holding, guest.bottom, guest.top, width)

    def _host(self, host: PartyId) -> Host:
        if host not in self.hosts:
            raise ConfigError(f"'{host}' takes no part: {', '.join(self.hosts) or 'nobody'} do.")
        return self.hosts[host]

    def logits(self, rows: Int[Tensor, " m"]) -> Float[Tensor, "m k"]:
        """What guest and hosts compute together of some rows, through their messages."""
        made = []
        for number, part in enumerate(torch.split(rows, 4096)):
            play(self.guest, self.hosts, Batch(b"asked", number, part, training=False))
            if self.guest.logits is not None:
                made.append(self.guest.logits)
        return torch.cat(made)

    def accuracy(self, rows: Int[Tensor, " m"], y: Int[Tensor, " m"]) -> float:
        """The share of rows whose class is found."""
        return float((predicted(self.logits(rows)) == y).double().mean())


def train_vertically(
    holdings: Mapping[PartyId, Holding],
    y: Int[Tensor, " n"],
    classes: int,
    model: VerticalModel,
    training: VerticalTraining,
    *,
    defence: LabelDefence | None = None,
    faults: Faults = NO_FAULTS,
    seed: int = 0,
) -> VerticalRun:
    """Train a network whose columns lie with several parties, over bytes.

    A batch is activations up and gradients down. The guest, the last of the holdings, has labels
    of the first n of its rows; the others (for tests) are asked about only. All rows of all parties
    are the same samples in the same order (`data.aligned`). Batches are public.

    Threat model: what travels hides NOTHING by itself. The guest reads each sample's activations at
    each host; each host reads each sample's gradient, and with them, undefended, its label. Nobody
    else reads anything if the wires are closed (TLS). A party that sends numbers of its own choice
    moves the model as it likes, and a guest that does and knows some rows of a host's writes
    weights there whose activations are the columns of all rows.

    Args:
        holdings: by party, `GUEST` last; without hosts the guest trains alone.
        y: labels [n].
        classes: how many there are.
        model: what is split.
        training: everybody's optimiser, and the batches.
        defence: the guest's.
        faults: what goes wrong in every batch.
        seed: of weights and batches.

    Raises:
        ConfigError: rows that are not aligned, no guest, or labels that are no classes.
        RoundFailed: a party gave up, and why.

    >>> held = {"host/0": Holding(torch.arange(4), torch.eye(4), ("a", "b", "c", "d")),
    ...         "guest": Holding(torch.arange(4), torch.ones(4, 1), ("e",))}
    >>> from privfl.vertical import VerticalLinear
    >>> run = train_vertically(
    ...     held, torch.tensor([0, 1, 0, 1]), 2, VerticalLinear(), VerticalTraining(epochs=40)
    ... )
    >>> run.accuracy(torch.arange(4), torch.tensor([0, 1, 0, 1]))
    1.0
    """
    _checked(holdings, y, classes)
    seeds, defence = Seeds(seed), defence or Undefended()
    parts = {party: held.x.shape[1] for party, held in holdings.items()}
    network = model(parts, classes, seed=seeds.derive("vertical weights") % (1 << 32))
    hosts = {
        party: Host(
            held,
            network.bottoms[party],
            training.optimiser,
        )
        for party, held in holdings.items()
        if party != GUEST
    }
    guest = Guest(
        holdings[GUEST],
        defence.labels(y, classes),
        network.bottoms[GUEST],
        network.top,
        training.optimiser,
        widths={party: network.widths[party] for party in hosts},
        defence=defence,
    )
    played = tuple(
        play(guest, hosts, batch, faults, epoch=epoch, keep_bodies=True)
        for epoch, batch in batches(len(y), training, seeds)
    )
    sent = sum(one.outcome.bytes_sent() for one in played)
    return VerticalRun(guest, hosts, network, classes, played, sent)


def batches(n: int, training: VerticalTraining, seeds: Seeds) -> Iterator[tuple[int, Batch]]:
    """All batches of a run, each with its epoch: every epoch deals the rows anew."""
    session = hashlib.sha256(f"privfl/vertical/{seeds.seed}".encode()).digest()[:16]
    number = 0
    for epoch in range(training.epochs):
        order = torch.randperm(n, generator=seeds.generator("vertical batches", epoch))
        for rows in torch.split(order, training.batch_size):
            yield epoch, Batch(session, number, rows, training=True)
            number += 1


def play(
    guest: Guest,
    hosts: Mapping[PartyId, Host],
    batch: Batch,
    faults: Faults = NO_FAULTS,
    *,
    epoch: int = 0,
    keep_bodies: bool = False,
) -> Played:
    """One batch through the parties.

    Raises:
        RoundFailed: a party gave up, or waits for ever.
    """
    cast = {host: member.enter(batch) for host, member in hosts.items()}
    outcome = drive_all({**cast, GUEST: guest.enter(batch)}, faults, keep_bodies=keep_bodies)
    for who, abort in outcome.aborts.items():
        raise RoundFailed(f"batch {batch.number} ended at {who}: {abort}.")
    if guest.logits is None:
        raise RoundFailed(f"batch {batch.number} ended: the guest waited for a host in vain.")
    for host, party in cast.items():
        if party.waits:
            raise RoundFailed(f"batch {batch.number} ended: {host} waited for the guest in vain.")
    return Played(batch, outcome, epoch)


def _checked(holdings: Mapping[PartyId, Holding], y: Int[Tensor, " n"], classes: int) -> None:
    if not holdings or list(holdings)[-1] != GUEST:
        raise ConfigError("holdings name the hosts first and the guest last.")
    ids = holdings[GUEST].ids
    for party, held in holdings.items():
        if not torch.equal(held.ids, ids):
            raise ConfigError(f"{party}'s rows are not the guest's: align them (data.aligned).")
    if not 0 < len(y) <= len(ids):
        raise ConfigError(f"{len(y)} labels for {len(ids)} samples: the first rows have one each.")
    if classes < 2 or y.is_floating_point() or int(y.min()) < 0 or int(y.max()) >= classes:
        raise ConfigError(
            f"labels are whole numbers from 0 to classes - 1, of 2 classes or more: {classes}"
            f" classes, and labels of {y.dtype} from {y.min().item()} to {y.max().item()}."
        )
