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
    KnownKeys,
    Liars,
    Member,
    PartyId,
    PartyKeys,
    Received,
    Rows,
    Total,
    client_party,
    no_helper,
    refuse_others_keys,
)
from privfl.crypto.he.guarantee import SchemeLies, he_guarantee
from privfl.crypto.he.keyring import Keyring
from privfl.crypto.he.members import HeClient, HeHelper, HeServer
from privfl.crypto.he.parameters import Arrangement
from privfl.crypto.he.scheme import Scheme
from privfl.crypto.he.view import opened


class HomomorphicChannel:
    """The methods of a channel, from a scheme and an arrangement of keys.

    Threat model (``guarantee`` says it as the channel is set). Where sums are verified a server
    that lies ALONE cannot make decryptors open one client's ciphertext, a small sum, an old round
    or the same round twice; it chooses whose ciphertexts are summed. With all but one of a quorum
    of colluding clients it reads one client a round. Where clients share the key, or sums are not
    verified, it reads single updates alone. Transport is authenticated, as in the set-up in which
    the parties learn each other's keys. There is no proof that a ciphertext is well formed: a
    client can put any vector into the sum, and, under the lattice schemes, what shows the secret
    key to whoever sees the sum.
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
            fewest=self.arrangement.quorum,
            sums=self.arrangement.releases,
            key_holders=self.key_holders,
            keyed=True,
            warnings=(*self.arrangement.warnings(), *self._aloud()),
        )

    def _aloud(self) -> tuple[str, ...]:
        return (self.own_lies.aloud,) if self.own_lies.aloud else ()

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

    def keyring(self, who: PartyId, identity: PartyKeys, directory: KnownKeys) -> Keyring:
        """An empty keyring of this channel, for one party.

        Raises:
            ConfigError: another party's keys.
        """
        refuse_others_keys(who, identity)
        return Keyring(who, self.scheme, self.arrangement, identity, directory)

    @property
    def helpers(self) -> tuple[PartyId, ...]:
        """The decryptors, and the dealer where there is one."""
        return tuple(dict.fromkeys((self.arrangement.maker, *self.arrangement.decryptors)))

    def client(self, who: ClientId, identity: PartyKeys, directory: KnownKeys) -> HeClient:
        """A client that encrypts and signs; raises as `keyring`."""
        return HeClient(self.keyring(client_party(who), identity, directory))

    def server(self, identity: PartyKeys, directory: KnownKeys) -> HeServer:
        """A server that adds what it cannot read; raises as `keyring`."""
        return HeServer(self.keyring("server", identity, directory))

    def helper(self, who: PartyId, identity: PartyKeys, directory: KnownKeys) -> HeHelper:
        """A decryptor, or the dealer.

        Raises:
            ConfigError: as `keyring`, or there is no such helper.
        """
        self._known(who)
        return HeHelper(self.keyring(who, identity, directory))

    def _known(self, who: PartyId) -> None:
        if who not in self.helpers:
            raise no_helper(type(self).__name__, who, self.helpers)

    def key_holders(self, cohort: Several[ClientId]) -> Several[PartyId]:
        """The smallest coalition that holds the whole secret key."""
        arrangement = self.arrangement
        if arrangement.keys == "shared":
            return tuple(client_party(client) for client in list(cohort)[:1])
        return arrangement.decryptors[: arrangement.threshold]

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        arrangement = self.arrangement
        copies = (arrangement.copies,) if arrangement.verifies else ()
        keys = f"Keys: {arrangement.keys}."
        return " ".join((keys, *self._aloud(), self.guarantee.describe(), *copies))

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
