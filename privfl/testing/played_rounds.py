"""One round of a channel through its real parties, some of whom lie."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import (
    OUTSIDER,
    BadUpdate,
    Bounded,
    Channel,
    ClientId,
    ConfigError,
    Context,
    Faults,
    InformedServer,
    Liars,
    Member,
    Opened,
    Outcome,
    Party,
    PartyId,
    RoundPlan,
    Rows,
    Silent,
    Total,
    Vector,
    client_party,
    drive,
    drive_all,
)
from privfl.crypto.enrolled import Enrolled

N, D = 6, 10
"""Clients and values of a round that is played: enough that a sum of two is near to neither."""
L2 = 1.0
LENGTH = 0.98
"""How long each update is: a little under the bound, so that rounding keeps it there."""
DRAWS = 10_000
HONEST = Liars()


@dataclass(frozen=True, slots=True)
class Contributions:
    """What the clients 0, 1, ... of a played round hold: rows [n, d].

    ``plan`` is the round's (one of bound 1 unless given), ``models`` [d] what its server's member
    is told: the model a round ago and now, where they are not those that the rows themselves make.
    ``encoded`` is what the channel carries of each row, where that is something else.
    """

    rows: Float[Tensor, "n d"]
    plan: RoundPlan | None = None
    models: tuple[Vector, Vector] | None = None
    encoded: Float[Tensor, "n d"] | None = None

    @property
    def carried(self) -> Float[Tensor, "n d"]:
        """What the channel carries of each row."""
        return self.rows if self.encoded is None else self.encoded

    @property
    def together(self) -> Vector:
        """The sum [d] of all rows: a direction that every row has something of."""
        return self.rows.sum(dim=0)

    @property
    def agreed(self) -> RoundPlan:
        """The plan of the round."""
        return plan_of(*self.rows.shape) if self.plan is None else self.plan

    @property
    def told(self) -> tuple[Vector, Vector]:
        """The models that the server's member is told; it has moved since the last round."""
        if self.models is None:
            return torch.zeros(self.rows.shape[1]), self.rows.mean(dim=0)
        return self.models


def plan_of(n: int, d: int) -> RoundPlan:
    """The plan of a round of so many clients and values."""
    return RoundPlan(0, tuple(range(n)), d, l2=L2, session=b"privfl/testing")


def contributions(n: int = N, d: int = D) -> Contributions:
    """The updates of n clients, linearly independent, with a direction in common: of one length,
    every entry plus or minus one number, so that signs and fixed point carry them exactly.

    Raises:
        ConfigError: none were found; so many clients need more values.

    >>> held = contributions()
    >>> int(torch.linalg.matrix_rank(held.rows)), bool((held.rows @ held.together > 0).all())
    (6, True)
    """
    for seed in range(DRAWS):
        drawn = torch.rand(n, d, generator=torch.Generator().manual_seed(seed))
        signs = torch.where(drawn < 0.7, 1.0, -1.0)
        cosines = signs @ signs.T / d - 2 * torch.eye(n)
        spread = torch.linalg.svdvals(signs)[-1] > d**0.5 / 4
        if bool(spread) and float(cosines.max()) <= 0.5 and bool((signs @ signs.sum(0) > 0).all()):
            return Contributions(signs * (LENGTH * L2 / d**0.5))
    raise ConfigError(f"no updates of {n} clients that differ in {d} values: take more values.")


@dataclass(frozen=True)
class PlayedRound:
    """One round of a channel through its real parties, with or without liars, and all its mail."""

    channel: Channel[Any]
    plan: RoundPlan
    members: Mapping[PartyId, Member]
    outcome: Outcome[Any]
    published: Opened[Any] | None
    took: Mapping[ClientId, Vector]

    @classmethod
    def play(
        cls,
        channel: Channel[Any],
        held: Contributions,
        liars: Liars = HONEST,
        who: Collection[PartyId] = (),
        absent: Collection[ClientId] = (),
    ) -> PlayedRound:
        """Set up and play a round in which ``who`` lie and ``absent`` clients do not show up."""
        plan = held.agreed
        everybody = Enrolled.fresh(channel, plan.cohort)
        clients = {client_party(c): member for c, member in everybody.clients.items()}
        helpers, server = dict(everybody.helpers), everybody.server
        members: dict[PartyId, Member] = {**clients, **helpers, "server": server}
        lying = Faults(
            byzantine={w: lambda party: party for w in who}
        )  # crashes are the liars' own
        ready: dict[PartyId, Party] = {w: member.set_up() for w, member in members.items()}
        drive_all(_cast(ready, who, liars.set_up), lying)
        if channel.able.informed and isinstance(server, InformedServer):
            for model in held.told:
                server.inform(Context(plan, model, torch.Generator().manual_seed(0)))
        parties: dict[PartyId, Party] = {w: helper.enter(plan) for w, helper in helpers.items()}
        for c in plan.cohort:
            update = Bounded(c, held.rows[c].clone(), plan.l2, plan.max_weight)
            if client_party(c) in who:
                update = liars.update(update)
            party = clients[client_party(c)].enter(plan, update)
            parties[client_party(c)] = Silent() if c in absent else party
        opener = server.enter(plan)
        parties["server"] = opener
        cast = dict(_cast(parties, who, lambda honest: liars.enter(plan, honest)))
        told = cast.pop("server")
        faults = Faults(byzantine={**lying.byzantine, "server": lambda party: told})
        outcome = drive(opener, cast, faults if "server" in who else lying, keep_bodies=True)
        published = liars.publish(outcome.opened) if "server" in who else outcome.opened
        return cls(channel, plan, members, outcome, published, liars.took(published))

    def rows_of(self, who: Collection[PartyId]) -> frozenset[ClientId]:
        """The clients whose single update a coalition computes from its mail and its members;
        `OUTSIDER` in it taps every wire.
        """
        seen = set(self.members) if OUTSIDER in who else set(who)
        own = {party: member for party, member in self.members.items() if party in who}
        found = self.channel.decode(self.outcome.received(seen), own)
        return frozenset(found.ids or ()) if isinstance(found, Rows) else frozenset()

    @cached_property
    def mean(self) -> Vector | None:
        """The mean [d] that was published; None where nothing was, or nothing that has one."""
        try:
            return None if self.published is None else _mean(self.published.what)
        except BadUpdate:
            return None


def _cast(
    honest: Mapping[PartyId, Party],
    who: Collection[PartyId],
    how: Callable[[Mapping[PartyId, Party]], Mapping[PartyId, Party]],
) -> Mapping[PartyId, Party]:
    return {**honest, **how({party: honest[party] for party in honest if party in who})}


def _mean(what: Rows | Total) -> Vector:
    if isinstance(what, Total):
        return what.mean().double()
    return (what.weights.double() @ what.values.double()) / what.weights.double().sum()
