"""Additive sharing over two or more servers as a channel: the first server learns the sum, and each
single server nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from privfl.core import (
    Able,
    ChannelKind,
    ClientId,
    ClientMember,
    Examples,
    Guarantee,
    HelperMember,
    KnownKeys,
    Liars,
    Member,
    PartyId,
    PartyKeys,
    Received,
    Rows,
    ServerMember,
    Total,
    no_helper,
    refuse_others_keys,
)
from privfl.crypto.primitives import backend
from privfl.crypto.sharing.guarantee import sharing_guarantee
from privfl.crypto.sharing.members import SharingClient, SharingHelper, SharingServer
from privfl.crypto.sharing.parameters import SharingSettings
from privfl.crypto.sharing.view import decode


@dataclass(frozen=True, slots=True)
class AdditiveSharing(SharingSettings):
    """Each client splits its vector into one share per server; the servers add theirs up (Prio:
    Corrigan-Gibbs, Boneh 2017).

    All shares but the first are 32-byte seeds, sealed to their server, so the upload is one vector.
    A client is in the sum when it reached every server; the servers agree on that set before any
    sum leaves, and never sum fewer than the quorum. The weight travels inside the shared vector.

    ``guarantee`` says who reads what and who may lie. In short: up to ``servers`` - 1 servers that
    follow the protocol, with clients that do, learn the sum and nothing else, provided that
    the directory holds the servers' true keys. All servers together read every update. ONE SERVER
    THAT LIES moves the sum unnoticed, or shuts clients out: with all but one of a quorum it reads
    that one. LYING CLIENTS ARE NOT STOPPED: nobody sees an input, so bounds are the client's own
    word.

    Args:
        servers: how many, the one named ``server`` among them; the others are ``server/1``,
            ``server/2``, ...
        threshold: the fraction of the cohort below which nothing is summed (never fewer than 2).
        bits, rounding, rotation: as in `FixedPoint`; ``ring`` (16, 24, 32; None: the smallest that
            holds any sum) is what travels.

    Raises:
        ConfigError: a setting that cannot be; and when a round begins, a sum that could leave the
            ring, fewer than 2 clients, or no finite bound.

    >>> AdditiveSharing(servers=3).helpers
    ('server/1', 'server/2')
    """

    examples: ClassVar[Examples] = {"": {"bits": 8}}
    kind: ClassVar[ChannelKind] = ChannelKind("total")

    @property
    def able(self) -> Able:
        """Rounding, and the quorum."""
        return Able(encodes=self.code, fewest=self.quorum, keyed=True, joins=True)

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who may collude, who may lie and what the lie can do, as this channel is set."""
        return sharing_guarantee(self.others, self.quorum)

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        return f"Shares over {self.servers} servers. {self.guarantee.describe()}"

    @property
    def helpers(self) -> tuple[PartyId, ...]:
        """The other servers."""
        return self.others

    def client(self, who: ClientId, identity: PartyKeys, directory: KnownKeys) -> ClientMember:
        """A client, which keeps nothing between rounds and seals to the servers' keys in the
        directory.
        """
        return SharingClient(self, who, directory)

    def server(self, identity: PartyKeys, directory: KnownKeys) -> ServerMember[Total]:
        """The server that learns the sum. It needs no keys."""
        return SharingServer(self)

    def helper(self, who: PartyId, identity: PartyKeys, directory: KnownKeys) -> HelperMember:
        """Another server, to whose key clients seal its seeds.

        Raises:
            ConfigError: no such server, or another party's keys.
        """
        if who not in self.others:
            raise no_helper("additive_sharing", who, self.others)
        refuse_others_keys(who, identity)
        return SharingHelper(self, who, identity)

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """The total to whoever reads the first server's mail; every row to all servers together;
        nothing to the others.
        """
        keys = {
            who: member.identity
            for who, member in members.items()
            if isinstance(member, SharingHelper)
        }
        return decode(self.code, self.others, received, keys, backend(self.backend))
