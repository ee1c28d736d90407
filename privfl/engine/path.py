"""The real way of a row from its client to the model, for attackers that try their candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import (
    ClientId,
    CoinSource,
    ConfigError,
    Context,
    Rows,
    Vector,
    before_the_rule,
)
from privfl.engine.order import Order
from privfl.engine.state import RunState


@dataclass(frozen=True, slots=True)
class RealPath:
    """What arrives of an attacker's rows, and what the server's side makes of all rows (`Path`).

    It is made of the same client half and the same rule as the round itself, on copies of the
    server's memory. Chance is the attackers' own: the round's coins (which groups, which rows a
    randomised rule draws) are the server's, and are not in it.
    """

    order: Order
    state: RunState
    seeds: CoinSource
    knows_rule: bool
    team: tuple[ClientId, ...] = ()

    def sent(self, rows: Float[Tensor, "f d"]) -> Float[Tensor, "f d"]:
        """Bounded, as the client half bounds them, and encoded; scaled by how stale the update of
        each of the ``team`` is, or of the one that is scaled least where rows are not one of each.
        """
        bound, plan = self.order.side.bounds["delta"], self.order.plan
        encodes = self.order.scenario.channel.able.encodes
        scales = [self.order.scale(client) for client in self.team] or [1.0]
        each = scales if len(scales) == len(rows) else [max(scales)] * len(rows)
        bounded = [
            bound(row) if scale == 1 else bound(row) * scale
            for row, scale in zip(rows, each, strict=True)
        ]
        if encodes is not None:
            bounded = [encodes.arrives(row, plan) for row in bounded]
        return torch.stack(bounded)

    def server(self, rows: Rows) -> Vector:
        """Groups, seats before the rule, and the rule that really judges: the aggregator, or the
        one that the channel's servers run.

        Raises:
            ConfigError: the attack does not say that it knows the server's rule.
            TooManyByzantine: the rule refuses so few rows.
            BadUpdate: rows that the rule cannot use.
        """
        if not self.knows_rule:
            raise ConfigError(
                "an attack that tries the server's rule must know it: say knows = 'rule'."
            )
        scenario, plan = self.order.scenario, self.order.plan
        rng = self.seeds.generator("attackers' idea of the server", plan.number)
        context = Context(plan, self.state.parameters, rng, self.state.released)
        able = scenario.channel.able
        if able.groups is not None:
            rows = able.groups.means(rows, rng)
        for i, defence in enumerate(scenario.defences):
            if before_the_rule(defence):
                rows, _ = defence.before(rows, self.state.seats[i], context)
        rule: Any = scenario.aggregator if able.hosts is None else able.hosts
        if rule.remembers:
            memory = self.state.rules["delta"] if able.hosts is None else rule.init()
            vector: Vector = rule.step(rows, memory, context)[0]
            return vector
        decided: Vector = rule(rows)
        return decided
