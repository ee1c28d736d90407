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
    Context,
    RoundPlan,
    Sensitivity,
    Vector,
    at_the_client,
    secret_generator,
)
from privfl.dp.pipeline import Pipeline
from privfl.engine.client import BITS, ClientSide
from privfl.engine.scenario import Scenario
from privfl.engine.state import RunState


@dataclass(frozen=True, slots=True)
class Order:
    """A round's plans by part, the model that everybody starts from, the client half of this round,
    what the server's own members are told, the scenario with the round's own bound and noise, and
    how its vectors leave.
    """

    plans: Mapping[str, RoundPlan]
    base: Broadcast
    side: ClientSide
    context: Context
    scenario: Scenario
    pipeline: Pipeline

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
        cohort = now.sampler.draw(tuple(now.clients), coins)
        plans = plans_of(self.scenario, state.bound, number, cohort, self.session, (base.digest,))
        pipeline = self.scenario.pipeline(number, state.bound)
        side = side_of(self.scenario, state.bound, number, pipeline, seeds)
        rng = seeds.generator("rule in channel", number)
        told = Context(plans["delta"], state.parameters, rng, state.released)
        return Order(plans, base, side, told, now, pipeline)


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
    )
