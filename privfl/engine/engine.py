"""The round, from top to bottom: sample, broadcast, train, attack, bound, send, open, aggregate,
noise, apply, record.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch

from privfl.core import (
    FRAME_ROOM,
    AfterSeat,
    BadUpdate,
    BeforeSeat,
    Bounded,
    Broadcast,
    Charge,
    ClientId,
    ClientSeat,
    ClientState,
    ConfigError,
    Context,
    DpEvent,
    Faults,
    Incident,
    Opened,
    Outcome,
    RoundFailed,
    RoundPlan,
    Rows,
    RuleWithMemory,
    Seeds,
    Sensitivity,
    TooManyByzantine,
    Transcript,
    Update,
    client_of,
    client_party,
    dropped,
    norm,
)
from privfl.engine.adversaries import Adversaries
from privfl.engine.aggregation import Aggregate, aggregate, merged
from privfl.engine.scenario import Scenario
from privfl.engine.seams import AdaptiveBound
from privfl.engine.session import Session
from privfl.engine.state import RunState
from privfl.training import Executor, Failed, ServerHalf

_HEAD = FRAME_ROOM // 4
_BITS = "norms under the bound"


@dataclass(frozen=True, slots=True)
class RoundResult:
    """A round that was played: the state after it, its transcript, and the clients' mean training
    losses.
    """

    state: RunState
    transcript: Transcript
    train_losses: tuple[float, ...]


@dataclass(slots=True)
class _Round:
    """A round in the making; ``scenario`` has the round's own bound and noise."""

    plan: RoundPlan
    scenario: Scenario
    seconds: dict[str, float] = field(default_factory=dict)
    incidents: list[Incident] = field(default_factory=list)
    fired: dict[str, str] = field(default_factory=dict)
    charges: list[Charge] = field(default_factory=list)
    updates: dict[ClientId, Update] = field(default_factory=dict)
    frames: dict[ClientId, memoryview] = field(default_factory=dict)
    states: dict[ClientId, ClientState] = field(default_factory=dict)
    attacks: dict[int, dict[ClientId, Any]] = field(default_factory=dict)
    losses: tuple[float, ...] = ()
    local_event: DpEvent | None = None
    bits: dict[ClientId, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def wrong(self, stage: str, what: str, client: ClientId | None = None) -> None:
        self.incidents.append(Incident(stage, what, client))


@runtime_checkable
class Limited(Protocol):
    """A channel whose key opens so many sums and no more."""

    @property
    def releases(self) -> int:
        """How many."""
        ...


class Engine:
    """Plays rounds of one scenario. What lasts between rounds is the `RunState`; here are only
    buffers, workers, and the session's keys.

    Raises:
        ConfigError: the scenario cannot work (`Scenario.check`).
    """

    def __init__(
        self, scenario: Scenario, executor: Executor, faults: Faults | None = None
    ) -> None:
        scenario.check()
        self.scenario = scenario
        self.executor = executor
        self.faults = faults or Faults()
        self.seeds = Seeds(scenario.seed)
        self.session: Session[Any] = Session(scenario.channel)
        self.server = ServerHalf(scenario.workload.method, scenario.server_optimizer)
        self._id = secrets.token_bytes(16)
        self._matrix = torch.empty(0, 0)
        self.adversaries = Adversaries(scenario, self.seeds)
        weighting = getattr(scenario.workload.method, "weighting", "samples")
        self._max_weight = (
            1.0
            if weighting == "uniform"
            else float(max(len(index) for index in scenario.clients.values()))
        )
        self._parts = dict(scenario.workload.method.parts(scenario.workload.model.d))
        bound = scenario.bound
        self._adaptive = (
            bound.among(scenario.expected_cohort) if isinstance(bound, AdaptiveBound) else None
        )
        for part in self._parts:
            if scenario.bound.l2 < float("inf") and part not in scenario.part_bounds:
                raise ConfigError(
                    f"the method also sends '{part}', which needs a bound of its own here: set"
                    f" bound.parts to {{{part}: ...}}."
                )
        sums = scenario.rounds * (1 + len(self._parts))
        if isinstance(scenario.channel, Limited) and sums > scenario.channel.releases:
            raise ConfigError(
                f"{scenario.rounds} rounds open {sums} sums under one key, and it opens"
                f" {scenario.channel.releases}: raise releases."
            )

    def begin(self, executor: str) -> RunState:
        """The state before the first round."""
        model, rule = self.scenario.workload.model, self.scenario.aggregator
        parts = ("delta", *self._parts)
        return RunState(
            round=0,
            parameters=model.read().cpu(),
            executor=executor,
            method=self.server.init(model.d),
            rules={part: rule.init() for part in parts} if isinstance(rule, RuleWithMemory) else {},
            seats={
                i: d.init()
                for i, d in enumerate(self.scenario.defences)
                if isinstance(d, BeforeSeat | AfterSeat)
            },
            bound=None if self._adaptive is None else self._adaptive.init(),
        )

    def play(self, state: RunState, *, keep: bool = False) -> RoundResult:
        """One round. ``keep`` keeps every message and update for audits.

        Raises:
            RoundFailed: training failed at every client of the cohort.
        """
        number = state.round
        scenario = self.scenario.in_round(number, state.bound)
        clients = tuple(scenario.clients)
        cohort = scenario.sampler.draw(clients, self.seeds.generator("sampling", number))
        plan = RoundPlan(
            number,
            cohort,
            scenario.workload.model.d,
            scenario.sent_l2,
            self._max_weight,
            "delta",
            self._id,
        )
        now = _Round(plan, scenario)
        if not self.session.enrolled(clients):
            with now.stage("key set-up"):
                self.session.enrol(clients)
        broadcast = Broadcast(plan, state.parameters, self.server.broadcast(state.method))
        with now.stage("train"):
            self._train(now, broadcast, state)
        with now.stage("client seats"):
            client_seats = self._at_clients(now, state)
        with now.stage("attack"):
            faults = self._attack(now, state)
        with now.stage("bound"):
            bounded = self._bound(now)
        outcomes: dict[str, Outcome[Any]] = {}
        with now.stage("channel"):
            self.session.inform(
                Context(plan, state.parameters, self.seeds.generator("rule in channel", number))
            )
            outcomes["delta"] = self.session.play(plan, bounded, faults, keep_bodies=keep)
            for part in self._parts:
                outcomes[part] = self._send_part(now, part, faults, keep)
            if self._adaptive is not None:
                outcomes[_BITS] = self._send_bits(now, faults, keep)
        opened = outcomes["delta"].opened
        self._note_losses(now, outcomes["delta"])
        after, changed = state.parameters, state
        if opened is not None or (not cohort and scenario.mechanism is not None):
            with now.stage("aggregate"):
                done = self._aggregate(now, outcomes, state)
            if done is not None:
                state = replace(state, bound=self._adapt(now, outcomes, state, done))
                now.charges += done.charges
                with now.stage("apply"):
                    fraction = len(cohort) / len(clients)
                    after, method = self.server.step(
                        state.parameters, done.vector, done.aux, state.method, fraction
                    )
                    changed = replace(
                        merged(state, done, bool(state.rules)), method=method, last=done.vector
                    )
        else:
            now.wrong("channel", "nothing was opened, so the model stays as it was")
        changed = replace(
            changed,
            round=number + 1,
            parameters=after,
            clients={**state.clients, **now.states},
            client_seats=client_seats,
            attacks=now.attacks,
            ledger=state.ledger.charged(tuple(now.charges)),
        )
        if keep:
            outcomes = {part: _kept(outcome) for part, outcome in outcomes.items()}
            updates = {c: replace(u, delta=u.delta.clone()) for c, u in now.updates.items()}
        else:
            outcomes = {part: _forgotten(outcome) for part, outcome in outcomes.items()}
            updates = {}
        transcript = Transcript(
            plan=plan,
            before=state.parameters,
            after=after,
            outcomes=outcomes,
            updates=updates,
            seconds=now.seconds,
            charges=tuple(now.charges),
            incidents=tuple(now.incidents),
            fired=now.fired,
            facts=scenario.facts,
            channel=scenario.channel if keep else None,
            members=self.session.members if keep else {},
        )
        return RoundResult(changed, transcript, now.losses)

    def close(self) -> None:
        """Give back workers."""
        self.executor.close()

    # ---- stages
    # ---------------------------------------------------------------------------------------------

    def _rows(self, n: int, d: int) -> torch.Tensor:
        if self._matrix.shape[0] < n or self._matrix.shape[1] != _HEAD + d:
            self._matrix = torch.empty(n, _HEAD + d)
        return self._matrix[:n, _HEAD:]

    def _train(self, now: _Round, broadcast: Broadcast, state: RunState) -> None:
        cohort = now.plan.cohort
        if not cohort:
            return
        tasks = [self.adversaries.task(client, broadcast, state) for client in cohort]
        rows = self._rows(len(cohort), now.plan.d)
        results = self.executor.train(broadcast, tasks, rows, self.seeds)
        whole = self._matrix.numpy().data.cast("B")
        stride = 4 * self._matrix.shape[1]
        losses = []
        for row, (client, result) in enumerate(zip(cohort, results, strict=True)):
            if isinstance(result, Failed):
                now.wrong("train", f"client {client} failed: {result.why}", client)
                continue
            now.updates[client] = result.update(rows[row])
            now.frames[client] = whole[row * stride : (row + 1) * stride]
            now.states[client] = result.state
            now.charges.extend(result.charges)
            losses.append(result.loss)
        now.losses = tuple(losses)
        if not now.updates:
            first = next(result for result in results if isinstance(result, Failed))
            raise RoundFailed(
                f"round {now.plan.number}: training failed at every client; client {first.client}:"
                f" {first.why}"
            )

    def _at_clients(self, now: _Round, state: RunState) -> dict[int, dict[ClientId, Any]]:
        """The clients' own half of the defences; a client that runs other code than the honest one
        has none.
        """
        defences = [
            (i, d) for i, d in enumerate(self.scenario.defences) if isinstance(d, ClientSeat)
        ]
        memory = {i: dict(by_client) for i, by_client in state.client_seats.items()}
        changed = {i: 0 for i, _ in defences}
        for client, update in now.updates.items() if defences else ():
            if not self.adversaries.obeys(client, now.plan.number):
                continue
            sent = update
            for i, defence in defences:
                context = Context(
                    now.plan,
                    state.parameters,
                    self.seeds.generator("client seat", now.plan.number, client, i),
                )
                known = memory.setdefault(i, {})
                before = sent.delta
                sent, known[client] = defence.at_client(
                    sent, known.get(client, defence.init_client()), context
                )
                changed[i] += sent.delta is not before
            if sent.delta is not update.delta:
                update.delta.copy_(sent.delta)
        for i, defence in defences:
            if changed[i]:
                now.fired[f"{type(defence).__name__} at the clients"] = (
                    f"changed {changed[i]} of {now.plan.n} updates"
                )
        return memory

    def _attack(self, now: _Round, state: RunState) -> Faults:
        effects = self.adversaries.apply_attacks(now.plan, now.updates, state)
        now.attacks = effects.memory
        now.fired |= effects.fired
        return (
            replace(self.faults, byzantine={**self.faults.byzantine, **effects.byzantine})
            if effects.byzantine
            else self.faults
        )

    def _bound(self, now: _Round) -> dict[ClientId, Bounded]:
        scenario, number = now.scenario, now.plan.number
        bounded: dict[ClientId, Bounded] = {}
        for client, update in now.updates.items():
            lies = self.adversaries.lies_about(client, number)
            unbounded = update.delta.clone() if lies else update.delta
            length = 0.0 if self._adaptive is None else norm(update.delta)
            try:
                delta = scenario.bound(update.delta)
                if scenario.mechanism is not None and scenario.local_noise:
                    Bounded(client, delta, scenario.bound.l2)  # refuse NaN before noise hides it
                    delta, now.local_event = scenario.mechanism.share(
                        delta,
                        Sensitivity(2 * scenario.bound.l2),
                        max(now.plan.n, 1),
                        scenario.noise,
                    )
                if delta is not update.delta:
                    update.delta.copy_(delta)
                bounded[client] = Bounded(
                    client, update.delta, scenario.sent_l2, update.weight, now.frames[client]
                )
            except BadUpdate as bad:
                now.wrong("bound", str(bad), client)
                continue
            if self._adaptive is not None:
                now.bits[client] = self._adaptive.bit(length, scenario.bound.l2)
            if lies:
                bounded[client] = self.adversaries.handed_over(bounded[client], unbounded, number)
        return bounded

    def _send_part(self, now: _Round, part: str, faults: Faults, keep: bool) -> Outcome[Any]:
        l2 = self.scenario.part_bounds.get(part, float("inf"))
        plan = replace(now.plan, d=self._parts[part], l2=l2, part=part)
        bounded: dict[ClientId, Bounded] = {}
        for client, update in now.updates.items():
            vector = update.aux[part]
            length = float(torch.linalg.vector_norm(vector, dtype=torch.float64))
            if length > l2:
                vector = vector * (l2 * (1 - 1e-6) / length)
            try:
                bounded[client] = Bounded(client, vector, l2, update.weight)
            except BadUpdate as bad:
                now.wrong("bound", f"{bad} ({part})", client)
        return self.session.play(plan, bounded, faults, keep_bodies=keep)

    def _send_bits(self, now: _Round, faults: Faults, keep: bool) -> Outcome[Any]:
        """Whether each norm was under the bound, through the same channel: where it sums, nobody
        reads a single bit.
        """
        plan = replace(now.plan, d=1, l2=0.5, max_weight=1.0, part=_BITS)
        bounded = {
            client: Bounded(client, torch.tensor([bit]), 0.5) for client, bit in now.bits.items()
        }
        return self.session.play(plan, bounded, faults, keep_bodies=keep)

    def _adapt(
        self, now: _Round, outcomes: Mapping[str, Outcome[Any]], state: RunState, done: Aggregate
    ) -> float | None:
        """Where the adaptive bound goes from here. The count is charged together with the update
        that the same cohort made.
        """
        if self._adaptive is None or state.bound is None:
            return None
        opened = outcomes[_BITS].opened
        if opened is None and now.plan.cohort:
            return state.bound
        scenario = now.scenario
        noise = None if scenario.mechanism is None else scenario.noise
        row = scenario.channel.row_bound(0.5, 1)
        sensitivity = row.step if scenario.relation() == "replace_one" else row.l2
        moved, event = self._adaptive.step(state.bound, _sum(opened), noise, sensitivity)
        if event is not None:
            done.charges = [
                replace(charge, event=self._adaptive.together(charge.event, event))
                for charge in done.charges
            ]
        now.fired[type(self.scenario.bound).__name__] = (
            f"the bound of the next round is {moved:.4g} (it was {state.bound:.4g})"
        )
        return moved

    def _aggregate(
        self, now: _Round, outcomes: Mapping[str, Outcome[Any]], state: RunState
    ) -> Aggregate | None:
        try:
            done = aggregate(now.scenario, now.plan, outcomes, self._parts, state, now.local_event)
        except (TooManyByzantine, BadUpdate) as refused:
            now.wrong("aggregate", f"{refused} The model stays as it was.")
            return None
        now.fired |= done.fired
        return done

    def _note_losses(self, now: _Round, outcome: Outcome[Any]) -> None:
        opened = outcome.opened
        for who, why in opened.excluded.items() if opened is not None else ():
            now.wrong("channel", f"{who} was excluded: {why}", client_of(who))
        for who, abort in outcome.aborts.items():
            blamed = f" (blames {abort.blamed})" if abort.blamed else ""
            now.wrong("channel", f"{who} gave up: {abort}{blamed}", client_of(who))
        if opened is not None:
            for client in dropped(now.plan, opened.survivors):
                if client in now.updates and client_party(client) not in opened.excluded:
                    now.wrong("channel", f"client {client} did not get through", client)


def _sum(opened: Opened[Any] | None) -> float:
    """The sum of the bits that got through; of none where nobody was drawn."""
    if opened is None:
        return 0.0
    what = opened.what
    return float(what.weights @ what.values[:, 0] if isinstance(what, Rows) else what.value[0])


def _kept(outcome: Outcome[Any]) -> Outcome[Any]:
    opened = outcome.opened
    if opened is None or not isinstance(opened.what, Rows):
        return outcome
    return replace(
        outcome,
        opened=replace(opened, what=replace(opened.what, values=opened.what.values.clone())),
    )


def _forgotten(outcome: Outcome[Any]) -> Outcome[Any]:
    """Without the rows, whose memory the next round uses again."""
    opened = outcome.opened
    if opened is None or not isinstance(opened.what, Rows):
        return outcome
    return replace(
        outcome, opened=replace(opened, what=Rows(torch.empty(0, 0), torch.empty(0), ()))
    )
