"""What clients do before their parties speak, for a whole cohort at once or a few clients at a
time: training, seats, bounds, and what the round remembers of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from privfl.core import (
    BadUpdate,
    Bounded,
    Broadcast,
    ClientId,
    ClientState,
    CoinSource,
    NoisySteps,
    PlanRefused,
    RoundFailed,
    Update,
)
from privfl.engine.adversaries import Adversaries
from privfl.engine.client import nothing_of
from privfl.engine.notes import Notes
from privfl.engine.order import Order, Told
from privfl.engine.state import RunState
from privfl.training import Executor, Failed


@dataclass(slots=True)
class Making:
    """The clients' side of one round as it goes on.

    ``updates``, ``frames``, ``states``, ``noisy`` and ``losses`` are of whom was trained so far;
    ``sent`` what a lying server sent in place of the model; ``memory`` what the seats at clients
    remember, and ``changed`` how many updates each of them changed; ``failures`` are the clients'
    that failed.
    """

    order: Order
    state: RunState
    notes: Notes
    executor: Executor
    adversaries: Adversaries
    seeds: CoinSource
    updates: dict[ClientId, Update] = field(default_factory=dict)
    frames: dict[ClientId, memoryview] = field(default_factory=dict)
    states: dict[ClientId, ClientState] = field(default_factory=dict)
    noisy: dict[ClientId, tuple[NoisySteps, ...]] = field(default_factory=dict)
    losses: dict[ClientId, float] = field(default_factory=dict)
    sent: dict[ClientId, Broadcast] = field(default_factory=dict)
    memory: dict[int, dict[ClientId, Any]] = field(default_factory=dict)
    changed: dict[int, int] = field(default_factory=dict)
    failures: dict[ClientId, Failed] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seats = self.state.client_seats
        self.memory = {i: dict(by_client) for i, by_client in seats.items()}
        self.changed = dict.fromkeys(self.order.side.seats, 0)

    def train(
        self, clients: Sequence[ClientId], rows: torch.Tensor, frames: Sequence[memoryview]
    ) -> None:
        """Train these clients, each into its row [d], which lies in its frame."""
        order = self.order
        with self.notes.resting.interrupted():
            tasks = [self.adversaries.task(client, order, self.state) for client in clients]
            results = self.executor.train(order.base, tasks, rows, self.seeds)
        for i, (client, result) in enumerate(zip(clients, results, strict=True)):
            self.noisy[client] = result.noisy
            if isinstance(result, Failed):
                self.notes.wrong("train", f"client {client} failed: {result.why}", client)
                self.failures[client] = result
                continue
            self.updates[client] = result.update(rows[i])
            self.frames[client] = frames[i]
            self.states[client] = result.state
            self.losses[client] = result.loss
        for task in tasks:
            broadcast = task.broadcast
            if broadcast is not None and broadcast is not order.bases.get(task.client):
                self.sent[task.client] = broadcast

    def seat(self, clients: Sequence[ClientId]) -> None:
        """The seats of these clients; one that trains or sends by code of its own has none."""
        side, order = self.order.side, self.order
        for client in clients if side.seats else ():
            update = self.updates.get(client)
            if update is None or not self.adversaries.obeys(client, order.plan.number):
                continue
            memory = self.memory
            known = {i: memory[i][client] for i in side.seats if client in memory.get(i, {})}
            start = order.base_of(client).parameters
            sent, kept, at = side.prepared(update, known, order.plan, start)
            for i, remembered in kept.items():
                memory.setdefault(i, {})[client] = remembered
            for i in at:
                self.changed[i] += 1
            if sent.delta is not update.delta:
                update.delta.copy_(sent.delta)
            self.updates[client] = replace(sent, delta=update.delta)

    def note_seats(self) -> None:
        """Say how many updates each seat changed, once all went through them."""
        for i, count in self.changed.items():
            if count:
                name = f"{type(self.order.side.seats[i]).__name__} at the clients"
                self.notes.fired[name] = f"changed {count} of {self.order.plan.n} updates"

    def bound(
        self, clients: Sequence[ClientId], told: Told
    ) -> dict[ClientId, Mapping[str, Bounded]]:
        """What these clients hand their parties, by part; who has nothing to send is left out."""
        order, sent = self.order, dict[ClientId, Mapping[str, Bounded]]()
        for client in clients:
            update, refused = self.updates.get(client), False
            plans, base = told.plans_of(client), self._base(client, told)
            if update is not None:
                conduct = self.adversaries.conduct(client, order.plan.number)
                frame, scale = self.frames[client], order.scale(client)
                try:
                    sent[client] = order.side.bounded(plans, update, base, frame, conduct, scale)
                except PlanRefused as why:
                    refused = True
                    self.notes.wrong("plan", str(why), client)
                except BadUpdate as bad:
                    self.notes.wrong("bound", str(bad), client)
            # under a claim of privacy a client's data do not decide whether it is there: noise is
            # scaled by the number of rows, and its scale would tell
            if order.pipeline.private and client not in sent and not refused:
                nothing = nothing_of(order.plans, client)
                sent[client] = order.side.bounded(plans, nothing, base)
        return sent

    def in_order(self) -> tuple[float, ...]:
        """The losses of whom training came to something, as the cohort lists them."""
        cohort = self.order.plan.cohort
        return tuple(self.losses[client] for client in cohort if client in self.losses)

    def forget_rows(self) -> None:
        """Let go of the rows, which were written over: of updates what is known beside them."""
        self.frames.clear()
        none = torch.empty(0)
        for client, update in self.updates.items():
            self.updates[client] = replace(update, delta=none)

    def _base(self, client: ClientId, told: Told) -> str:
        return told.models.get(client) or self.order.digest_of(client)

    @property
    def alone(self) -> RoundFailed | None:
        """Why the round ends where training failed at every client; None where it did not, or where
        noise hides it.
        """
        order = self.order
        failed = (self.failures[c] for c in order.plan.cohort if c in self.failures)
        first = next(failed, None)
        if self.updates or first is None or order.pipeline.private or not order.side.synchronous:
            return None
        return RoundFailed(
            f"round {order.plan.number}: training failed at every client; client"
            f" {first.client}: {first.why}"
        )
