"""BASGD's pace: the server makes a step when no bucket is empty."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from privfl.core import ClientId, ConfigError, Participation, require
from privfl.engine.buffered import filled, polynomial, require_exponent, scaled
from privfl.engine.durations import Durations, Law
from privfl.engine.pace import Arrivals, Clock, refuse_strangers


@dataclass(frozen=True, slots=True)
class EveryBucket:
    """The pace of BASGD (Yang, Li 2021, algorithm 2): client s belongs to bucket s mod ``buckets``
    for the whole run, and the server makes a step as soon as each bucket holds an update. Clients
    that are fast fill their own buckets, and wait for the others.

    Its rule is a median or a trimmed mean of the buckets' means: `aggregators.FixedBuckets`, with
    as many buckets, before `Median` or `TrimmedMean`. Where f clients are bad, f buckets are at
    most, so buckets > 2f. ``concurrency`` clients are at work; all else is as in `BufferedPace`.

    Raises:
        ConfigError: a number out of its range.

    >>> pace = EveryBucket(buckets=3, concurrency=6, durations="equal")
    >>> came, _ = pace.arrivals(Clock(), range(6), 0, torch.Generator())
    >>> sorted(client % 3 for client in came)
    [0, 1, 2]
    """

    buckets: int
    concurrency: int
    durations: Law = "half_normal"
    speeds: Mapping[ClientId, float] = field(default_factory=dict)
    exponent: float = 0.5
    synchronous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require.at_least(1, buckets=self.buckets, concurrency=self.concurrency)
        require_exponent(self.exponent)
        Durations(self.durations, self.speeds)

    @property
    def k(self) -> int:
        """One of each bucket."""
        return self.buckets

    @property
    def mixing(self) -> bool:
        """There is none."""
        return False

    def check(self, clients: Sequence[ClientId], rounds: int) -> None:
        """Refuse clients that leave a bucket empty for ever.

        Raises:
            ConfigError: they do; fewer clients than ``concurrency``.
        """
        refuse_strangers(self.speeds, clients)
        empty = set(range(self.buckets)) - {client % self.buckets for client in clients}
        if empty:
            raise ConfigError(
                f"pace.buckets is {self.buckets}, and no client belongs to bucket {min(empty)}: a"
                " step would never be made. Lower buckets."
            )
        if self.concurrency > len(clients):
            raise ConfigError(
                f"pace.concurrency is {self.concurrency}, and there are only"
                f" {len(clients)} clients."
            )

    def arrivals(
        self, clock: Clock, clients: Sequence[ClientId], number: int, rng: torch.Generator
    ) -> tuple[Arrivals, Clock]:
        """Whoever delivers until no bucket is empty."""

        def full(came: Mapping[ClientId, int]) -> bool:
            return len({client % self.buckets for client in came}) == self.buckets

        def admitted(now: Clock) -> Callable[[ClientId], bool]:
            return lambda client: True

        law = Durations(self.durations, self.speeds)
        return filled(clock, clients, number, full, self.concurrency, law, admitted, rng)

    def scale(self, staleness: int) -> float:
        """The factor s(tau)."""
        return polynomial(staleness, self.exponent)

    def participation(self, rounds: int, clients: int) -> Participation:
        """In every round, for all that anybody knows."""
        return Participation(rounds, most=rounds)

    def describe(self) -> str:
        """In words."""
        return (
            f"a step whenever each of {self.buckets} buckets of clients holds an update,"
            f" {self.concurrency} clients at work; {scaled(self.exponent)}"
        )
