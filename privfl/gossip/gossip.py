"""Gossip learning, round by round: every node trains, is the server of a run with its neighbours,
and moves.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import (
    BadUpdate,
    Bounded,
    Broadcast,
    ClientId,
    ConfigError,
    Faults,
    Ledger,
    Neighbours,
    NoisySteps,
    Opened,
    Outcome,
    RoundPlan,
    Rows,
    Sampling,
    Seeds,
    Sensitivity,
    Total,
    Vector,
    client_party,
)
from privfl.dp import Clip, NoBound
from privfl.dp.charges import stepped
from privfl.engine import Session
from privfl.engine.journal import Journal
from privfl.gossip.liars import refuse_knowledge, rows_for
from privfl.gossip.rules import OwnLoss
from privfl.gossip.scenario import GossipScenario
from privfl.gossip.state import Edge, GossipState
from privfl.training import Failed, Task, executors

NOBODY: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True)
class NodeRun:
    """What came of one node's run in a round: its plan, and who got through to it. The protocol's
    messages are in ``outcome`` where they were kept.
    """

    node: int
    plan: RoundPlan
    outcome: Outcome[Any] = field(repr=False)

    @property
    def opened(self) -> Opened[Any] | None:
        """What the node opened."""
        return self.outcome.opened

    @property
    def survivors(self) -> tuple[ClientId, ...]:
        """The neighbours whose rows the node holds, alone or in the sum."""
        return () if self.opened is None else self.opened.survivors


@dataclass(frozen=True)
class GossipRound:
    """All that happened in a round. ``trained`` [n, d] are the changes that nodes' own training
    made, with their noise: what nobody but the node is to know. ``cut`` are the edges along which
    less was sent than had changed, because of the bound on messages; ``incidents`` went wrong.
    """

    number: int
    runs: Mapping[int, NodeRun] = field(repr=False)
    trained: Float[Tensor, "n d"] = field(repr=False)
    losses: tuple[float, ...] = ()
    incidents: tuple[str, ...] = ()
    cut: tuple[Edge, ...] = ()
    silent: Mapping[int, int] = field(default_factory=dict)

    @property
    def bytes_sent(self) -> int:
        """All bytes that travelled."""
        return sum(run.outcome.bytes_sent() for run in self.runs.values())


class Gossip:
    """Decentralised learning over a graph (Lian et al. 2017): in each round a node trains from its
    own model, sends each neighbour the change since its last send, and moves by what its rule makes
    of what it holds of its neighbours.

    Every node is the server of its own `engine.Session` with its neighbours as clients, in a
    session that no other node's messages fit. A sender adds up what it SENT, as it was cut and
    rounded, and only where the receiver says that it arrived; so both ends of an edge hold the same
    copy, and with the mean what one end gains by an edge the other one loses: the average of all
    models is kept, whatever bounds and rounding do, in rounds in which everybody takes part.

    What a node learns of others is more than one round shows: see `gossip.audit`.

    Args:
        scenario: the run's parts.
        executor: as in `training.executors`.
        ledger_file: where charges go before the first message of a round, where nodes add noise.
    """

    def __init__(
        self,
        scenario: GossipScenario,
        *,
        executor: str = "sequential",
        ledger_file: Path | None = None,
    ) -> None:
        self.scenario = scenario
        self.seeds = Seeds(scenario.seed)
        for attacker in scenario.attackers:
            refuse_knowledge(attacker, scenario.attackers_know)
        self.executor, self.executed_by = executors(
            scenario.workload, scenario.clients, executor, seed=scenario.seed
        )
        self.start = scenario.workload.model.read().clone()
        self.sessions = {i: Session(scenario.channel, scenario.mail) for i in range(self._n)}
        self._journal = Journal(ledger_file)
        self._id = secrets.token_bytes(16)
        self._cut = (
            NoBound() if math.isinf(scenario.message_bound) else Clip(scenario.message_bound)
        )

    @property
    def _n(self) -> int:
        return self.scenario.graph.n

    @property
    def ledger(self) -> Ledger:
        """What nodes' own noise has spent: each node's data pay for every round, in the eyes of
        everybody else.
        """
        return self._journal.ledger()

    def begin(self) -> GossipState:
        """Everybody at the module's own parameters, which must be public."""
        return GossipState.begin(self.scenario.graph, self.start)

    def close(self) -> None:
        """Give back what training holds."""
        self.executor.close()

    def play(
        self, state: GossipState, silent: Mapping[int, int] = NOBODY, *, keep: bool = False
    ) -> tuple[GossipState, GossipRound]:
        """One round; the state after it, and what happened.

        Args:
            state: before the round.
            silent: nodes that say nothing from this exchange on, in their own run and in those of
                their neighbours; from 0 on they train and hear nothing either.
            keep: keep every message, as audits need.

        Raises:
            ConfigError: a node that is not there is to be silent.
        """
        strangers = [i for i in silent if not 0 <= i < self._n]
        if strangers:
            raise ConfigError(f"node {strangers[0]} is to be silent, and there is no such node.")
        awake = [i for i in range(self._n) if silent.get(i, 1) > 0]
        incidents: list[str] = []
        self._charge(state.round)
        trained, losses = self._train(state, awake, incidents)
        half = state.models + trained
        sent: dict[Edge, Vector] = dict(state.sent)
        sums, runs = dict(state.sums), dict[int, NodeRun]()
        cut: list[Edge] = []
        for i in awake:
            plan = self._plan(state.round, i)
            rows = self._rows(state, half, plan, i, awake, incidents, cut)
            faults = Faults(
                silent_from={
                    ("server" if k == i else client_party(k)): at
                    for k, at in silent.items()
                    if at > 0 and (k == i or k in plan.cohort)
                }
            )
            session = self.sessions[i]
            session.enrol(plan.cohort)
            outcome = session.play(plan, rows, faults, keep_bodies=keep)
            runs[i] = NodeRun(i, plan, outcome)
            incidents += [
                f"node {i}: {who} was left out: {why}"
                for who, why in (outcome.opened.excluded if outcome.opened else {}).items()
            ]
            self._take(runs[i], rows, sent, sums, incidents)
        models = half.clone()
        for i, run in runs.items():
            if i not in silent and run.opened is not None:
                models[i] += self._move(i, run, half, sent, sums)
        self.scenario.workload.model.write(self.start)  # the module stays as it was
        done = GossipRound(
            state.round, runs, trained, losses, tuple(incidents), tuple(cut), dict(silent)
        )
        return GossipState(state.round + 1, models, sent, sums), done

    def _charge(self, number: int) -> None:
        """Every node's data pay for its own noise, before anything leaves it."""
        mechanism, noise = self.scenario.mechanism, self.scenario.noise.at(number)
        if mechanism is None:
            return
        moved = self._moved(number)
        _, event = mechanism.share(torch.zeros(self.start.numel()), moved, self._n, noise)
        if event is None:
            return
        once = NoisySteps(event, Sampling("all", 1.0, self._n), repeatable=noise.repeatable)
        who = Neighbours("client", "replace_one")
        self._journal.enter(stepped(number, (once,), who, against="server_and_clients"))

    def _moved(self, number: int) -> Sensitivity:
        """By how much a node's data move its training in a round, whose clip may be its own."""
        return Sensitivity(2 * self.scenario.bound.at(number).l2)

    def _train(
        self, state: GossipState, awake: list[int], incidents: list[str]
    ) -> tuple[Float[Tensor, "n d"], tuple[float, ...]]:
        """The changes [n, d] of nodes' own training, bounded, with their noise, in float64."""
        scenario, number = self.scenario, state.round
        trained = torch.zeros(self._n, self.start.numel(), dtype=torch.float64)
        out = torch.empty(len(awake), self.start.numel())
        tasks = [
            Task(i, scenario.clients[i], broadcast=Broadcast(number, state.models[i].float()))
            for i in awake
        ]
        if not tasks:
            return trained, ()
        results = self.executor.train(Broadcast(number, self.start), tasks, out, self.seeds)
        losses = []
        bound = scenario.bound.at(number)
        noise = scenario.noise.at(number)
        for row, (node, result) in enumerate(zip(awake, results, strict=True)):
            delta = torch.zeros_like(out[row])
            if isinstance(result, Failed):
                incidents.append(f"node {node} trained nothing: {result.why}")
            else:
                losses.append(result.loss)
                try:
                    delta = Bounded(node, bound(out[row]), bound.l2).delta
                except BadUpdate as bad:
                    incidents.append(f"node {node} trained nothing: {bad}")
            if scenario.mechanism is not None:  # a node whose training failed sends noise as well
                delta = scenario.mechanism.share(delta, self._moved(number), self._n, noise)[0]
            trained[node] = delta.double()
        return trained, tuple(losses)

    def _plan(self, number: int, node: int) -> RoundPlan:
        graph = self.scenario.graph
        cohort = graph.neighbours[node]
        named = hashlib.sha256(b"privfl/gossip/1" + self._id + node.to_bytes(8, "little"))
        return RoundPlan(
            number,
            cohort,
            self.start.numel(),
            self.scenario.message_bound,
            max_weight=float(max(graph.weight(node, k) for k in cohort)),
            session=named.digest(),
        )

    def _rows(
        self,
        state: GossipState,
        half: Float[Tensor, "n d"],
        plan: RoundPlan,
        node: int,
        awake: list[int],
        incidents: list[str],
        cut: list[Edge],
    ) -> dict[ClientId, Bounded]:
        """What the node's neighbours send it: the change since their last send, within its bound,
        with the edge's weight.
        """
        scenario, there = self.scenario, [k for k in plan.cohort if k in awake]
        acting = {k for one in scenario.attackers for k in one.acting(there, plan.number)}
        honest = [k for k in there if k not in acting]
        wanted = {k: half[k] for k in there}
        for number, attacker in enumerate(scenario.attackers):
            try:
                lies = rows_for(
                    attacker, number, plan, scenario.graph, node, half, there, honest, self.seeds
                )
            except ConfigError as impossible:
                incidents.append(f"node {node}: {attacker.name} stood idle: {impossible}")
                continue
            wanted |= {k: half[node] + row for k, row in lies.items()}
        rows: dict[ClientId, Bounded] = {}
        for k, model in wanted.items():
            whole = (model - state.sent[k, node]).float()
            change = self._cut(whole)
            if change is not whole:
                cut.append((k, node))
            weight = float(scenario.graph.weight(node, k))
            if k in acting:
                rows[k] = Bounded.claimed(k, change, plan.l2, weight)
                continue
            try:
                rows[k] = Bounded(k, change, plan.l2, weight)
            except BadUpdate as bad:
                incidents.append(f"node {node} hears nothing of node {k}: {bad}")
        return rows

    def _take(
        self,
        run: NodeRun,
        rows: Mapping[ClientId, Bounded],
        sent: dict[Edge, Vector],
        sums: dict[int, Vector],
        incidents: list[str],
    ) -> None:
        """Both ends of each edge add what arrived to their copies of the sender."""
        i, opened = run.node, run.opened
        if opened is None:
            why = "; ".join(f"{who}: {abort}" for who, abort in run.outcome.aborts.items())
            incidents.append(f"node {i} opened nothing: {why or 'too few neighbours answered'}")
            return
        if isinstance(opened.what, Rows):
            for k, row in zip(opened.what.ids or (), opened.what.values, strict=True):
                sent[k, i] = sent[k, i] + row.double()
            return
        total: Total = opened.what
        sums[i] = sums[i] + total.value.double()
        encodes = self.scenario.channel.able.encodes
        for k in opened.survivors:
            share = rows[k].weight / run.plan.max_weight
            row = rows[k].delta
            if encodes is not None:
                row = encodes.arrives(row * share, run.plan) / share
            sent[k, i] = sent[k, i] + row.double()

    def _move(
        self,
        i: int,
        run: NodeRun,
        half: Float[Tensor, "n d"],
        sent: Mapping[Edge, Vector],
        sums: Mapping[int, Vector],
    ) -> Vector:
        """How far node i moves [d]."""
        graph = self.scenario.graph
        weights = graph.weights[i]
        if self.scenario.summed:
            own = sum(
                (weights[k] * sent[i, k] for k in graph.neighbours[i]),
                torch.zeros_like(half[i]),
            )
            return sums[i] - own
        who = list(run.survivors)
        values = torch.stack([sent[k, i] - sent[i, k] for k in who])
        return self.scenario.rule(Rows(values, weights[who], run.survivors), self._loss(i, half[i]))

    def _loss(self, node: int, model: Vector) -> OwnLoss:
        """The mean loss on a node's own samples of the model that is so far from its own."""
        workload = self.scenario.workload
        data = workload.data.take(self.scenario.clients[node])

        def loss(move: Vector) -> float:
            workload.model.write((model + move).float())
            with torch.inference_mode():
                return float(workload.loss(workload.model.module, data.x, data.y))

        return loss
