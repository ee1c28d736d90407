"""What the attackers of a scenario do in a round: to their data, their training, their updates and
their parties.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from privfl.attacks.backdoor.backdoor import Backdoor
from privfl.attacks.backdoor.learned import LearnedTrigger
from privfl.core import (
    CPU,
    Attack,
    Bounded,
    Broadcast,
    ClientId,
    ClientState,
    CoinSource,
    ConfigError,
    Dataset,
    Party,
    PartyPoison,
    RoundKnowledge,
    RoundPlan,
    Rows,
    Update,
    Vector,
    bends_loss,
    client_party,
    is_measured,
    is_measured_by_client,
    poisons_and_remembers,
    poisons_bounded,
    poisons_broadcast,
    poisons_data,
    poisons_party,
    poisons_training,
    poisons_updates,
)
from privfl.engine.client import Conduct
from privfl.engine.encoding import encoded
from privfl.engine.order import Order
from privfl.engine.path import RealPath
from privfl.engine.records import ACTED, ATTACK
from privfl.engine.scenario import Scenario
from privfl.engine.state import RunState
from privfl.training import Task, WithStatistics, evaluate, plain

OWN_SAMPLES = 512
"""On how many of their own samples at most attackers try a model."""
_NEW = ClientState()


@dataclass(slots=True)
class AttackEffects:
    """What attackers did in a round: which parties lie, what they remember, a word on each, and
    through which clients' updates they acted. An attacker that changes what its clients are sent is
    the server: they are its victims. One that lies where a defence asks sends an honest update.
    """

    byzantine: dict[str, Any] = field(default_factory=dict)
    memory: dict[int, dict[ClientId, Any]] = field(default_factory=dict)
    fired: dict[str, str] = field(default_factory=dict)
    liars: set[ClientId] = field(default_factory=set)


class Adversaries:
    """The attackers of a scenario. What they remember is in the `RunState`; here is only the data
    that they spoilt.
    """

    def __init__(self, scenario: Scenario, seeds: CoinSource) -> None:
        self.scenario, self.seeds = scenario, seeds
        self._spoilt: dict[tuple[ClientId, tuple[int, ...]], Dataset] = {}
        for i, attacker in enumerate(scenario.attackers):
            for client in sorted(attacker.clients):
                attack = attacker.at(client)
                if poisons_data(attack):
                    self._data(client, (i,))  # refuses what cannot be spoilt before any training
                elif isinstance(attack, Backdoor | LearnedTrigger):
                    attack.ready(self._honest_data(client))

    def task(self, client: ClientId, order: Order, state: RunState) -> Task:
        """A client's training in a round, as the attackers that act through it have it."""
        method: Any = None
        sent = order.bases.get(client)
        spoilers: list[int] = []
        plan = order.plan
        for i, attack in self._through(client, plan.number):
            if poisons_data(attack):
                spoilers.append(i)
            if poisons_training(attack):
                method = attack.poison_training(RoundKnowledge(plan, state.parameters, state.last))
            if bends_loss(attack):
                trained = plain(self.scenario.workload.method)
                method = replace(trained, objective=attack)  # type: ignore[type-var]
            if poisons_broadcast(attack):
                rng = self.seeds.generator("broadcast", plan.number, client)
                sent = attack.poison_broadcast(sent or order.base, client, rng)
        data = self._data(client, tuple(spoilers)) if spoilers else None
        if data is None and method is not None:  # with all that an attacker knows of its samples
            data = self._honest_data(client)
        index = None if data is not None else self.scenario.clients[client]
        task = Task(client, index, state.clients.get(client, _NEW), data, sent, method)
        # who trains in a way of its own encodes nothing
        own_way = method is not None
        return task if own_way else encoded(task, self.scenario, self.seeds, plan.number)

    def obeys(self, client: ClientId, round: int) -> bool:
        """Whether a client runs the honest code up to its update, be it on bad data: attackers
        that craft updates of honest ones begin with what an honest client would send.
        """
        dishonest = {"training", "wire", "party"}
        return not any(dishonest & attack.seats for _, attack in self._through(client, round))

    def apply_attacks(
        self, order: Order, updates: Mapping[ClientId, Update], state: RunState
    ) -> AttackEffects:
        """Let every attacker that acts in this round rewrite its clients' updates in place, and
        name its lying parties.
        """
        plan = order.plan
        acting = [attacker.acting(plan.cohort, plan.number) for attacker in self.scenario.attackers]
        honest = [client for client in updates if not any(client in clients for clients in acting)]
        done = AttackEffects(memory={i: dict(by_team) for i, by_team in state.attacks.items()})
        for i, attacker in enumerate(self.scenario.attackers):
            mine = [client for client in acting[i] if client in updates]
            if not mine:
                continue
            if "update" in attacker.attack.seats:
                try:
                    for team in attacker.teams(mine):
                        self._rewrite(order, updates, state, i, team, honest, done)
                # with this cohort: what is impossible with every cohort was refused before
                except ConfigError as impossible:
                    done.fired[f"{ATTACK}{attacker.name}"] = f"stood idle: {impossible}"
                    continue
            if attacker.attack.seats - {"broadcast", "answer"}:
                done.liars |= set(mine)
            for client in mine:
                attack = attacker.at(client)
                if poisons_party(attack):
                    done.byzantine[client_party(client)] = _liar(attack, plan, client)
            done.fired[f"{ATTACK}{attacker.name}"] = f"{ACTED}{len(mine)} of {plan.n} clients"
        return done

    def conduct(self, client: ClientId, round: int) -> Conduct | None:
        """What a client hands its own party in place of its bounded update; None: that update."""
        attacks = [a for _, a in self._through(client, round) if poisons_bounded(a)]
        if not attacks:
            return None

        def handed_over(honest: Bounded, unbounded: Vector) -> Bounded:
            for attack in attacks:
                honest = attack.poison_bounded(honest, unbounded)
            return honest

        return handed_over

    def _through(self, client: ClientId, round: int) -> Iterator[tuple[int, Attack]]:
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
            attack = self.scenario.attackers[last].at(client)
            known = own
            if poisons_data(attack):  # whose chance, and whatever it makes of it, is the CPU's
                rng = self.seeds.generator("poison", last, client)
                known = attack.poison_data(own.to(CPU), rng).to(own.x.device)
            self._spoilt[client, spoilers] = known
        return known

    def _rewrite(
        self,
        order: Order,
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
        knowledge = self._knowledge(order, updates, state, attack, team, honest)
        rng = self.seeds.generator(
            "attack", order.plan.number, i, *(() if attacker.colluding else team)
        )
        if poisons_and_remembers(attack):
            memory = done.memory.setdefault(i, {})
            name = min(attacker.clients) if attacker.colluding else team[0]
            before = memory[name] if name in memory else attack.init()
            rows, memory[name] = attack.poison_and_remember(own, knowledge, before, rng)
        elif poisons_updates(attack):
            rows = attack.poison_updates(own, knowledge, rng)
        else:
            return
        for client, row in zip(team, rows, strict=True):
            updates[client].delta.copy_(row)

    def _knowledge(
        self,
        order: Order,
        updates: Mapping[ClientId, Update],
        state: RunState,
        attack: Attack,
        team: Sequence[ClientId],
        honest: Sequence[ClientId],
    ) -> RoundKnowledge:
        path = RealPath(order, state, self.seeds, attack.knows == "rule", tuple(team))
        most = order.plan.max_weight  # what a client half makes of any larger claim
        claims = {client: min(update.weight, most) for client, update in updates.items()}
        benign: Rows | None = None
        if attack.knows in ("benign", "rule") and honest:
            sent = replace(path, team=tuple(honest)).sent(
                torch.stack([updates[client].delta for client in honest])
            )
            weights = torch.tensor([claims[client] for client in honest])
            benign = Rows(sent, weights, tuple(honest))
        return RoundKnowledge(
            order.plan,
            state.parameters,
            state.last,
            benign,
            path,
            weights=torch.tensor([claims[client] for client in team]),
            total=float(sum(claims.values())),
            rate=float(self.scenario.server_optimizer.lr),
            loss=lambda model: self._loss(team, model, order.base),
        )

    def _loss(self, team: Sequence[ClientId], parameters: Vector, base: Broadcast) -> float:
        """The mean loss of a model [d] on samples of this team's own."""
        index = torch.cat([self.scenario.clients[client] for client in team])
        work = self.scenario.workload
        work.model.write(parameters)
        if isinstance(work.method, WithStatistics):
            work.method.stand(work.model, base.aux)
        step = -(-len(index) // OWN_SAMPLES)
        return evaluate(work.model.module, work.data.take(index[::step])).loss


def measures(
    scenario: Scenario,
    states: Mapping[ClientId, ClientState],
    module: torch.nn.Module,
    test: Dataset,
) -> dict[str, float]:
    """Every attack's success on a model, by attack and name; of one that each of its clients
    measures on its own, the mean over them.
    """
    found: dict[str, float] = {}
    for attacker in scenario.attackers:
        attack = attacker.attack
        each: list[Mapping[str, float]] = []
        if is_measured(attack):
            each.append(attack.measure(module, test))
        if is_measured_by_client(attack):
            for client in sorted(attacker.clients):
                own = scenario.workload.data.take(scenario.clients[client])
                known = states.get(client, _NEW)
                each.append(attack.measure_of(own, known, module, test))
        for name in each[0] if each else ():
            values = [one[name] for one in each]
            found[f"{attacker.name}: {name}"] = sum(values) / len(values)
    return found


def _liar(attack: PartyPoison, plan: RoundPlan, client: ClientId) -> Any:
    def replaced(honest: Party) -> Party:
        return attack.poison_party(honest, plan, client)

    return replaced
