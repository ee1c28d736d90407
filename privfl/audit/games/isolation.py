"""A server that keeps one client apart, played round by round."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from privfl.attacks.rows import readable
from privfl.audit.rehearsal import rehearse
from privfl.core import (
    Attack,
    AttackSeat,
    Broadcast,
    ClientId,
    ConfigError,
    NotVisible,
    Vector,
    View,
)
from privfl.engine import Attacker
from privfl.federation import Federation


@dataclass(frozen=True, slots=True, eq=False)
class _Apart(Attack):
    """Sends one client another model than the round's."""

    seats: ClassVar[frozenset[AttackSeat]] = frozenset({"broadcast"})
    client: ClientId
    model: Vector = field(repr=False)

    def poison_broadcast(
        self, broadcast: Broadcast, client: ClientId, rng: torch.Generator
    ) -> Broadcast:
        """The victim's own last model, for the victim."""
        if client != self.client:
            return broadcast
        return replace(broadcast, parameters=self.model.clone())


def isolated(federation: Federation, victim: ClientId, rounds: int) -> tuple[View, ...]:
    """The server's views of so many rounds in which ``victim`` is kept apart (Wang et al. 2019,
    section 5.3): it is sent its own last model in place of everybody's, so that what it trains is
    of its samples alone. What it was sent is the victim's base in each view.

    Each round is a run of its own through the federation's channel, with fresh coins, from the
    models of the last one; what clients remember between rounds is lost. Everybody else's model
    still takes the victim's change in. Where a plan names the model, the victim's contribution fits
    nobody's sum and is refused: then its rows are missing, and it stays at its first model.

    Raises:
        ConfigError: there is no such client, or no round.

    >>> from privfl.core import Dataset
    >>> x = torch.linspace(-1, 1, 12 * 4).view(12, 4)
    >>> clients = [Dataset(x[i::3], torch.arange(4) % 2, 2) for i in range(3)]
    >>> views = isolated(Federation(torch.nn.Linear(4, 2), clients, clients[0]), 1, rounds=2)
    >>> torch.equal(views[1].bases[1], views[0].before + views[0].rows.values[1])
    True
    """
    scenario = federation.scenario
    if victim not in scenario.clients or rounds < 1:
        raise ConfigError(
            f"client {victim} cannot be kept apart for {rounds} rounds: name one of the"
            f" {len(scenario.clients)} clients, and at least one round."
        )
    model = scenario.workload.model
    start = model.read()
    everybody, own = start.clone(), start.clone()
    views: list[View] = []
    try:
        for number in range(rounds):
            model.write(everybody)
            sends = Attacker("keeps one apart", _Apart(victim, own), frozenset([victim]))
            told = replace(scenario, attackers=(*scenario.attackers, sends))
            seed = scenario.seed + number
            run = rehearse(federation.with_scenario(told), scenario.clients, 1, seed=seed)
            view = run.view("server", 0)
            views.append(replace(view, bases={**view.bases, victim: own}))
            everybody, own = view.after, own + _change(view, victim)
    finally:
        model.write(start)
    return tuple(views)


def _change(view: View, victim: ClientId) -> Vector:
    """What the victim's model moved by; nothing where it is in no row."""
    try:
        rows = readable(view)
    except NotVisible:
        return torch.zeros_like(view.before)
    if rows.ids is None or victim not in rows.ids:
        return torch.zeros_like(view.before)
    return rows.values[rows.ids.index(victim)] / view.scale(victim)
