"""The round, from top to bottom: sample, broadcast, train, attack, bound, send, open, aggregate,
noise, apply, record.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from privfl.core import (
    BadUpdate,
    Broadcast,
    ClientId,
    ClientState,
    ConfigError,
    Faults,
    Opened,
    TooManyByzantine,
    Transcript,
    after_the_rule,
    before_the_rule,
)
from privfl.dp.memory import NoiseMemory
from privfl.engine.adapting import adapted
from privfl.engine.adversaries import Adversaries
from privfl.engine.aggregation import Aggregate, aggregate, merged
from privfl.engine.budget import Budget
from privfl.engine.carrier import Carrier, Returned, Simulated
from privfl.engine.checks import check_scenario
from privfl.engine.journal import Journal
from privfl.engine.keeping import note_losses, transcript_of
from privfl.engine.mixing import mixed
from privfl.engine.notes import Notes
from privfl.engine.opening import too_few
from privfl.engine.order import Order, Planner
from privfl.engine.scenario import Scenario
from privfl.engine.session import Session
from privfl.engine.spending import Spending
from privfl.engine.state import RunState
from privfl.training import Executor, ServerHalf


@dataclass(frozen=True, slots=True)
class RoundResult:
    """A round that was played: the state after it, its transcript, and the clients' mean training
    losses.
    """

    state: RunState
    transcript: Transcript
    train_losses: tuple[float, ...]


class Engine:
    """Plays rounds of one scenario. What lasts between rounds is the `RunState`; here are only
    buffers, workers, the ``carrier`` (a simulation of all parties unless one is given) with the
    session's keys, what correlated noise remembers (a resumed run has lost
    it, and begins anew at a price), the ``journal`` in which a round is charged before its first
    message (in memory unless one is given), and the ``budget`` that it must not pass.

    Raises:
        ConfigError: the scenario cannot work (`check_scenario`).
    """

    def __init__(
        self,
        scenario: Scenario,
        executor: Executor,
        faults: Faults | None = None,
        journal: Journal | None = None,
        budget: Budget | None = None,
        carrier: Carrier[Any] | None = None,
    ) -> None:
        check_scenario(scenario)
        self.scenario = scenario
        self.executor = executor
        self.journal = Journal() if journal is None else journal
        self.memory = NoiseMemory()
        self.account = None if budget is None else budget.opened()
        self.planner = Planner(scenario)
        self.server = ServerHalf(scenario.workload.method, scenario.server_optimizer)
        seeds = scenario.seeds
        self.carrier: Carrier[Any] = carrier or Simulated(
            Session(scenario.channel, scenario.mail),
            executor,
            Adversaries(scenario, seeds),
            seeds,
            faults or Faults(),
        )
        most = scenario.channel.able.sums
        if most is not None and self.planner.sums > most:
            raise ConfigError(
                f"{scenario.rounds} rounds open {self.planner.sums} sums under one key, and it"
                f" opens {most}: raise releases."
            )

    def begin(self, executor: str) -> RunState:
        """The state before the first round."""
        scenario, adaptive = self.scenario, self.scenario.adaptive
        rule, seats = scenario.aggregator, enumerate(scenario.defences)
        parts = ("delta", *self.planner.extra)
        return RunState(
            round=0,
            parameters=scenario.workload.model.read().cpu(),
            executor=executor,
            method=self.server.init(scenario.workload.model.d),
            rules={part: rule.init() for part in parts} if rule.remembers else {},
            seats={i: d.init() for i, d in seats if before_the_rule(d) or after_the_rule(d)},
            bound=None if adaptive is None else adaptive.init(),
            ledger=self.journal.ledger(),
            name=secrets.token_bytes(16) if scenario.elsewhere else b"",
        )

    def play(self, state: RunState, *, keep: bool = False, digests: bool = False) -> RoundResult:
        """One round. ``keep`` keeps every message and update for audits, ``digests`` the SHA-256
        of every message.

        Raises:
            RoundFailed: training failed at every client of the cohort.
            ParticipationBroken: a client comes sooner or more often than correlated noise allows.
            BudgetSpent: the round would pass the budget; nothing of it was sent.
            NobodyLeft: nobody is left who may deliver; nothing was sent.
        """
        notes = Notes()
        with notes.resting:
            return self._played(state, notes, keep=keep, digests=digests)

    def _played(self, state: RunState, notes: Notes, *, keep: bool, digests: bool) -> RoundResult:
        order = self.planner.order(state, self.server.broadcast(state.method))
        self.carrier.ready(self.scenario.clients, notes)
        memory = self._noise_memory(order)
        spending = Spending(order, self.journal, state.ledger, memory, self.account)
        why_not = too_few(self.scenario.channel, order.plan.n)
        if why_not and not order.pipeline.noise_alone(order.plan.n):
            notes.wrong("channel", why_not)
            spending.enter({}, released=False)
            returned: Returned[Any] = Returned.nothing(order.plans)
        else:
            returned = self.carrier.play(
                order, state, notes, spending.enter, keep=keep, digests=digests
            )
        note_losses(order.plan, returned, notes)
        with notes.stage("aggregate", foreign=True):
            done = self._aggregated(order, returned, state, notes, memory)
        if done is None:
            spending.fail()
        else:
            spending.settle(done.charges)
            with notes.stage("apply"):
                state = self._applied(order, done, state, returned.carried.opened)
        after = replace(
            state,
            round=state.round + 1,
            clients=self._remembering(returned, state, applied=done is not None),
            client_seats=returned.client_seats,
            attacks=returned.attacks,
            arrived=self._arrived(order, returned, state, applied=done is not None),
            ledger=self.journal.ledger(),
            clock=order.clock,
            versions={
                version: {**state.versions, order.plan.number: order.base}[version]
                for version in sorted(order.clock.versions)
            },
        )
        transcript = transcript_of(
            order,
            returned,
            Broadcast(after.round, after.parameters, self.server.broadcast(after.method)),
            spending.charges,
            notes,
            self.carrier.members if keep else {},
            keep=keep,
        )
        return RoundResult(after, transcript, returned.losses)

    @property
    def rows_said(self) -> Mapping[str, str]:
        """Facts for the report, where all is in this process: whether rows lay there at once."""
        return self.carrier.rows_said if isinstance(self.carrier, Simulated) else {}

    def close(self) -> None:
        """Give back workers."""
        self.executor.close()

    def _noise_memory(self, order: Order) -> NoiseMemory | None:
        """The memory of noise that hangs together, with the round's cohort in it; None where rounds
        are noised each on its own.

        Raises:
            ParticipationBroken: a client comes sooner or more often than that noise is made for.
        """
        over = order.pipeline.releases["delta"].over
        if over is None:
            return None
        self.memory.enter(order.plan, over)
        return self.memory

    def _aggregated(
        self,
        order: Order,
        returned: Returned[Any],
        state: RunState,
        notes: Notes,
        memory: NoiseMemory | None,
    ) -> Aggregate | None:
        """What the server makes of what was opened; None where the model stays as it was."""
        opened: Mapping[str, Opened[Any] | None] = returned.carried.opened
        if opened["delta"] is None and not order.pipeline.noise_alone(order.plan.n):
            notes.wrong("channel", "nothing was opened, so the model stays as it was")
            return None
        try:
            done = aggregate(order, opened, state, memory)
        except (TooManyByzantine, BadUpdate) as refused:
            notes.wrong("aggregate", f"{refused} The model stays as it was.")
            return None
        notes.fired |= done.fired
        notes.judgements += done.judgements
        done.bound = adapted(order, state.bound, done, notes)
        return done

    def _remembering(
        self, returned: Returned[Any], state: RunState, *, applied: bool
    ) -> Mapping[ClientId, ClientState]:
        """What every client remembers, once each was told which of its extra vectors are in what
        the server applied.
        """
        after = {**state.clients, **returned.clients}
        opened = returned.carried.opened if applied else {}
        got = {part: set(one.survivors) for part, one in opened.items() if one is not None}
        for client, vectors in returned.sent.items() if self.planner.extra else ():
            sent = {
                part: vectors[part]
                for part in self.planner.extra
                if part in vectors and client in got.get(part, ())
            }
            known = after.get(client, ClientState())
            after[client] = self.scenario.workload.method.arrived(known, sent)
        return after

    def _arrived(
        self, order: Order, returned: Returned[Any], state: RunState, *, applied: bool
    ) -> Mapping[ClientId, tuple[int, tuple[str, ...]]]:
        """Which extra vectors of whom are in what the server applied, beside those of before, where
        clients are elsewhere and must be told.
        """
        if not self.scenario.elsewhere:
            return state.arrived
        opened = returned.carried.opened if applied else {}
        came: dict[ClientId, tuple[str, ...]] = {}
        for part in self.planner.extra:
            got = opened.get(part)
            for client in () if got is None else got.survivors:
                came[client] = (*came.get(client, ()), part)
        number = order.plan.number
        return {**state.arrived, **{client: (number, parts) for client, parts in came.items()}}

    def _came(self, opened: Mapping[str, Opened[Any] | None]) -> int:
        """Whose extra vectors, or deltas where there are none, are in what was aggregated."""
        counted = [opened[part] for part in self.planner.extra] or [opened["delta"]]
        return min(0 if one is None else len(one.survivors) for one in counted)

    def _applied(
        self,
        order: Order,
        done: Aggregate,
        state: RunState,
        opened: Mapping[str, Opened[Any] | None],
    ) -> RunState:
        """The server's half of the method and its optimiser. It is told how many clients' vectors
        the rule divided by, as a fraction of all: a public number where there is one, else how many
        came; where noise hides that, how many are drawn on average.
        """
        released, clients = mixed(order, done.applied), len(self.scenario.clients)
        divided = self.scenario.aggregator.public_denominator
        drawn = float(self.scenario.sampling.expected) / clients
        if divided is not None:
            drawn = divided / clients
        elif not order.pipeline.private:
            drawn = self._came(opened) / clients
        after, method = self.server.step(state.parameters, released, state.method, drawn)
        kept, last = merged(state, done, bool(state.rules)), released["delta"].vector
        return replace(kept, parameters=after, method=method, last=last, bound=done.bound)
