"""What the attackers of a scenario do in a round: to their data, their training, their updates and
their parties.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from privfl.attacks.backdoor.backdoor import Backdoor
from privfl.core import (
    BeforeSeat,
    Bounded,
    BoundPoison,
    Broadcast,
    BroadcastPoison,
    ClientId,
    ClientState,
    ConfigError,
    Context,
    DataPoison,
    Dataset,
    Measured,
    NeighbourRelation,
    Objective,
    Party,
    PartyPoison,
    RememberingPoison,
    RoundKnowledge,
    RoundPlan,
    RowBound,
    Rows,
    RuleWithMemory,
    Seeds,
    TrainingPoison,
    Update,
    UpdatePoison,
    Vector,
    client_party,
)
from privfl.engine.attackers import Attacker
from privfl.engine.scenario import Scenario
from privfl.engine.state import RunState
from privfl.training import Task


@dataclass(slots=True)
class AttackEffects:
    """What attackers did in a round: which parties lie, what they remember, and a word on each."""

    byzantine: dict[str, Any] = field(default_factory=dict)
    memory: dict[int, dict[ClientId, Any]] = field(default_factory=dict)
    fired: dict[str, str] = field(default_factory=dict)


class Adversaries:
    """The attackers of a scenario. What they remember is in the `RunState`; here is only the data
    that they spoilt.
    """

    def __init__(self, scenario: Scenario, seeds: Seeds) -> None:
        self.scenario, self.seeds = scenario, seeds
        self._spoilt: dict[tuple[ClientId, tuple[int, ...]], Dataset] = {}
        for i, attacker in enumerate(scenario.attackers):
            for client in sorted(attacker.clients):
                attack = attacker.at(client)
                if isinstance(attack, DataPoison):
                    self._data(client, (i,))  # refuses what cannot be spoilt before any training
                elif isinstance(attack, Backdoor):
                    attack.ready(self._honest_data(client))

    def task(self, client: ClientId, broadcast: Broadcast, state: RunState) -> Task:
        """A client's training in a round, as the attackers that act through it have it."""
        method: Any = None
        sent = None
        spoilers: list[int] = []
        for i, attack in self._through(client, broadcast.plan.number):
            if isinstance(attack, DataPoison):
                spoilers.append(i)
            if isinstance(attack, TrainingPoison):
                method = attack.poison_training(
                    RoundKnowledge(broadcast.plan, state.parameters, state.last)
                )
            if isinstance(attack, Objective):
                method = replace(self.scenario.workload.method, objective=attack)  # type: ignore[type-var]
            if isinstance(attack, BroadcastPoison):
                rng = self.seeds.generator("broadcast", broadcast.plan.number, client)
                sent = attack.poison_broadcast(broadcast, client, rng)
        data = self._data(client, tuple(spoilers)) if spoilers else None
        index = None if data is not None else self.scenario.clients[client]
        return Task(client, index, state.clients.get(client, ClientState()), data, sent, method)

    def obeys(self, client: ClientId, round: int) -> bool:
        """Whether a client runs the honest code, be it on bad data."""
        dishonest = (UpdatePoison, RememberingPoison, TrainingPoison, BoundPoison, PartyPoison)
        return not any(isinstance(attack, dishonest) for _, attack in self._through(client, round))

    def apply_attacks(
        self, plan: RoundPlan, updates: Mapping[ClientId, Update], state: RunState
    ) -> AttackEffects:
        """Let every attacker that acts in this round rewrite its clients' updates in place, and
        name its lying parties.
        """
        acting = [attacker.acting(plan.cohort, plan.number) for attacker in self.scenario.attackers]
        honest = [client for client in updates if not any(client in clients for clients in acting)]
        done = AttackEffects(memory={i: dict(by_team) for i, by_team in state.attacks.items()})
        for i, attacker in enumerate(self.scenario.attackers):
            mine = [client for client in acting[i] if client in updates]
            if not mine:
                continue
            if isinstance(attacker.attack, UpdatePoison | RememberingPoison):
                try:
                    for team in attacker.teams(mine):
                        self._rewrite(plan, updates, state, i, team, honest, done)
                # with this cohort: what is impossible with every cohort was refused before
                except ConfigError as impossible:
                    done.fired[f"attack {attacker.name}"] = f"stood idle: {impossible}"
                    continue
            for client in mine:
                attack = attacker.at(client)
                if isinstance(attack, PartyPoison):
                    done.byzantine[client_party(client)] = _liar(attack, plan, client)
            done.fired[f"attack {attacker.name}"] = f"acted through {len(mine)} of {plan.n} clients"
        return done

    def lies_about(self, client: ClientId, round: int) -> bool:
        """Whether a client hands its own party something else than its bounded update."""
        return any(isinstance(attack, BoundPoison) for _, attack in self._through(client, round))

    def handed_over(self, honest: Bounded, unbounded: Vector, round: int) -> Bounded:
        """What a client hands its own party in place of its bounded update; ``unbounded`` [d] is
        the update before the bound.
        """
        for _, attack in self._through(honest.client, round):
            if isinstance(attack, BoundPoison):
                honest = attack.poison_bounded(honest, unbounded)
        return honest

    def _through(self, client: ClientId, round: int) -> Iterator[tuple[int, Any]]:
        for i, attacker in enumerate(self.scenario.attackers):
            if attacker.acting((client,), round):
                yield i, attacker.at(client)

    def _honest_data(self, client: ClientId) -> Dataset:
        return self.scenario.workload.data.take(self.scenario.clients[client])

    def _data(self, client: ClientId, spoilers: tuple[int, ...]) -> Dataset:
        """What a client trains on in rounds in which these attackers, by position, act through it;
        made once.
        """
        known = self._spoilt.get((client, spoilers))
        if known is None:
            *first, last = spoilers
            own = self._data(client, tuple(first)) if first else self._honest_data(client)
            attack: DataPoison = self.scenario.attackers[last].at(client)
            known = attack.poison_data(own, self.seeds.generator("poison", last, client))
            self._spoilt[client, spoilers] = known
        return known

    def _rewrite(
        self,
        plan: RoundPlan,
        updates: Mapping[ClientId, Update],
        state: RunState,
        i: int,
        team: Sequence[ClientId],
        honest: Sequence[ClientId],
        done: AttackEffects,
    ) -> None:
        attacker = self.scenario.attackers[i]
        attack = attacker.attack
        own = torch.stack([updates[client].delta for client in team])
        knowledge = self._knowledge(plan, updates, state, attack, team, honest)
        rng = self.seeds.generator("attack", plan.number, i, *(() if attacker.colluding else team))
        if isinstance(attack, RememberingPoison):
            memory = done.memory.setdefault(i, {})
            name = min(attacker.clients) if attacker.colluding else team[0]
            before = memory[name] if name in memory else attack.init()
            rows, memory[name] = attack.poison_and_remember(own, knowledge, before, rng)
        else:
            rows = attack.poison_updates(own, knowledge, rng)
        for client, row in zip(team, rows, strict=True):
            updates[client].delta.copy_(row)

    def _knowledge(
        self,
        plan: RoundPlan,
        updates: Mapping[ClientId, Update],
        state: RunState,
        attack: Any,
        team: Sequence[ClientId],
        honest: Sequence[ClientId],
    ) -> RoundKnowledge:
        scenario = self.scenario
        benign: Rows | None = None
        if attack.knows in ("benign", "rule") and honest:
            bound = scenario.in_round(plan.number, state.bound).bound
            sent = torch.stack([bound(updates[client].delta) for client in honest])
            benign = Rows(
                sent, torch.tensor([updates[client].weight for client in honest]), tuple(honest)
            )
        return RoundKnowledge(
            plan,
            state.parameters,
            state.last,
            benign,
            _ServerSide(scenario, plan, state, self.seeds) if attack.knows == "rule" else None,
            weights=torch.tensor([updates[client].weight for client in team]),
            total=float(sum(update.weight for update in updates.values())),
            rate=float(getattr(scenario.server_optimizer, "lr", 1.0)),
        )


