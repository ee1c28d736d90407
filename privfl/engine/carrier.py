"""From training to outcomes in one call: a server on a network never holds what its clients send,
and colluding attackers need all rows between training and bound, so both are inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import torch

from privfl.core import (
    FRAME_ROOM,
    Bounded,
    Carried,
    ClientId,
    ClientState,
    CoinSource,
    Faults,
    Incident,
    Member,
    NoisySteps,
    PartyId,
    Update,
    Vector,
    client_party,
)
from privfl.engine.adversaries import Adversaries
from privfl.engine.making import Making
from privfl.engine.notes import Notes
from privfl.engine.order import Order, Told
from privfl.engine.session import Session
from privfl.engine.state import RunState
from privfl.engine.streaming import (
    RANK,
    STREAMS_FROM,
    OneAfterTheOther,
    rows_at_once,
    rows_said,
    size_of,
    sums_rows,
    why_rows_are_kept,
)
from privfl.training import Executor

O = TypeVar("O")
O_co = TypeVar("O_co", covariant=True)
_HEAD = FRAME_ROOM // 4

Noisy: TypeAlias = Mapping[ClientId, tuple[NoisySteps, ...]]
"""What training did to the samples of each client."""
Charging: TypeAlias = Callable[[Noisy], None]
"""Charges a round, for its training and for what it will release, before its first message."""


@dataclass(frozen=True, slots=True)
class Returned(Generic[O_co]):
    """What came back: the protocol's outcome, and what a simulator alone holds of its clients.

    ``clients``, ``client_seats`` and ``attacks`` are memories after the round, ``updates`` what
    training handed out, ``sent`` each client's extra vectors as its party sends them. A network
    gives none of these back.
    """

    carried: Carried[O_co]
    clients: Mapping[ClientId, ClientState] = field(default_factory=dict)
    client_seats: Mapping[int, Mapping[ClientId, Any]] = field(default_factory=dict)
    attacks: Mapping[int, Mapping[ClientId, Any]] = field(default_factory=dict)
    updates: Mapping[ClientId, Update] = field(default_factory=dict)
    losses: tuple[float, ...] = ()
    sent: Mapping[ClientId, Mapping[str, Vector]] = field(default_factory=dict)

    @classmethod
    def nothing(cls, parts: Iterable[str]) -> Returned[O_co]:
        """Of a round in which nobody was asked anything."""
        return cls(Carried(dict.fromkeys(parts), {}, (), {}))


class Carrier(Protocol[O_co]):
    """How a round gets to its clients and back."""

    @property
    def members(self) -> Mapping[PartyId, Member]:
        """The members that are here, by party: everybody's in a simulation."""
        ...

    def ready(self, clients: Iterable[ClientId], notes: Notes) -> None:
        """Make sure that these clients and all helpers have the keys of a session.

        Raises:
            Abort: a party gave up during the key set-up.
            RoundFailed: nobody can take part.
        """
        ...

    def play(
        self,
        order: Order,
        state: RunState,
        notes: Notes,
        charge: Charging,
        *,
        keep: bool = False,
        digests: bool = False,
    ) -> Returned[O_co]:
        """Train, prepare, bound, send and open, for the whole cohort; ``keep`` keeps every message,
        ``digests`` the SHA-256 of each. ``charge`` is called once, before anything that hangs on
        clients' data is sent.

        Raises:
            RoundFailed: training failed at every client of the cohort.
        """
        ...


