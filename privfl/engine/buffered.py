"""Asynchronous and stale-synchronous training: clients work at their own speed, and the server
makes a step whenever enough updates are there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import torch

from privfl.core import ClientId, ConfigError, NobodyLeft, Participation, require
from privfl.engine.durations import Durations, Law
from privfl.engine.pace import Arrivals, Clock, refuse_strangers

Full: TypeAlias = Callable[[Mapping[ClientId, int]], bool]
"""Whether those who delivered make a round."""
Admitted: TypeAlias = Callable[[Clock], Callable[[ClientId], bool]]
"""Whether a client that is at rest may be sent a model, as the clock stands."""


@dataclass(frozen=True, slots=True)
class BufferedPace:
    """Asynchronous training with a buffer (FedBuff: Nguyen, Malik, Zhan, Yousefpour, Rabbat, Malek,
    Huba 2022, algorithm 1): ``concurrency`` clients are at work; whoever delivers is replaced at
    once by another one, drawn uniformly of those who are at rest, with the model of then; when
    ``k`` updates have come the server makes a step.

    An update that began tau steps ago is scaled by s(tau) = (1 + tau)^-``exponent``: the bounded
    row itself, at its client, with the weight that it would have had. Weights would be lost on
    every rule that ignores them. ``exponent=0`` scales nothing.

    ``k=1`` with ``mixing`` is FedAsync (Xie, Koyejo, Gupta 2019, algorithm 1 with polynomial s):
    w <- (1 - a) w + a w_new, where a is s(tau) times the rate of the server's optimiser.

    Nobody is in a buffer twice, and a client is sent a model again ``gate`` steps after its last
    delivery at the earliest: two deliveries of one client are at least that far apart (1: the next
    buffer). Without a gate clients that are fast, or say so, fill the buffers.
    ``max_participations`` is how often one client may deliver in the run; a run in which nobody is
    left who may ends early.

    Arrival is not sampling: no amplification is claimed, everybody is taken to know who came, and
    each client is charged for its own deliveries.

    Args:
        durations, speeds: how long tasks take (`engine.durations`).

    Raises:
        ConfigError: a number out of its range; ``mixing`` with another k than 1.

    >>> pace = BufferedPace(k=2, concurrency=3, durations="equal")
    >>> came, clock = pace.arrivals(Clock(), range(6), 0, torch.Generator().manual_seed(0))
    >>> len(came), len(clock.flights), pace.scale(3)
    (2, 2, 0.5)
    """

    k: int
    concurrency: int
    durations: Law = "half_normal"
    speeds: Mapping[ClientId, float] = field(default_factory=dict)
    gate: int = 1
    max_participations: int | None = None
    exponent: float = 0.5
    mixing: bool = False
    synchronous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        most = 1 if self.max_participations is None else self.max_participations
        require.at_least(1, k=self.k, concurrency=self.concurrency, gate=self.gate)
        require.at_least(1, max_participations=most)
        require_exponent(self.exponent)
        Durations(self.durations, self.speeds)
        if self.mixing and self.k != 1:
            raise ConfigError(
                f"pace.mixing goes with rounds of one client, and k is {self.k}: set k to 1, or"
                " leave mixing out."
            )

    def check(self, clients: Sequence[ClientId], rounds: int) -> None:
        """Refuse clients and rounds that this pace cannot have.

        Raises:
            ConfigError: fewer clients than ``concurrency``, or than ``k`` in each of ``gate``
                buffers; more deliveries than ``max_participations`` of everybody are.
        """
        n = len(clients)
        refuse_strangers(self.speeds, clients)
        if self.concurrency > n:
            raise ConfigError(
                f"pace.concurrency is {self.concurrency}, and there are only {n} clients."
            )
        if self.k * self.gate > n:
            raise ConfigError(
                f"{n} clients cannot fill buffers of {self.k} where each waits {self.gate} buffers"
                f" from one delivery to the next: pace.k times pace.gate may be {n} at most."
            )
        most = self.max_participations
        if most is not None and self.k * rounds > most * n:
            raise ConfigError(
                f"{rounds} buffers of {self.k} are {self.k * rounds} deliveries, and {n} clients"
                f" may make {most} each: raise pace.max_participations, or lower rounds."
            )

    def arrivals(
        self, clock: Clock, clients: Sequence[ClientId], number: int, rng: torch.Generator
    ) -> tuple[Arrivals, Clock]:
        """The next ``k`` who deliver."""
        most = self.max_participations

        def admitted(now: Clock) -> Callable[[ClientId], bool]:
            return lambda client: (
                number - now.last.get(client, -self.gate) >= self.gate
                and (most is None or now.joined.get(client, 0) < most)
            )

        law = Durations(self.durations, self.speeds)
        full = _of_size(self.k)
        return filled(clock, clients, number, full, self.concurrency, law, admitted, rng)

    def scale(self, staleness: int) -> float:
        """The factor s(tau)."""
        return polynomial(staleness, self.exponent)

    def participation(self, rounds: int, clients: int) -> Participation:
        """Every ``gate`` rounds, ``max_participations`` times at most."""
        most = rounds if self.max_participations is None else self.max_participations
        return Participation(rounds, min(most, -(-rounds // self.gate)), self.gate)

    def describe(self) -> str:
        """In words."""
        often = (
            ""
            if self.max_participations is None
            else f", {self.max_participations} times at most in the run"
        )
        return (
            f"buffered: a step with every {self.k} updates, {self.concurrency} clients at work, a"
            f" client in every {self.gate}. buffer at most{often}; {scaled(self.exponent)}"
        )


@dataclass(frozen=True, slots=True)
class StaleSynchronous:
    """Stale-synchronous training (Ho, Cipar, Cui, Lee, Kim, Gibbons, Gibson, Ganger, Xing 2013):
    everybody works at its own speed, and nobody begins a task who has finished over ``slack`` more
    than the slowest. The server makes a step with every ``k`` updates, of different clients.

    ``slack=0`` with k = all clients is the synchronous run. Scaling, durations and what is claimed
    of arrival are as in `BufferedPace`.

    Raises:
        ConfigError: a number out of its range.

    >>> StaleSynchronous(k=2, slack=1).participation(rounds=9, clients=6).most
    5
    """

    k: int
    slack: int
    durations: Law = "half_normal"
    speeds: Mapping[ClientId, float] = field(default_factory=dict)
    exponent: float = 0.5
    synchronous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require.at_least(1, k=self.k)
        require.at_least(0, slack=self.slack)
        require_exponent(self.exponent)
        Durations(self.durations, self.speeds)

    @property
    def mixing(self) -> bool:
        """There is none."""
        return False

    def check(self, clients: Sequence[ClientId], rounds: int) -> None:
        """Refuse fewer clients than ``k``.

        Raises:
            ConfigError: there are.
        """
        refuse_strangers(self.speeds, clients)
        if self.k > len(clients):
            raise ConfigError(f"pace.k is {self.k}, and there are only {len(clients)} clients.")

    def arrivals(
        self, clock: Clock, clients: Sequence[ClientId], number: int, rng: torch.Generator
    ) -> tuple[Arrivals, Clock]:
        """The next ``k`` who deliver."""

        def admitted(now: Clock) -> Callable[[ClientId], bool]:
            most = min(now.joined.get(one, 0) for one in clients) + self.slack
            return lambda client: now.joined.get(client, 0) <= most

        law = Durations(self.durations, self.speeds)
        full = _of_size(self.k)
        return filled(clock, clients, number, full, len(clients), law, admitted, rng)

    def scale(self, staleness: int) -> float:
        """The factor s(tau)."""
        return polynomial(staleness, self.exponent)

    def participation(self, rounds: int, clients: int) -> Participation:
        """The fastest is ``slack`` + 1 ahead of the slowest at most, who is not ahead of the
        mean.
        """
        return Participation(rounds, min(rounds, rounds * self.k // clients + self.slack + 1))

    def describe(self) -> str:
        """In words."""
        return (
            f"stale-synchronous: a step with every {self.k} updates, nobody begins over"
            f" {self.slack} tasks ahead of the slowest; {scaled(self.exponent)}"
        )


def filled(
    clock: Clock,
    clients: Sequence[ClientId],
    number: int,
    full: Full,
    concurrency: int,
    law: Durations,
    admitted: Admitted,
    rng: torch.Generator,
) -> tuple[Arrivals, Clock]:
    """Deliveries and dispatches until the round is full, of each client one. The last delivery's
    place is filled in the next round, with the model that this one makes.

    Raises:
        NobodyLeft: nobody is at work, and nobody may be asked.
    """
    came: dict[ClientId, int] = {}
    while not full(came):
        room = concurrency - len(clock.flights)
        busy = {flight.client for flight in clock.flights} | came.keys()
        may = admitted(clock)
        resting = [c for c in clients if room and c not in busy and may(c)]
        if room < len(resting):
            drawn = torch.randperm(len(resting), generator=rng)[:room].tolist()
            resting = [resting[i] for i in sorted(drawn)]
        for client in resting:
            clock = clock.begun(client, number, law.draw(client, rng))
        if not clock.flights:
            raise NobodyLeft(
                f"nobody is at work in round {number + 1}, and nobody may be asked: all who are"
                " left are in this buffer, or have delivered as often as pace.max_participations"
                " allows."
            )
        first, clock = clock.delivered(number)
        came[first.client] = first.version
    return {client: came[client] for client in clients if client in came}, clock


def _of_size(k: int) -> Full:
    return lambda came: len(came) >= k


def polynomial(staleness: int, exponent: float) -> float:
    """The factor (1 + tau)^-exponent.

    Raises:
        ConfigError: the update is of a version that is yet to come.
    """
    if staleness < 0:
        raise ConfigError(
            f"an update of a model that is {-staleness} versions ahead of its round was announced:"
            " a client trains from what it was sent, so the round's number is wrong."
        )
    return float((1 + staleness) ** -exponent)


def require_exponent(exponent: float) -> None:
    """Refuse an exponent that is negative or infinite.

    Raises:
        ConfigError: it is.
    """
    require.at_least(0, exponent=exponent)
    require.finite(exponent=exponent)


def scaled(exponent: float) -> str:
    """In words."""
    if not exponent:
        return "stale updates are not scaled"
    return f"an update from tau steps ago is scaled by (1 + tau)^-{exponent:g} at its client"
