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
    Guarantee,
    Liars,
    Member,
    PartyId,
    Received,
    Rows,
    Total,
    client_party,
)
from privfl.crypto.he.guarantee import SchemeLies, he_guarantee
from privfl.crypto.he.keyring import Arrangement, Keyring
from privfl.crypto.he.members import HeClient, HeHelper, HeServer
from privfl.crypto.he.scheme import Scheme
from privfl.crypto.he.view import opened


class HomomorphicChannel:
    """The methods of a channel, from a scheme and an arrangement of keys.

    Threat model (``guarantee`` says it as the channel is set). Where sums are verified a server
    that lies ALONE cannot make decryptors open one client's ciphertext, a small sum, an old round
    or the same round twice; it chooses whose ciphertexts are summed. With ``min_clients`` - 1
    clients it reads one client a round. Where clients share the key, or sums are not verified, it
    reads single updates alone. Transport is authenticated, as in the set-up in which the parties
    learn each other's keys. There is no proof that a ciphertext or a decryptor's part is well
    formed: a client can put any vector into the sum, and one decryptor can move it.
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

    @property
    def own_lies(self) -> SchemeLies:
        """The lies of the scheme's own."""
        return SchemeLies()

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who may collude, who may lie and what the lie can do, as this channel is set."""
        return he_guarantee(self.arrangement, self.own_lies)

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
        """Who can read what, who can lie, and what leaks, for the report."""
        return f"Keys: {self.arrangement.keys}. {self.guarantee.describe()}"

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