class Simulated(Generic[O]):
    """All clients and helpers in this process. It owns the update matrix, which every round writes
    anew, and the members of the session.

    Rounds whose rows would take ``streams_from`` bytes or more keep none where nothing wants all of
    them (`why_rows_are_kept`): each is written over once its client's letter is written. What comes
    of a round is the same, bit for bit. ``rows_said`` are facts for the report: whether so many
    rows lay in memory at once.
    """

    def __init__(
        self,
        session: Session[O],
        executor: Executor,
        adversaries: Adversaries,
        seeds: CoinSource,
        faults: Faults,
        streams_from: int = STREAMS_FROM,
    ) -> None:
        self.session, self.executor = session, executor
        self.adversaries, self.seeds, self.faults = adversaries, seeds, faults
        self.streams_from = streams_from
        self.rows_said: dict[str, str] = {}
        self._matrix = torch.empty(0, 0)

    @property
    def members(self) -> Mapping[PartyId, Member]:
        """Everybody's."""
        return self.session.members

    def ready(self, clients: Iterable[ClientId], notes: Notes) -> None:
        """Set up whoever is not; see `Carrier.ready`."""
        if not self.session.enrolled(clients):
            with notes.stage("key set-up"):
                self.session.enrol(clients)
            notes.refused(self.session.setup_refused)

    def play(
        self,
        order: Order,
        state: RunState,
        notes: Notes,
        charge: Charging,
        *,
        keep: bool = False,
        digests: bool = False,
    ) -> Returned[O]:
        """One round; see `Carrier.play`."""
        making = Making(order, state, notes, self.executor, self.adversaries, self.seeds)
        why = self.why_rows_are_kept(order)
        few = min(order.plan.n, rows_at_once(self.executor))
        if self._many(order):
            self.rows_said |= rows_said(order, why, few, audited=keep)
        if not keep and not why:
            return self._streamed(making, charge, few, digests=digests)
        with notes.stage("train"):
            cohort = order.plan.cohort
            if cohort:
                making.train(cohort, *self._rows(len(cohort), order.plan.d))
        failed = making.alone
        if failed is not None:
            charge(making.noisy)
            raise failed
        told = Told.of(order, making.sent)
        with notes.stage("client seats", foreign=bool(order.side.seats)):
            making.seat(cohort)
            making.note_seats()
        prepared = making.updates
        with notes.stage("attack", foreign=bool(order.scenario.attackers)):
            effects = self.adversaries.apply_attacks(order, prepared, state)
            notes.fired |= effects.fired
            liars = {**self.faults.byzantine, **effects.byzantine}
            notes.liars |= effects.liars
            notes.liars |= {c for c in order.plan.cohort if client_party(c) in liars}
        with notes.stage("bound"):
            bounded = making.bound(cohort, told)
            parties = {
                client: order.side.entered(
                    self.session.member(client), told.plans_of(client), parts
                )
                for client, parts in bounded.items()
            }
        charge(making.noisy)
        with notes.stage("channel"):
            self.session.inform(order.context)
            carried = self.session.play_parts(
                told.plans,
                parties,
                replace(self.faults, byzantine=liars),
                keep_bodies=keep,
                digests=digests,
                plans_of=told.to,
            )
        return Returned(
            carried,
            making.states,
            making.memory,
            effects.memory,
            prepared,
            making.in_order(),
            {client: _extra(parts) for client, parts in bounded.items()},
        )

    def why_rows_are_kept(self, order: Order) -> str:
        """Why all rows of such a round lie in memory at once; empty where they do not."""
        why = why_rows_are_kept(order, self.executor, self.faults, self.session.members["server"])
        if not why and not self._many(order):
            return f"they are {size_of(order):,} bytes, and it would save nothing"
        return why

    def _many(self, order: Order) -> bool:
        return size_of(order) >= self.streams_from

    def _streamed(
        self, making: Making, charge: Charging, few: int, *, digests: bool
    ) -> Returned[O]:
        """A round that keeps no rows: a client is trained when its party needs the update."""
        order, notes = making.order, making.notes
        charge(dict.fromkeys(order.plan.cohort, ()))
        source = OneAfterTheOther(making, few, partial(_room, d=order.plan.d))
        parties = {
            client: {"delta": source.party(client, self.session.member(client))}
            for client in order.plan.cohort
        }
        began = len(notes.incidents)
        with notes.stage("channel"):
            self.session.inform(order.context)
            carried = self.session.play_parts(
                order.plans,
                parties,
                self.faults,
                digests=digests,
                summing=sums_rows(order),
                lean=True,
            )
        source.finish()
        place = {client: i for i, client in enumerate(order.plan.cohort)}
        notes.incidents[began:] = sorted(notes.incidents[began:], key=partial(_rank, place))
        failed = making.alone
        if failed is not None:
            raise failed
        making.note_seats()
        seconds = {who: s - source.seconds.get(who, 0.0) for who, s in carried.seconds.items()}
        return Returned(
            replace(carried, seconds=seconds),
            making.states,
            making.memory,
            updates=making.updates,
            losses=making.in_order(),
        )

    def _rows(self, n: int, d: int) -> tuple[torch.Tensor, list[memoryview]]:
        """Rows [n, d] in the buffer that every round writes anew, and the frame of each."""
        if self._matrix.shape[0] < n or self._matrix.shape[1] != _HEAD + d:
            self._matrix = torch.empty(n, _HEAD + d)
        return _framed(self._matrix[:n])


def _room(n: int, *, d: int) -> tuple[torch.Tensor, list[memoryview]]:
    """Rows [n, d] of a round that keeps none, and the frame of each."""
    return _framed(torch.empty(n, _HEAD + d))


def _framed(matrix: torch.Tensor) -> tuple[torch.Tensor, list[memoryview]]:
    whole, stride = matrix.numpy().data.cast("B"), 4 * matrix.shape[1]
    frames = [whole[row * stride : (row + 1) * stride] for row in range(len(matrix))]
    return matrix[:, _HEAD:], frames


def _rank(place: Mapping[ClientId, int], incident: Incident) -> tuple[int, int]:
    """Where an incident stands in a round in which all clients are trained first, in order."""
    rank, client = RANK.get(incident.stage, len(RANK)), incident.client
    return rank, 0 if client is None or rank == len(RANK) else place.get(client, 0)


def _extra(parts: Mapping[str, Bounded]) -> Mapping[str, Vector]:
    return {part: one.delta for part, one in parts.items() if part != "delta"}
