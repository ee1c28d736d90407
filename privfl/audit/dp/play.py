"""A run's own rounds, in which clients hand out what an auditor says in place of what they trained:
the model, the method's parts and server half, seats, bound, channel, rule, sampler, mechanism and
journal are the run's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from privfl.audit.dp.tape import (
    CountedNoise,
    OnTape,
    RunOnTape,
    SilentNoise,
    Tape,
    cohort_or,
    open_on_tape,
)
from privfl.core import (
    Bounded,
    Broadcast,
    ClientId,
    CoinSource,
    Member,
    PartyId,
    RingNoise,
    RoundPlan,
    Update,
    Vector,
)
from privfl.core.field_values import field_values
from privfl.dp.memory import NoiseMemory
from privfl.dp.part_release import PartRelease
from privfl.dp.pipeline import Pipeline
from privfl.engine import Engine, RunState, Scenario
from privfl.engine.carrier import Carrier, Charging, Returned
from privfl.engine.client import BITS, ClientSide, Conduct
from privfl.engine.journal import Journal
from privfl.engine.notes import Notes
from privfl.engine.order import Order, Planner
from privfl.training import Task
from privfl.training.task import Result, Trained

Cohorts = Callable[[int], tuple[ClientId, ...]]


@dataclass(frozen=True)
class NeighbourWorld:
    """What clients hand out: by part a row for each client [n, d], in the order of the scenario's
    clients. ``absent`` is nowhere; all that ``zeroed`` sends is zero, its bit included.
    """

    rows: Mapping[str, Tensor]
    absent: ClientId | None = None
    zeroed: ClientId | None = None


@dataclass(frozen=True, slots=True)
class Play:
    """What came of one play: the state after each round, what was on tape, and what reports would
    say beside the model.
    """

    states: tuple[RunState, ...]
    tape: Tape
    cohorts: tuple[tuple[ClientId, ...], ...]
    beside: tuple[Mapping[str, Any], ...]


class _Hands:
    """An executor that trains nobody: every client hands out its row of a world, with the weight
    that its own training would have.
    """

    def __init__(self, scenario: Scenario) -> None:
        uniform = scenario.workload.method.weighting == "uniform"
        self.at = {client: i for i, client in enumerate(scenario.clients)}
        self.weights = {
            client: 1.0 if uniform else float(len(index))
            for client, index in scenario.clients.items()
        }
        self.parts = tuple(scenario.workload.method.parts(scenario.workload.model.d))
        self.world = NeighbourWorld({})

    def train(
        self, broadcast: Broadcast, tasks: Sequence[Task], out: Tensor, seeds: CoinSource
    ) -> list[Result]:
        """Every task's row."""
        results: list[Result] = []
        for row, task in enumerate(tasks):
            at = self.at[task.client]
            out[row] = self.world.rows["delta"][at]
            aux = {part: self.world.rows[part][at].clone() for part in self.parts}
            results.append(
                Trained(task.client, self.weights[task.client], task.state, aux, loss=0.0)
            )
        return results

    def close(self) -> None:
        """Nothing to give back."""


@dataclass(frozen=True, slots=True)
class _ZeroingSide(ClientSide):
    """The client half, under which all that one client sends is zero, its bit included."""

    zeroed: ClientId | None = None

    def bounded(
        self,
        plans: Mapping[str, RoundPlan],
        update: Update,
        base: str,
        frame: memoryview | None = None,
        conduct: Conduct | None = None,
        scale: float = 1.0,
    ) -> Mapping[str, Bounded]:
        """As `ClientSide.bounded`, of zero whatever its seats made of it."""
        if update.client != self.zeroed:
            return ClientSide.bounded(self, plans, update, base, frame, conduct, scale)
        aux = {part: torch.zeros_like(vector) for part, vector in update.aux.items()}
        nothing = replace(update, delta=update.delta.zero_(), aux=aux)
        parts = ClientSide.bounded(self, plans, nothing, base, frame, conduct, scale)
        if BITS not in parts:
            return parts
        return {**parts, BITS: Bounded(update.client, torch.zeros(1), plans[BITS].l2)}


