"""What ONE honest client does in a round, after its training and before its party speaks.

The simulator runs it for everybody, a node on a network for itself, and an attacker tries its
candidates on it: the code is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from privfl.core import (
    Bound,
    Bounded,
    ClientId,
    ClientMember,
    ClientSeat,
    CoinSource,
    Context,
    Mechanism,
    NoiseSource,
    Party,
    PlanRefused,
    RoundPlan,
    Sensitivity,
    Update,
    Vector,
    norm,
)
from privfl.engine.seams import AdaptiveBound

BITS = "norms under the bound"
"""The part in which clients of an adaptive bound say on which side of it their norm was."""

Conduct: TypeAlias = Callable[[Bounded, Vector], Bounded]
"""What a client hands its own party, from the honest bounded delta and the delta [d] before the
bound: an honest client the former, an attacker what it likes.
"""


@dataclass(frozen=True, slots=True)
class ClientSide:
    """One client's half of a round: the seats at the client, the bound of every part, its own half
    of the noise, the bit of an adaptive bound, and its parties. It has no memory and changes
    nothing that it is given, so that an attacker may try it as often as it likes.

    ``seats`` are the defences at the client by their position among the run's defences; ``bounds``
    by part; ``local`` is noise that every client adds itself (None: no such noise), for a delta
    that one neighbour moves by ``moved``; ``adaptive`` asks for a bit. ``seeds`` are the client's
    simulation randomness. ``synchronous``: everybody starts a round from one model.
    """

    seats: Mapping[int, ClientSeat[Any]]
    bounds: Mapping[str, Bound]
    seeds: CoinSource
    noise: NoiseSource
    local: Mechanism | None = None
    moved: Sensitivity = Sensitivity(float("inf"))
    adaptive: AdaptiveBound | None = None
    synchronous: bool = True

    def prepared(
        self, update: Update, memory: Mapping[int, Any], plan: RoundPlan, start: Vector
    ) -> tuple[Update, Mapping[int, Any], tuple[int, ...]]:
        """The update after the seats at the client, what the seats remember, and the positions of
        those that changed it. ``start`` is the model [d] that the client started from.
        """
        kept, changed, sent = dict(memory), [], update
        for position, seat in self.seats.items():
            rng = self.seeds.generator("client seat", plan.number, update.client, position)
            state = kept[position] if position in kept else seat.init_client()
            before = sent.delta
            sent, kept[position] = seat.at_client(sent, state, Context(plan, start, rng))
            if sent.delta is not before:
                changed.append(position)
        return sent, kept, tuple(changed)

    def agreed(self, plans: Mapping[str, RoundPlan], base: str) -> None:
        """Take no part in a round that is not about the model that this client trained from.

        Protocols bind what they send to the plan, so that clients whose plans name different models
        are in no sum together (model inconsistency: Pasquini, Francati, Ateniese 2022). A server
        that sends everybody the same model of its making is not stopped by it.

        Args:
            plans: the round's parts.
            base: `Broadcast.digest` of the broadcast that the client started from.

        Raises:
            PlanRefused: a plan does not name that model; or names several, where everybody starts
                from one.
        """
        for part, plan in plans.items():
            if base not in plan.models:
                raise PlanRefused(
                    f"round {plan.number}: the plan of part '{part}' does not name the model that"
                    f" this client trained from ({base[:16]}...)."
                )
            if self.synchronous and len(plan.models) > 1:
                raise PlanRefused(
                    f"round {plan.number}: the plan of part '{part}' names {len(plan.models)}"
                    " models, and in a synchronous round everybody starts from one."
                )

    def bounded(
        self,
        plans: Mapping[str, RoundPlan],
        update: Update,
        base: str,
        frame: memoryview | None = None,
        conduct: Conduct | None = None,
        scale: float = 1.0,
    ) -> Mapping[str, Bounded]:
        """All parts of the update within their bounds, with the client's own noise and its bit.

        Args:
            plans: the round's parts.
            update: what the seats made of the training's update.
            base: `Broadcast.digest` of the broadcast that the client started from.
            frame: the buffer in which ``update.delta`` lies (`Bounded.frame`): where it is given,
                the bounded delta is written there, and nothing is copied again.
            conduct: what an attacker hands over in place of the bounded delta.
            scale: by what in (0, 1] the bounded delta is multiplied before its own noise: in an
                asynchronous run, by how stale it is.

        Raises:
            PlanRefused: as `agreed`.
            BadUpdate: a part is not finite, or longer than its bound after it.
        """
        self.agreed(plans, base)
        parts: dict[str, Bounded] = {}
        length = 0.0 if self.adaptive is None else norm(update.delta)  # before it is bounded
        for part, plan in plans.items():
            weight = min(update.weight, plan.max_weight)
            if part == "delta":
                delta = self._delta(update, plan, scale)
                if frame is not None and delta is not update.delta:
                    before = update.delta.clone() if conduct else update.delta
                    delta = update.delta.copy_(delta)
                else:
                    before = update.delta
                honest = Bounded(update.client, delta, plan.l2, weight, frame)
                parts[part] = honest if conduct is None else conduct(honest, before)
            elif part == BITS and self.adaptive is not None:
                bit = self.adaptive.bit(length, self.bounds["delta"].l2)
                parts[part] = Bounded(update.client, torch.tensor([bit]), plan.l2)
            else:
                vector = self.bounds[part](update.aux[part])
                parts[part] = Bounded(update.client, vector, plan.l2, weight)
        return parts

    def _delta(self, update: Update, plan: RoundPlan, scale: float) -> Vector:
        bound = self.bounds["delta"]
        delta = bound(update.delta)
        delta = delta if scale == 1 else delta * scale
        if self.local is None:
            return delta
        Bounded(update.client, delta, bound.l2)  # refuse NaN before noise hides it
        noise = self.noise.at(update.client)  # its own, whoever else draws, and in which order
        return self.local.share(delta, self.moved, max(plan.n, 1), noise)[0]

    def entered(
        self,
        member: ClientMember,
        plans: Mapping[str, RoundPlan],
        sent: Mapping[str, Bounded],
    ) -> Mapping[str, Party]:
        """The client's parties, by part, from what it hands them."""
        return {part: member.enter(plans[part], bounded) for part, bounded in sent.items()}


def nothing_of(plans: Mapping[str, RoundPlan], client: ClientId) -> Update:
    """What a client sends whose training came to nothing that can be sent: zero."""
    extra = {part: torch.zeros(plan.d) for part, plan in plans.items() if part != "delta"}
    return Update(client, torch.zeros(plans["delta"].d), aux=extra)
