"""When clients' updates are put together: in rounds for which everybody waits, or as they arrive.

An update depends on the model that its client was sent, on the client, and on chance alone, so a
simulation computes it when it is delivered, from the model that it was dispatched with. A `Pace`
says whose updates are delivered in a round and which versions of the model these clients have; all
else of a round is as it is where everybody begins together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, TypeAlias, runtime_checkable

import torch

from privfl.core import ClientId, ConfigError, Participation
from privfl.engine.durations import Durations, Law

Arrivals: TypeAlias = Mapping[ClientId, int]
"""The clients of a round, each with the version of the model that it was sent: the number of the
round before which that was the model.
"""


@dataclass(frozen=True, slots=True)
class Flight:
    """A client that was sent a model of this ``version`` and delivers at ``due``; ``order`` counts
    dispatches, and decides between those who are due together.
    """

    client: ClientId
    version: int
    due: float
    order: int


@dataclass(frozen=True, slots=True)
class Clock:
    """Simulated time, and what is under way in it: data, kept with the state of a run.

    ``now`` is when the last round was full, ``dispatched`` how many tasks were handed out,
    ``flights`` those that are under way, ``last`` the round of each client's last delivery,
    ``joined`` how many deliveries it made.
    """

    now: float = 0.0
    dispatched: int = 0
    flights: tuple[Flight, ...] = ()
    last: Mapping[ClientId, int] = field(default_factory=dict)
    joined: Mapping[ClientId, int] = field(default_factory=dict)

    @property
    def versions(self) -> frozenset[int]:
        """Of the models that are under way."""
        return frozenset(flight.version for flight in self.flights)

    def begun(self, client: ClientId, version: int, took: float) -> Clock:
        """The clock once a client was sent this version, for a task of so long."""
        flight = Flight(client, version, self.now + took, self.dispatched)
        return replace(self, flights=(*self.flights, flight), dispatched=self.dispatched + 1)

    def delivered(self, number: int) -> tuple[Flight, Clock]:
        """What is due first, and the clock once it came, in this round."""
        first = min(self.flights, key=lambda flight: (flight.due, flight.order))
        left = tuple(flight for flight in self.flights if flight is not first)
        who = first.client
        joined = {**self.joined, who: self.joined.get(who, 0) + 1}
        last = {**self.last, who: number}
        return first, replace(self, now=first.due, flights=left, last=last, joined=joined)


@runtime_checkable
class Pace(Protocol):
    """Whose updates make a round.

    ``synchronous``: everybody whom the sampler draws, from one model. Else the pace decides, and
    the engine takes nothing from it but ``k`` and who came: no pace can claim that arrival is
    sampling, charges name those who came, and a client's privacy is charged for each delivery.
    """

    synchronous: ClassVar[bool]

    @property
    def k(self) -> int:
        """How many updates make a round at the least, where that is not up to a sampler; else
        0.
        """
        ...

    @property
    def mixing(self) -> bool:
        """Whether the server also draws its model towards the one that the update began with."""
        ...

    def check(self, clients: Sequence[ClientId], rounds: int) -> None:
        """Refuse clients and rounds that this pace cannot have.

        Raises:
            ConfigError: it cannot.
        """
        ...

    def arrivals(
        self, clock: Clock, clients: Sequence[ClientId], number: int, rng: torch.Generator
    ) -> tuple[Arrivals, Clock]:
        """Who delivers in round ``number``, of these clients, and the clock when the last of them
        did.

        Raises:
            NobodyLeft: nobody who is left may deliver, so the run ends before this round.
        """
        ...

    def scale(self, staleness: int) -> float:
        """By what in (0, 1] a client multiplies its bounded update that began so many versions
        ago.
        """
        ...

    def participation(self, rounds: int, clients: int) -> Participation:
        """How often one client delivers in so many rounds at most, and how far apart."""
        ...

    def describe(self) -> str:
        """What a report says."""
        ...


@dataclass(frozen=True, slots=True)
class Synchronous:
    """Everybody begins a round with the same model, and the round ends with the last of them.

    With a law of ``durations`` (`engine.durations.Law`) rounds take simulated time: the longest of
    the cohort's. Nothing else hangs on it.

    >>> pace, rng = Synchronous("equal"), torch.Generator()
    >>> came, clock = pace.arrivals(Clock(), (4, 5), 0, rng)
    >>> dict(came), clock.now
    ({4: 0, 5: 0}, 1.0)
    """

    durations: Law | None = None
    speeds: Mapping[ClientId, float] = field(default_factory=dict)
    synchronous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Durations(self.durations or "equal", self.speeds)

    @property
    def k(self) -> int:
        """0: the sampler says."""
        return 0

    @property
    def mixing(self) -> bool:
        """There is nothing to draw to."""
        return False

    def check(self, clients: Sequence[ClientId], rounds: int) -> None:
        """Nothing is refused but speeds of clients that are not there."""
        refuse_strangers(self.speeds, clients)

    def arrivals(
        self, clock: Clock, clients: Sequence[ClientId], number: int, rng: torch.Generator
    ) -> tuple[Arrivals, Clock]:
        """All of them, with the model of now."""
        came = dict.fromkeys(clients, number)
        if self.durations is None or not clients:
            return came, clock
        law = Durations(self.durations, self.speeds)
        took = max(law.draw(client, rng) for client in clients)
        return came, replace(clock, now=clock.now + took)

    def scale(self, staleness: int) -> float:
        """1: nothing is stale."""
        return 1.0

    def participation(self, rounds: int, clients: int) -> Participation:
        """As the sampler says, which is asked instead."""
        return Participation(rounds, most=rounds)

    def describe(self) -> str:
        """In words."""
        return "synchronous: everybody begins a round with the same model"


def refuse_strangers(speeds: Mapping[ClientId, float], clients: Sequence[ClientId]) -> None:
    """Refuse speeds of clients that are not there.

    Raises:
        ConfigError: one is not.
    """
    known = set(clients)
    for client in speeds:
        if client not in known:
            raise ConfigError(
                f"pace.speeds names client {client}, and there are {len(known)} clients: name one"
                " of them."
            )