@dataclass
class _TapedPlanner(Planner):
    """The planner, whose orders have their noise on a tape, for whom the auditor says."""

    tape: Tape = field(default_factory=lambda: Tape("drawn"))
    world: NeighbourWorld = field(default_factory=lambda: NeighbourWorld({}))
    cohorts: Cohorts | None = None

    def order(self, state: RunState, aux: Mapping[str, Vector]) -> Order:
        """The next round's order."""
        order = Planner.order(self, state, aux)
        number = order.plan.number
        drawn = order.plan.cohort if self.cohorts is None else self.cohorts(number)
        cohort = cohort_or(drawn, self.world.absent)
        plans = {part: replace(plan, cohort=cohort) for part, plan in order.plans.items()}
        counted = CountedNoise(order.scenario.noise, self.tape)
        scenario = replace(order.scenario, noise=counted)
        local = order.side.local
        side = _ZeroingSide(
            order.side.seats,
            order.side.bounds,
            order.side.seeds,
            CountedNoise(order.side.noise, self.tape),
            None if local is None else OnTape(local, self.tape, number, "delta"),
            order.side.moved,
            order.side.adaptive,
            order.side.synchronous,
            self.world.zeroed,
        )
        pipeline = _on_tape(order.pipeline, self.tape, number)
        context = replace(order.context, plan=plans["delta"])
        return replace(
            order, plans=plans, scenario=scenario, side=side, pipeline=pipeline, context=context
        )


def _on_tape(pipeline: Pipeline, tape: Tape, number: int) -> Pipeline:
    releases: dict[str, PartRelease] = {}
    for part, release in pipeline.releases.items():
        mechanism = release.mechanism
        taped = None if mechanism is None else OnTape(mechanism, tape, number, part)
        over = None if release.over is None else RunOnTape(release.over, tape, number, part)
        releases[part] = replace(release, mechanism=taped, over=over)
    return replace(pipeline, releases=releases)


@dataclass(frozen=True)
class _TapedCarrier:
    """The carrier of a channel that carries noise: what it opens is on tape."""

    inner: Carrier[Any]
    tape: Tape

    @property
    def members(self) -> Mapping[PartyId, Member]:
        """The carrier's own."""
        return self.inner.members

    def ready(self, clients: Iterable[ClientId], notes: Notes) -> None:
        """Set up whoever is not."""
        self.inner.ready(clients, notes)

    def play(
        self,
        order: Order,
        state: RunState,
        notes: Notes,
        charge: Charging,
        *,
        keep: bool = False,
        digests: bool = False,
    ) -> Returned[Any]:
        """One round."""
        back = self.inner.play(order, state, notes, charge, keep=keep, digests=digests)
        opened = open_on_tape(self.tape, order.plan.number, back.carried.opened, order.plan.l2)
        return replace(back, carried=replace(back.carried, opened=opened))


class Stage:
    """One set of members, on which worlds are played. ``silent`` leaves noise in shares out, so
    that what the channel opens is what it would have met.

    Raises:
        ConfigError: as `engine.Engine`.
    """

    def __init__(self, scenario: Scenario, *, silent: bool = False) -> None:
        channel = scenario.channel
        noise: RingNoise | None = None
        if channel.able.noise is not None:
            noise = field_values(channel)[channel.kind.noise_field]
        self.shares = noise is not None
        if noise is not None and silent:
            field = {channel.kind.noise_field: SilentNoise(noise)}
            channel = replace(channel, **field)  # type: ignore[type-var]
        self.scenario = replace(scenario, channel=channel, attackers=())
        self.hands = _Hands(self.scenario)
        self.engine = Engine(self.scenario, self.hands)
        self.carrier = self.engine.carrier

    def play(
        self,
        world: NeighbourWorld,
        tape: Tape,
        rounds: int,
        *,
        session: bytes | None = None,
        cohorts: Cohorts | None = None,
    ) -> Play:
        """Play the first rounds of the run in one world. Two worlds with one ``session`` must be
        played on two stages: members refuse to enter a round twice.
        """
        engine, self.hands.world = self.engine, world
        engine.journal, engine.memory = Journal(), NoiseMemory()
        planner = _TapedPlanner(self.scenario, tape=tape, world=world, cohorts=cohorts)
        engine.planner = planner if session is None else replace(planner, session=session)
        if self.shares:
            engine.carrier = _TapedCarrier(self.carrier, tape)
        state = engine.begin("an auditor's hands")
        states, cohort, beside = [], [], []
        for number in range(rounds):
            played = engine.play(state)
            state = played.state
            states.append(state)
            cohort.append(played.transcript.plan.cohort)
            tape.charges[number] = played.transcript.charges
            said = [incident.what for incident in played.transcript.incidents]
            beside.append({"fired": played.transcript.fired, "incidents": said})
        return Play(tuple(states), tape, tuple(cohort), tuple(beside))

    def draw(self, rounds: int, seed: int, tape: Tape | None = None) -> list[tuple[ClientId, ...]]:
        """The cohorts of so many rounds as the run's own planner draws them, under another seed
        where they follow from one; a tape is told how much the noise source was asked for.
        """
        noise = CountedNoise(self.scenario.noise, Tape("drawn") if tape is None else tape)
        planner = Planner(replace(self.scenario, seed=seed, noise=noise))
        state = self.engine.begin("an auditor's hands")
        aux = self.engine.server.broadcast(state.method)
        return [planner.order(replace(state, round=t), aux).plan.cohort for t in range(rounds)]
