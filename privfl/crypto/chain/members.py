"""Clients and the server between rounds."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TypeVar

from privfl.core import (
    BadUpdate,
    Bounded,
    ClientId,
    KeepsSecrets,
    KnownKeys,
    Opener,
    Party,
    PartyId,
    PartyKeys,
    RoundPlan,
    Silent,
    Total,
    client_party,
)
from privfl.crypto import cohort
from privfl.crypto.chain.client import ChainClientParty
from privfl.crypto.chain.parameters import SEED, ChainSettings, parameters_of
from privfl.crypto.chain.server import ChainServerParty
from privfl.crypto.cohort import Entered
from privfl.crypto.primitives import Words

T = TypeVar("T")


@dataclass(repr=False)
class ChainClient(KeepsSecrets):
    """A client between rounds. It enters a round once, and keeps what it added to the last
    ``history`` sums of each part: with it and the neighbours' mail a coalition reads what is
    between them.
    """

    settings: ChainSettings
    who: ClientId
    identity: PartyKeys
    directory: KnownKeys
    entered: Entered = field(default_factory=Entered)
    added: dict[str, dict[bytes, tuple[int, Words]]] = field(default_factory=dict)

    def set_up(self) -> Party:
        """Nothing to say: its public key is in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan, update: Bounded) -> Party:
        """The party of one round.

        Raises:
            ConfigError: as `Chain`, or a client that is not in the cohort.
        """
        now = parameters_of(self.settings, plan)
        position = cohort.place_of(plan, self.who)
        again = self.entered.why_not(plan)
        vector: Words | None = None
        refused: tuple[str, PartyId] | None = None if again is None else (again, "server")
        if refused is None:
            try:
                vector = now.encode(update)
                kept = self.added.setdefault(plan.part, {})
                _keep(kept, now.tag, (position, vector), self.settings.history)
            except BadUpdate as bad:
                refused = str(bad), client_party(self.who)
        return ChainClientParty(
            now, self.who, position, self.identity, self.directory, vector, refused
        )


@dataclass(repr=False)
class ChainServer(KeepsSecrets):
    """The server between rounds; it keeps the seeds of the last ``history`` rounds of each part."""

    settings: ChainSettings
    identity: PartyKeys
    directory: KnownKeys
    seeds: dict[str, dict[bytes, bytes]] = field(default_factory=dict)

    def set_up(self) -> Party:
        """Nothing to say: its public key is in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Opener[Total]:
        """The party of one round.

        Raises:
            ConfigError: as `Chain`.
        """
        now, seed = parameters_of(self.settings, plan), secrets.token_bytes(SEED)
        _keep(self.seeds.setdefault(plan.part, {}), now.tag, seed, self.settings.history)
        return ChainServerParty(now, self.identity, self.directory, seed)


def _keep(kept: dict[bytes, T], tag: bytes, what: T, most: int) -> None:
    """Keep this, and no more than so many."""
    kept[tag] = what
    while len(kept) > most:
        del kept[next(iter(kept))]
