"""What all homomorphic channels share: the methods of a channel, from a scheme and an arrangement
of keys.
"""

from __future__ import annotations

from collections.abc import Collection as Several
from collections.abc import Mapping
from typing import ClassVar

from privfl.core import (
    Able,
    ChannelKind,
    ClientId,
    Member,
    PartyId,
    Received,
    Rows,
    Total,
    client_party,
)
from privfl.crypto.he.keyring import Arrangement, Keyring
from privfl.crypto.he.members import HeClient, HeHelper, HeServer
from privfl.crypto.he.scheme import Scheme
from privfl.crypto.he.view import opened


class HomomorphicChannel:
    """The methods of a channel, from a scheme and an arrangement of keys.

    Threat model. Where sums are verified the server may lie: it cannot make decryptors open one
    client's ciphertext, a small sum, an old round or the same round twice. Where clients share the
    key, or sums are not verified, it is trusted to add. Transport is authenticated, as in the
    set-up in which the parties learn each other's keys. Clients follow the protocol: there is no
    proof that a ciphertext is well formed, so a client that works WITH a lying server is out of
    scope.
    """

    __slots__ = ()
    kind: ClassVar[ChannelKind] = ChannelKind("total")

    @property
    def able(self) -> Able:
        """Encoding, who can decrypt, and what a report says aloud."""
        return self._able()

    def _able(self) -> Able:
        return Able(
            encodes=self.scheme,
            sums=self.arrangement.releases,
            key_holders=self.key_holders,
            warnings=self.arrangement.warnings(),
        )

    @property
    def scheme(self) -> Scheme:
        """The cryptosystem with its parameters."""
        raise TypeError("a homomorphic channel names its scheme.")

    @property
    def arrangement(self) -> Arrangement:
        """Who holds which key."""
        raise TypeError("a homomorphic channel names its arrangement of keys.")

    def keyring(self, who: PartyId) -> Keyring:
        """An empty keyring of this channel, for one party."""
        return Keyring(who, self.scheme, self.arrangement)

    def client(self, who: ClientId) -> HeClient:
        """A client that encrypts and signs."""
        return HeClient(self.keyring(client_party(who)))

    def server(self) -> HeServer:
        """A server that adds what it cannot read."""
        return HeServer(self.keyring("server"))

    def helpers(self) -> Mapping[PartyId, HeHelper]:
        """The decryptors, and the dealer where there is one."""
        who = dict.fromkeys((self.arrangement.maker, *self.arrangement.decryptors))
        return {party: HeHelper(self.keyring(party)) for party in who}

    def key_holders(self, cohort: Several[ClientId]) -> Several[PartyId]:
        """The smallest coalition that holds the whole secret key."""
        arrangement = self.arrangement
        if arrangement.keys == "shared":
            return tuple(client_party(client) for client in list(cohort)[:1])
        return arrangement.decryptors[: arrangement.threshold]

    def describe(self) -> str:
        """Who can read what, in one sentence for the report."""
        return self.arrangement.describe()

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """What a coalition reads: every row whose ciphertext and key it holds, otherwise a sum that
        it holds or was told, or nothing.
        """
        rings = [
            member.ring
            for member in members.values()
            if isinstance(member, HeClient | HeServer | HeHelper)
        ]
        return opened(rings, self.scheme, self.arrangement, received)
