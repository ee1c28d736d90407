"""What the server asks of a round: who takes part, what each part is bound to, and from which model
everybody starts.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from privfl.core import (
    Broadcast,
    ClientId,
    CoinSource,
    ConfigError,
    Context,
    RoundPlan,
    Sensitivity,
    Vector,
    at_the_client,
    secret_generator,
)
from privfl.dp.pipeline import Pipeline
from privfl.engine.client import BITS, ClientSide
from privfl.engine.pace import Arrivals, Clock
from privfl.engine.scenario import Scenario
from privfl.engine.state import RunState


@dataclass(frozen=True, slots=True)
class Order:
    """A round's plans by part, the model of now, the client half of this round, what the server's
    own members are told, the scenario with the round's own bound and noise, and how its vectors
    leave.

    Everybody starts from the model of now, but for clients that were sent theirs in an earlier
    round of an asynchronous run: ``bases``. ``digests`` are those of all models that the cohort
    started from, by version, and ``clock`` is the time when the last of it delivered.
    """

    plans: Mapping[str, RoundPlan]
    base: Broadcast
    side: ClientSide
    context: Context
    scenario: Scenario
    pipeline: Pipeline
    bases: Mapping[ClientId, Broadcast] = field(default_factory=dict)
    digests: Mapping[int, str] = field(default_factory=dict)
    clock: Clock = Clock()

    def base_of(self, client: ClientId) -> Broadcast:
        """What a client was sent."""
        return self.bases.get(client, self.base)

    def digest_of(self, client: ClientId) -> str:
        """The digest of what a client was sent."""
        version = self.base_of(client).version
        return self.digests[version] if version in self.digests else self.base_of(client).digest

    def staleness(self, client: ClientId) -> int:
        """How many steps the server made since it sent a client its model."""
        return self.plan.number - self.base_of(client).version

    def scale(self, client: ClientId) -> float:
        """By what a client multiplies its bounded update."""
        return self.scenario.pace.scale(self.staleness(client))

    @property
    def plan(self) -> RoundPlan:
        """The delta's plan."""
        return self.plans["delta"]


@dataclass(frozen=True, slots=True)
class Told:
    """What the parties of a round are told that it is about.

    ``plans`` are the server's own and the helpers', by part, ``to`` the clients' to whom the server
    says something else; ``models`` is the digest of the model that each such client was sent.

    A server that sends some clients another model also names that model in their plans, or they
    would refuse them (`ClientSide.agreed`). A plan can name one model only, so it chooses in whose
    round its own members and the helpers are: here that of the model which most clients were sent.
    In an asynchronous round a plan names several anyway: it names its own among them to everybody.
    """

    plans: Mapping[str, RoundPlan]
    to: Mapping[ClientId, Mapping[str, RoundPlan]] = field(default_factory=dict)
    models: Mapping[ClientId, str] = field(default_factory=dict)

    @classmethod
    def of(cls, order: Order, sent: Mapping[ClientId, Broadcast]) -> Told:
        """From the round's order, and what an active server sent to clients in its place."""
        if not sent:
            return cls(order.plans)
        models = {client: broadcast.digest for client, broadcast in sent.items()}
        honest = order.plan.models
        if not order.side.synchronous:
            several = (*honest, *(one for one in models.values() if one not in honest))
            lied = {part: replace(plan, models=several) for part, plan in order.plans.items()}
            return cls(lied, models=models)
        by_client = {c: (models[c],) if c in models else honest for c in order.plan.cohort}
        counts = Counter(by_client.values())
        most = max(counts, key=lambda named: (counts[named], named == honest))

        def naming(named: tuple[str, ...]) -> Mapping[str, RoundPlan]:
            return {part: replace(plan, models=named) for part, plan in order.plans.items()}

        plans = {named: naming(named) for named in counts}
        return cls(plans[most], {c: plans[n] for c, n in by_client.items() if n != most}, models)

    def plans_of(self, client: ClientId) -> Mapping[str, RoundPlan]:
        """A client's plans."""
        return self.to.get(client, self.plans)


