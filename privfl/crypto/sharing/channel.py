"""Additive sharing over two or more servers as a channel: the first server learns the sum, and each
single server nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from privfl.core import (
    Able,
    ChannelKind,
    ClientId,
    ClientMember,
    Guarantee,
    HelperMember,
    Liars,
    Member,
    PartyId,
    Received,
    Rows,
    ServerMember,
    Total,
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
    ``directory`` holds the servers' true keys. All servers together read every update. ONE SERVER
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

    >>> sorted(AdditiveSharing(servers=3).helpers())
    ['server/1', 'server/2']
    """

    kind: ClassVar[ChannelKind] = ChannelKind("total")

    @property
    def able(self) -> Able:
        """Rounding."""
        return Able(encodes=self.code)

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who may collude, who may lie and what the lie can do, as this channel is set."""
        return sharing_guarantee(self.others, self.quorum)

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        return f"Shares over {self.servers} servers. {self.guarantee.describe()}"

    def client(self, who: ClientId) -> ClientMember:
        """A client, which keeps nothing between rounds."""
        return SharingClient(self, who)

    def server(self) -> ServerMember[Total]:
        """The server that learns the sum."""
        return SharingServer(self)

    def helpers(self) -> Mapping[PartyId, HelperMember]:
        """The other servers, each with a fresh key whose public half is entered in the
        directory.
        """
        made = {who: SharingHelper(self, who, secrets.token_bytes(32)) for who in self.others}
        for who, member in made.items():
            self.directory.enrol(who, sealing=backend(self.backend).x25519_public(member.secret))
        return made

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """The total to whoever reads the first server's mail; every row to all servers together;
        nothing to the others.
        """
        keys = {
            who: member.secret
            for who, member in members.items()
            if isinstance(member, SharingHelper)
        }
        return decode(self.code, self.others, received, keys, backend(self.backend))
