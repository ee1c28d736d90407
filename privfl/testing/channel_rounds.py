"""Rounds of a channel through its real parties, for checks: the members of six clients, set up
once, and what they send.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import (
    NO_FAULTS,
    Bounded,
    Channel,
    ClientId,
    Context,
    Faults,
    InformedServer,
    KeepsSecrets,
    Mail,
    Member,
    Opened,
    Outcome,
    Party,
    PartyId,
    RoundPlan,
    Rows,
    StateKey,
    Total,
    Vector,
    drive,
    drive_all,
    seal_state,
    unseal_state,
)
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.primitives import Directory
from privfl.testing.check import Broken, expect

N, D, L2 = 6, 40, 2.0
"""Clients, values of an update, and the bound on its norm."""


def updates(seed: int = 0, n: int = N) -> Float[Tensor, "n d"]:
    """One update for each client, of nine tenths of the bound, in different directions."""
    made = torch.randn(n, D, generator=torch.Generator().manual_seed(seed))
    scaled: Tensor = made * (L2 * 0.9 / made.norm(dim=1, keepdim=True))
    return scaled


class Asleep(KeepsSecrets):
    """A party that is put to rest between all exchanges, as a network engine with a process per
    message does; mail reaches it as bytes.
    """

    def __init__(self, party: Party, directory: Directory) -> None:
        self.key, self.kind, self.directory = StateKey(), type(party), directory
        self.sealed = seal_state(party, self.key)

    def step(self, mail: Mail) -> Mail:
        """Wake, answer, and sleep again."""
        party = unseal_state(self.sealed, self.key, self.kind, lent=self.directory)
        answer = party.step({who: bytes(body) for who, body in mail.items()})
        sent = {to: bytes(body) for to, body in answer.items()}
        self.sealed = seal_state(party, self.key)
        return sent

    @property
    def result(self) -> Any:
        """What the party that sleeps has opened."""
        awake: Any = unseal_state(self.sealed, self.key, self.kind, lent=self.directory)
        return awake.result


@dataclass
class Rounds:
    """The members of a channel for `N` clients, and rounds with them, each with a number of its
    own.
    """

    channel: Channel[Any]
    number: int = 0
    set_up: Faults = NO_FAULTS

    @cached_property
    def enrolled(self) -> Enrolled[Any]:
        """Everybody with keys of their own, and the directory that knows them."""
        return Enrolled.fresh(self.channel, range(N))

    @cached_property
    def members(self) -> dict[PartyId, Member]:
        """Everybody, set up.

        Raises:
            Broken: a party gave up during the key set-up.
        """
        members = dict(self.enrolled.members)
        parties = {who: member.set_up() for who, member in members.items()}
        outcome = drive_all(parties, self.set_up)
        for who, abort in outcome.aborts.items() if self.set_up is NO_FAULTS else ():
            raise Broken(f"{who} gave up in the key set-up: {abort}", "make the set-up work")
        return members

    def plan(self, number: int | None = None, max_weight: float = 1.0) -> RoundPlan:
        """The next round's plan, or that of a number."""
        if number is None:
            self.number += 1
            number = self.number
        cohort = tuple(range(N))
        return RoundPlan(number, cohort, D, L2, max_weight, session=b"privfl/testing")

    def parties(
        self,
        plan: RoundPlan,
        sent: Float[Tensor, "n d"] | None = None,
        weights: Mapping[ClientId, float] | None = None,
        *,
        asleep: bool = False,
    ) -> dict[PartyId, Any]:
        """Everybody's part in a round; the server's is the one that opens."""
        rows = updates() if sent is None else sent
        lent = self.enrolled.directory

        def wrap(party: Any) -> Any:
            return Asleep(party, lent) if asleep else party

        server: Any = self.members["server"]
        if self.channel.able.informed:
            expect(
                isinstance(server, InformedServer),
                "it declares able.informed, and its server's member has no inform(context)",
                "write inform, or declare informed=False",
            )
            server.inform(Context(plan, torch.zeros(D), torch.Generator().manual_seed(0)))
        made: dict[PartyId, Any] = {}
        for who, member in self.members.items():
            entering: Any = member
            if who.startswith("client/"):
                client = int(who.removeprefix("client/"))
                weight = 1.0 if weights is None else weights[client]
                update = Bounded(client, rows[client].clone(), L2, weight)
                made[who] = wrap(entering.enter(plan, update))
            else:
                made[who] = wrap(entering.enter(plan))
        return made

    def play(
        self,
        faults: Faults = NO_FAULTS,
        sent: Float[Tensor, "n d"] | None = None,
        weights: Mapping[ClientId, float] | None = None,
        *,
        asleep: bool = False,
    ) -> tuple[RoundPlan, Outcome[Any]]:
        """One round."""
        plan = self.plan(max_weight=1.0 if weights is None else max(weights.values()))
        others = self.parties(plan, sent, weights, asleep=asleep)
        server = others.pop("server")
        return plan, drive(server, others, faults, keep_bodies=True)

    def opened(
        self,
        faults: Faults = NO_FAULTS,
        sent: Float[Tensor, "n d"] | None = None,
        weights: Mapping[ClientId, float] | None = None,
        *,
        asleep: bool = False,
    ) -> tuple[RoundPlan, Outcome[Any], Opened[Any]]:
        """One round, which must open something, and what it opened.

        Raises:
            Broken: it did not.
        """
        plan, outcome = self.play(faults, sent, weights, asleep=asleep)
        aborts = "; ".join(f"{who}: {abort}" for who, abort in outcome.aborts.items())
        if outcome.opened is None:
            raise Broken(
                f"a round of {N} clients opened nothing ({aborts or 'nobody gave up'})", "open it"
            )
        return plan, outcome, outcome.opened

    def seen(self, outcome: Outcome[Any], parties: Collection[PartyId]) -> Rows | Total | None:
        """What a coalition of these parties computes."""
        mine = {who: self.members[who] for who in parties}
        return self.channel.decode(outcome.received(parties), mine)


def arrived(channel: Channel[Any], sent: Float[Tensor, "n d"], plan: RoundPlan) -> Tensor:
    """What the channel says that the server's side computes with [n, d]."""
    encodes = channel.able.encodes
    return sent if encodes is None else torch.stack([encodes.arrives(row, plan) for row in sent])


def tolerance(channel: Channel[Any], plan: RoundPlan) -> float:
    """How far a value of a sum may be from the exact one: float32, or the noise that the scheme
    declares.
    """
    approximate = channel.able.approximate
    return 1e-5 if approximate is None else 1e-5 + 6 * approximate(plan)


def expected(channel: Channel[Any], survivors: Collection[ClientId], arrives: Tensor) -> Vector:
    """The plain sum [d] of what arrives of these clients."""
    return arrives[list(survivors)].sum(dim=0)
