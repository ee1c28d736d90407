"""From training to outcomes in one call: a server on a network never holds what its clients send,
and colluding attackers need all rows between training and bound, so both are inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import torch

from privfl.core import (
    FRAME_ROOM,
    BadUpdate,
    Bounded,
    Carried,
    ClientId,
    ClientState,
    CoinSource,
    Faults,
    Member,
    NoisySteps,
    PartyId,
    PlanRefused,
    RoundFailed,
    Update,
    Vector,
    client_party,
)
from privfl.engine.adversaries import Adversaries
from privfl.engine.client import nothing_of
from privfl.engine.notes import Notes
from privfl.engine.order import Order, Told
from privfl.engine.session import Session
from privfl.engine.state import RunState
from privfl.training import Executor, Failed

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
    """

    def __init__(
        self,
        session: Session[O],
        executor: Executor,
        adversaries: Adversaries,
        seeds: CoinSource,
        faults: Faults,
    ) -> None:
        self.session, self.executor = session, executor
        self.adversaries, self.seeds, self.faults = adversaries, seeds, faults
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
        with notes.stage("train"):
            trained, frames, made, noisy, told = self._train(order, state, notes, charge)
        with notes.stage("client seats", foreign=bool(order.side.seats)):
            prepared, seats = self._prepare(order, state, trained, notes)
        with notes.stage("attack", foreign=bool(order.scenario.attackers)):
            effects = self.adversaries.apply_attacks(order, prepared, state)
            notes.fired |= effects.fired
            liars = {**self.faults.byzantine, **effects.byzantine}
            notes.liars |= effects.liars
            notes.liars |= {c for c in order.plan.cohort if client_party(c) in liars}
        with notes.stage("bound"):
            bounded = self._bounded(order, told, prepared, frames, notes)
            parties = {
                client: order.side.entered(
                    self.session.member(client), told.plans_of(client), parts
                )
                for client, parts in bounded.items()
            }
        charge(noisy)
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
        return replace(
            made,
            carried=carried,
            client_seats=seats,
            attacks=effects.memory,
            updates=prepared,
            sent={client: _extra(parts) for client, parts in bounded.items()},
        )

    def _train(
        self, order: Order, state: RunState, notes: Notes, charge: Charging
    ) -> tuple[dict[ClientId, Update], dict[ClientId, memoryview], Returned[O], Noisy, Told]:
        """Every client's training; a round that ends here, because all failed, is charged here."""
        cohort = order.plan.cohort
        nothing: Returned[O] = Returned(Carried({}, {}, (), {}))
        if not cohort:
            return {}, {}, nothing, {}, Told(order.plans)
        rows = self._rows(len(cohort), order.plan.d)
        with notes.resting.interrupted():
            tasks = [self.adversaries.task(client, order, state) for client in cohort]
            results = self.executor.train(order.base, tasks, rows, self.seeds)
        whole = self._matrix.numpy().data.cast("B")
        stride = 4 * self._matrix.shape[1]
        updates: dict[ClientId, Update] = {}
        frames: dict[ClientId, memoryview] = {}
        states: dict[ClientId, ClientState] = {}
        noisy: dict[ClientId, tuple[NoisySteps, ...]] = {}
        losses: list[float] = []
        for row, (client, result) in enumerate(zip(cohort, results, strict=True)):
            noisy[client] = result.noisy
            if isinstance(result, Failed):
                notes.wrong("train", f"client {client} failed: {result.why}", client)
                continue
            updates[client] = result.update(rows[row])
            frames[client] = whole[row * stride : (row + 1) * stride]
            states[client] = result.state
            losses.append(result.loss)
        alone = order.side.synchronous and not order.pipeline.private
        if not updates and alone:  # with noise it would tell of clients' data
            charge(noisy)
            first = next(result for result in results if isinstance(result, Failed))
            raise RoundFailed(
                f"round {order.plan.number}: training failed at every client; client"
                f" {first.client}: {first.why}"
            )
        made = replace(nothing, clients=states, losses=tuple(losses))
        sent = {
            task.client: task.broadcast
            for task in tasks
            if task.broadcast is not None and task.broadcast is not order.bases.get(task.client)
        }
        return updates, frames, made, noisy, Told.of(order, sent)

    def _prepare(
        self, order: Order, state: RunState, trained: Mapping[ClientId, Update], notes: Notes
    ) -> tuple[dict[ClientId, Update], dict[int, dict[ClientId, Any]]]:
        """Every client's seats; a client that trains or sends by code of its own has none."""
        side = order.side
        memory = {i: dict(by_client) for i, by_client in state.client_seats.items()}
        changed = dict.fromkeys(side.seats, 0)
        prepared = dict(trained)
        for client, update in trained.items() if side.seats else ():
            if not self.adversaries.obeys(client, order.plan.number):
                continue
            known = {i: memory[i][client] for i in side.seats if client in memory.get(i, {})}
            start = order.base_of(client).parameters
            sent, kept, at = side.prepared(update, known, order.plan, start)
            for i, remembered in kept.items():
                memory.setdefault(i, {})[client] = remembered
            for i in at:
                changed[i] += 1
            if sent.delta is not update.delta:
                update.delta.copy_(sent.delta)
            prepared[client] = replace(sent, delta=update.delta)
        for i, count in changed.items():
            if count:
                name = f"{type(side.seats[i]).__name__} at the clients"
                notes.fired[name] = f"changed {count} of {order.plan.n} updates"
        return prepared, memory

    def _bounded(
        self,
        order: Order,
        told: Told,
        prepared: Mapping[ClientId, Update],
        frames: Mapping[ClientId, memoryview],
        notes: Notes,
    ) -> dict[ClientId, Mapping[str, Bounded]]:
        sent: dict[ClientId, Mapping[str, Bounded]] = {}
        refused_by = set[ClientId]()
        for client, update in prepared.items():
            conduct = self.adversaries.conduct(client, order.plan.number)
            plans = told.plans_of(client)
            base = told.models.get(client) or order.digest_of(client)
            try:
                sent[client] = order.side.bounded(
                    plans, update, base, frames[client], conduct, order.scale(client)
                )
            except PlanRefused as refused:
                refused_by.add(client)
                notes.wrong("plan", str(refused), client)
            except BadUpdate as bad:
                notes.wrong("bound", str(bad), client)
        # under a claim of privacy a client's data do not decide whether it is there: noise is
        # scaled by the number of rows, and its scale would tell
        for client in order.plan.cohort if order.pipeline.private else ():
            if client not in sent and client not in refused_by:
                plans, base = (
                    told.plans_of(client),
                    told.models.get(client) or order.digest_of(client),
                )
                sent[client] = order.side.bounded(plans, nothing_of(order.plans, client), base)
        return sent

    def _rows(self, n: int, d: int) -> torch.Tensor:
        if self._matrix.shape[0] < n or self._matrix.shape[1] != _HEAD + d:
            self._matrix = torch.empty(n, _HEAD + d)
        return self._matrix[:n, _HEAD:]


def _extra(parts: Mapping[str, Bounded]) -> Mapping[str, Vector]:
    return {part: one.delta for part, one in parts.items() if part != "delta"}
