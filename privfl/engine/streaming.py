"""Rounds that keep no rows: each client is trained when its party needs the update, and its row is
written over by the next client's.

A row lives from its client's training until its letter is written, so of n rows there are as many
as the executor trains together, whatever n. What may want rows of several clients, or all of them
after the round, keeps them (`why_rows_are_kept`); the result is the same, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from privfl.core import (
    Bounded,
    ClientId,
    ClientMember,
    ConfigError,
    Faults,
    Mail,
    Member,
    Party,
    PartyId,
    before_the_rule,
    client_party,
)
from privfl.core.streaming import EntersLater, ReadsSum, SumsRows
from privfl.engine.making import Making
from privfl.engine.order import Order, Told
from privfl.training import Executor, TrainsInTurn

STREAMS_FROM = 32 << 20
"""Bytes of rows from which on they are not kept: fewer are not worth a call of the executor each.
"""
RANK: Mapping[str, int] = {"train": 0, "plan": 1, "bound": 1}
"""Where what went wrong at a stage stands among the rest, as if all clients were trained first."""


def why_rows_are_kept(order: Order, executor: Executor, faults: Faults, server: Member) -> str:
    """Why all rows of a round lie in memory at once, in words; empty where they need not."""
    scenario = order.scenario
    channel, rule = scenario.channel, scenario.aggregator
    if not channel.able.streams:
        return f"{type(channel).__name__} does not say that its letters hold no rows"
    if channel.kind.opens == "rows":
        if any(before_the_rule(defence) for defence in scenario.defences):
            return "a defence before the rule reads them"
        if not isinstance(rule, ReadsSum) or not rule.streams(order.plan.d):
            return f"{type(rule).__name__} reads rows of this length"
        if not isinstance(server, SumsRows):
            return "its server cannot add rows up as they come"
    if len(order.plans) > 1:
        return "the round has several parts, which travel together"
    if scenario.attackers:
        return "attackers may be handed all of them"
    if scenario.mail != "bare":
        return "signed letters are opened in the exchange after they were written"
    if not faults.silence_alone:
        return "letters are late, doubled or changed on the way, or parties lie"
    if scenario.workload.method.gradient.private:
        return "noise in training is charged before anything is sent"
    if not isinstance(executor, TrainsInTurn):
        return f"{type(executor).__name__} trains all clients together"
    return ""


def size_of(order: Order) -> int:
    """Bytes of all rows of a round."""
    return 4 * order.plan.n * order.plan.d


def rows_said(order: Order, why_kept: str, few: int, *, audited: bool) -> dict[str, str]:
    """A fact of the report: whether all rows of a round lie in memory at once, and why they do; of
    rounds that are kept for an audit apart.
    """
    lies = f"all {order.plan.n} of a round at once ({size_of(order) >> 20:,} MiB)"
    if audited:
        return {"rows in memory where an audit keeps the round": lies}
    streamed = f"{few} of the {order.plan.n} of a round at once"
    return {"rows in memory": f"{lies}: {why_kept}" if why_kept else streamed}


def sums_rows(order: Order) -> bool | None:
    """How a server that reads rows adds them up: by their weights, or each times 1; None: it reads
    no rows.
    """
    rule = order.scenario.aggregator
    if order.scenario.channel.kind.opens != "rows" or not isinstance(rule, ReadsSum):
        return None
    return rule.weighted


def rows_at_once(executor: Executor) -> int:
    """How many rows an executor writes at a time."""
    return executor.together if isinstance(executor, TrainsInTurn) else 1


@dataclass(slots=True)
class OneAfterTheOther:
    """Makes updates when they are asked for, ``together`` at a time, in as many rows, which
    ``room`` makes [together, d] with the frame of each. ``seconds`` is the CPU time of that by the
    party that asked.

    Clients are trained once, in the order of the cohort, and parties ask in that order. Once all
    have, the rows are let go of.
    """

    making: Making
    together: int
    room: Callable[[int], tuple[torch.Tensor, Sequence[memoryview]]]
    rows: tuple[torch.Tensor, Sequence[memoryview]] | None = None
    seconds: dict[PartyId, float] = field(default_factory=dict)
    left: dict[ClientId, None] = field(default_factory=dict)
    ready: dict[ClientId, Mapping[str, Bounded]] = field(default_factory=dict)
    gone: set[ClientId] = field(default_factory=set)
    told: Told = field(init=False)

    def __post_init__(self) -> None:
        self.told = Told(self.making.order.plans)
        self.left = dict.fromkeys(self.making.order.plan.cohort)

    def party(self, client: ClientId, member: ClientMember) -> Party:
        """A client's party, whose update is made when it is due."""
        plan, update = self.making.order.plan, partial(self.update, client)
        if isinstance(member, EntersLater):
            return member.enter_later(plan, update)

        def entered() -> Party | None:
            bounded = update()
            return None if bounded is None else member.enter(plan, bounded)

        return Late(entered)

    def update(self, client: ClientId) -> Bounded | None:
        """A client's bounded update; None where it has none to send.

        Raises:
            ConfigError: it asks a second time, or after a client that comes later.
        """
        if client in self.gone:
            raise ConfigError(
                f"client {client} asks for its update out of its turn: its channel says that it"
                " streams, and does not."
            )
        began = time.thread_time()
        if client in self.left:
            self._next(client)
        who = client_party(client)
        self.seconds[who] = self.seconds.get(who, 0.0) + time.thread_time() - began
        self.gone.add(client)
        parts = self.ready.pop(client, None)
        if not self.left and not self.ready:
            self._forget_rows()
        return None if parts is None else parts["delta"]

    def _next(self, client: ClientId) -> None:
        """Make the updates of this client and of those after it, in the rows that there are.

        Raises:
            ConfigError: training made noise that was not announced, and so is not charged.
        """
        self.gone.update(self.ready)
        self.ready.clear()
        making, few = self.making, [client]
        for other in self.left:
            if len(few) == self.together:
                break
            if other != client:
                few.append(other)
        for one in few:
            del self.left[one]
        if self.rows is None:
            self.rows = self.room(self.together)
        rows, frames = self.rows
        with making.notes.stage("train"):
            making.train(few, rows[: len(few)], frames)
        for one in few:
            if making.noisy[one]:  # nothing of it is sent before it is charged
                raise ConfigError(
                    f"training of client {one} added noise that is to be charged, and its gradient"
                    " does not say that it is private: set private on it, and the round is charged"
                    " before anything is sent."
                )
        with making.notes.stage("client seats", foreign=bool(making.order.side.seats)):
            making.seat(few)
        with making.notes.stage("bound"):
            self.ready = making.bound(few, self.told)

    def finish(self) -> None:
        """Train who was never asked, because its party had fallen silent: it does not know that."""
        while self.left:
            self._next(next(iter(self.left)))
        self.ready.clear()
        self._forget_rows()

    def _forget_rows(self) -> None:
        self.rows = None
        self.making.forget_rows()


@dataclass(slots=True)
class Late:
    """A client's party whose update is made when it speaks; without one it stays silent."""

    entered: Callable[[], Party | None]
    party: Party | None = None
    begun: bool = False

    def step(self, mail: Mail) -> Mail:
        """What the party says."""
        if not self.begun:
            self.begun, self.party = True, self.entered()
        return {} if self.party is None else self.party.step(mail)
