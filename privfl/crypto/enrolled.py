"""Everybody of one channel in one process, each made alone from keys of its own, as on a network
each is on its own machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from privfl.core import (
    Channel,
    ClientId,
    ClientMember,
    HelperMember,
    KeepsSecrets,
    Member,
    PartyId,
    ServerMember,
    client_party,
)
from privfl.crypto.primitives import Directory, Identity

O = TypeVar("O")


@dataclass(frozen=True, repr=False)
class Enrolled(KeepsSecrets, Generic[O]):
    """The members of one channel, for a population of clients, with fresh identities and the one
    directory that knows them.

    The directory is empty where nobody asks it: ``keyed`` says whether anybody does.
    """

    keys: Mapping[PartyId, Identity]
    directory: Directory
    clients: Mapping[ClientId, ClientMember]
    helpers: Mapping[PartyId, HelperMember]
    server: ServerMember[O]

    @classmethod
    def fresh(
        cls, channel: Channel[O], clients: Iterable[ClientId], *, keyed: bool = True
    ) -> Enrolled[O]:
        """Make everybody.

        >>> from privfl.crypto import AdditiveSharing
        >>> sorted(Enrolled.fresh(AdditiveSharing(), range(2)).members)
        ['client/0', 'client/1', 'server', 'server/1']
        """
        names = {client: client_party(client) for client in clients}
        everybody = (*names.values(), *channel.helpers, "server")
        keys = {who: Identity.fresh(who) for who in everybody}
        directory = Directory()
        if keyed:
            directory = Directory.of({who: identity.public for who, identity in keys.items()})
        return cls(
            keys,
            directory,
            {c: channel.client(c, keys[who], directory) for c, who in names.items()},
            {who: channel.helper(who, keys[who], directory) for who in channel.helpers},
            channel.server(keys["server"], directory),
        )

    def joined(self, channel: Channel[O], clients: Iterable[ClientId]) -> Enrolled[O]:
        """The same with more clients, where the channel lets them join (`Able.joins`): those who
        were there stay who they are, and learn of the others by the directory.

        >>> from privfl.crypto import SecAgg
        >>> few = Enrolled.fresh(SecAgg(), range(2))
        >>> more = few.joined(SecAgg(), range(3))
        >>> len(more.clients), more.clients[0] is few.clients[0]
        (3, True)
        """
        names = {c: client_party(c) for c in clients if c not in self.clients}
        keys = {who: Identity.fresh(who) for who in names.values()}
        if self.directory.parties:
            for who, identity in keys.items():
                public = identity.public
                self.directory.enrol(who, signing=public.signing, sealing=public.box)
        made = {c: channel.client(c, keys[who], self.directory) for c, who in names.items()}
        return replace(self, keys={**self.keys, **keys}, clients={**self.clients, **made})

    @property
    def members(self) -> Mapping[PartyId, Member]:
        """Everybody, by party."""
        clients: dict[PartyId, Member] = {
            client_party(client): member for client, member in self.clients.items()
        }
        return {**clients, **self.helpers, "server": self.server}