@dataclass
class Planner:
    """Makes the order of each round of a scenario.

    A ``session`` has each round once: an order for a round that it had, or went past, begins
    another one. The plans of two plays of one state are never the same, so neither protocol
    messages nor signed letters of the first are taken in the second.
    """

    scenario: Scenario
    session: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    _next: int = field(default=0, init=False)

    @property
    def extra(self) -> Mapping[str, int]:
        """Length of each extra vector that the method sends beside the delta."""
        return self.scenario.workload.method.parts(self.scenario.workload.model.d)

    @property
    def sums(self) -> int:
        """How many sums a whole run opens: of every part, and of the bits of an adaptive bound."""
        bits = self.scenario.adaptive is not None
        return self.scenario.rounds * (1 + len(self.extra) + bits)

    def order(self, state: RunState, aux: Mapping[str, Vector]) -> Order:
        """The round that comes next; ``aux`` is what the method's server half broadcasts."""
        if state.round < self._next:
            self.session = secrets.token_bytes(16)
        self._next = state.round + 1
        base, seeds = Broadcast(state.round, state.parameters, aux), self.scenario.seeds
        now, number = self.scenario.in_round(state.round, state.bound), state.round
        secret = now.threat.sampling == "secret"
        coins = secret_generator(now.noise) if secret else seeds.generator("sampling", number)
        drawn = now.sampler.draw(tuple(now.clients), coins)
        rng = seeds.generator("pace", number)
        came, clock = now.pace.arrivals(state.clock, drawn, number, rng)
        live = {**state.versions, number: base}
        cohort, models = _arrived(now, drawn, came, live)
        digests = {version: live[version].digest for version in models}
        plans = plans_of(
            self.scenario, state.bound, number, cohort, self.session, tuple(digests.values())
        )
        pipeline = self.scenario.pipeline(number, state.bound)
        side = side_of(self.scenario, state.bound, number, pipeline, seeds)
        rng = seeds.generator("rule in channel", number)
        told = Context(plans["delta"], state.parameters, rng, state.released)
        bases = {client: live[came[client]] for client in cohort if came[client] != number}
        return Order(plans, base, side, told, now, pipeline, bases, digests, clock)


def _arrived(
    scenario: Scenario,
    drawn: tuple[ClientId, ...],
    came: Arrivals,
    live: Mapping[int, Broadcast],
) -> tuple[tuple[ClientId, ...], list[int]]:
    """The cohort and the versions that it has, once what a pace says is what it may say.

    Raises:
        ConfigError: a synchronous pace that leaves somebody out or names another model than that of
            now; one that names a stranger, fewer clients than ``k``, or a version that nobody was
            sent.
    """
    now, pace = max(live), scenario.pace
    cohort = drawn if pace.synchronous else tuple(client for client in drawn if client in came)
    expected = len(drawn) if pace.synchronous else pace.k
    missing = not set(cohort) <= came.keys()
    if len(cohort) != len(came) or len(came) < expected or missing:
        raise ConfigError(
            f"{type(pace).__name__} names {len(came)} clients for a round of {expected}, or others"
            " than the run has: a cohort is whom the sampler draws, or k or more who arrive."
        )
    versions = sorted(set(came.values())) or [now]
    unknown = [v for v in versions if v not in live or (pace.synchronous and v != now)]
    if unknown:
        raise ConfigError(
            f"{type(pace).__name__} delivers an update of version {unknown[0]} in round {now + 1},"
            " of which no model is under way."
        )
    return cohort, versions


def plans_of(
    scenario: Scenario,
    l2: float | None,
    number: int,
    cohort: tuple[ClientId, ...],
    session: bytes,
    models: tuple[str, ...],
) -> dict[str, RoundPlan]:
    """The plans of a round's parts; ``l2`` is where an adaptive bound has got to. Whoever has the
    same scenario makes the same ones.
    """
    now = scenario.in_round(number, l2)
    method, d = now.workload.method, now.workload.model.d
    delta = RoundPlan(
        number, cohort, d, now.sent_l2, now.weighs_at_most, session=session, models=models
    )
    plans = {"delta": delta}
    for part, length in method.parts(d).items():
        plans[part] = replace(delta, d=length, l2=now.part_bound(part).l2, part=part)
    if scenario.adaptive is not None:
        plans[BITS] = replace(delta, d=1, l2=0.5, max_weight=1.0, part=BITS)
    return plans


def side_of(
    scenario: Scenario, l2: float | None, number: int, pipeline: Pipeline, seeds: CoinSource
) -> ClientSide:
    """The client half of a round; ``seeds`` are the client's simulation randomness."""
    now = scenario.in_round(number, l2)
    d, local = now.workload.model.d, now.local_noise
    parts = now.workload.method.parts(d)
    return ClientSide(
        {i: seat for i, seat in enumerate(now.defences) if at_the_client(seat)},
        {"delta": now.bound, **{part: now.part_bound(part) for part in parts}},
        seeds,
        now.noise,
        now.round_noise if local else None,
        pipeline.norms("delta", d) if local else Sensitivity(float("inf")),
        scenario.adaptive,
        now.pace.synchronous,
    )