@dataclass(frozen=True, slots=True)
class _ServerSide:
    """What the server will make of rows, tried out: seats before the rule and the rule, on copies
    of their memory.
    """

    scenario: Scenario
    plan: RoundPlan
    state: RunState
    seeds: Seeds

    def __call__(self, opened: Rows) -> Vector:
        context = Context(
            self.plan, self.state.parameters, self.seeds.generator("rule", self.plan.number)
        )
        for i, defence in enumerate(self.scenario.defences):
            if isinstance(defence, BeforeSeat):
                opened, _ = defence.before(opened, self.state.seats[i], context)
        rule = self.scenario.aggregator
        if isinstance(rule, RuleWithMemory):
            vector: Vector = rule.step(opened, self.state.rules["delta"], context)[0]
            return vector
        return rule(opened)

    def sensitivity(self, bound: RowBound, n: int, relation: NeighbourRelation) -> float:
        return self.scenario.aggregator.sensitivity(bound, n, relation)


def measures(
    attackers: Sequence[Attacker], module: torch.nn.Module, test: Dataset
) -> dict[str, float]:
    """Every attack's success on a model, by attack and name."""
    found: dict[str, float] = {}
    for attacker in attackers:
        if isinstance(attacker.attack, Measured):
            found |= {
                f"{attacker.name}: {name}": value
                for name, value in attacker.attack.measure(module, test).items()
            }
    return found


def _liar(attack: PartyPoison, plan: RoundPlan, client: ClientId) -> Any:
    def replaced(honest: Party) -> Party:
        return attack.poison_party(honest, plan, client)

    return replaced
