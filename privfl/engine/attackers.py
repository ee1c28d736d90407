"""Who attacks, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from privfl.core import Attack, ClientId, ConfigError, is_divided, require


@dataclass(frozen=True, slots=True)
class AttackSchedule:
    """The rounds of an attack: a list, or every ``every``-th from ``first`` to ``last`` (None: to
    the end).

    >>> [r for r in range(8) if AttackSchedule(first=2, every=3).active(r)]
    [2, 5]
    """

    first: int = 0
    last: int | None = None
    every: int = 1
    rounds: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        require.at_least(1, every=self.every)
        require.at_least(0, first=self.first)

    def active(self, round: int) -> bool:
        """Whether the attack acts in this round."""
        if self.rounds is not None:
            return round in self.rounds
        return (
            self.first <= round <= (round if self.last is None else self.last)
            and (round - self.first) % self.every == 0
        )


@dataclass(frozen=True, slots=True)
class Attacker:
    """One attack, the clients that carry it out, and its rounds. The attack fills one or more of
    the seats of `core.attack`.

    ``colluding`` clients decide on their updates together; the others each on its own.
    """

    name: str
    attack: Attack
    clients: frozenset[ClientId]
    schedule: AttackSchedule = AttackSchedule()
    colluding: bool = True
    _places: Mapping[ClientId, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        places = {client: place for place, client in enumerate(sorted(self.clients))}
        object.__setattr__(self, "_places", places)

    def at(self, client: ClientId) -> Attack:
        """The attack that one of its clients carries out."""
        if not is_divided(self.attack):
            return self.attack
        return self.attack.part(self._places[client], len(self.clients))

    def teams(self, clients: Sequence[ClientId]) -> list[list[ClientId]]:
        """Those of these clients that decide together."""
        return [list(clients)] if self.colluding else [[client] for client in clients]

    def acting(self, cohort: Sequence[ClientId], round: int) -> tuple[ClientId, ...]:
        """Its clients in a cohort, where it acts in that round."""
        return tuple(c for c in cohort if c in self.clients) if self.schedule.active(round) else ()


def choose_clients(
    clients: Sequence[ClientId],
    rng: torch.Generator,
    named: object = None,
    fraction: float | None = None,
) -> frozenset[ClientId]:
    """The attacker's clients: those in the collection ``named``; or so many at random where it is a
    number; or a random fraction (at least one); or one at random.

    Raises:
        ConfigError: both given, an unknown client, a number outside of 1 to all of them, something
            that is neither a collection nor a number, or a fraction outside of (0, 1].

    >>> len(choose_clients(range(10), torch.Generator().manual_seed(0), 4))
    4
    """
    if named is not None and fraction is not None:
        raise ConfigError("an attack has either clients or a fraction, not both.")
    if fraction is not None and not 0 < fraction <= 1:
        raise ConfigError(f"an attack's fraction of clients must lie in (0, 1], and is {fraction}.")
    if isinstance(named, list | tuple | set | frozenset):
        known = set(clients)
        strangers = [client for client in named if client not in known]
        if strangers:
            raise ConfigError(
                f"attack clients: there is no client {strangers[0]}; there are {len(clients)}"
                " clients."
            )
        return frozenset(named)
    count = 1 if fraction is None else max(1, round(fraction * len(clients)))
    if named is not None:
        if not isinstance(named, int) or isinstance(named, bool):
            raise ConfigError(
                "an attack's clients are a list of them, or a number: how many there are. They are"
                f" {named!r}."
            )
        if not 1 <= named <= len(clients):
            raise ConfigError(
                f"an attack's number of clients must lie in [1, {len(clients)}], and is {named}; a"
                f" client is named in a list: [{named}]."
            )
        count = named
    chosen = torch.randperm(len(clients), generator=rng)[:count]
    return frozenset(clients[int(i)] for i in chosen)
