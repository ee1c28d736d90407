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
    DpEvent,
    Examples,
    Guarantee,
    HelperMember,
    KnownKeys,
    Liars,
    Member,
    PartyId,
    PartyKeys,
    Received,
    RoundPlan,
    Rows,
    ServerMember,
    Total,
    no_helper,
    refuse_others_keys,
)
from privfl.crypto.primitives import backend
from privfl.crypto.sharing.guarantee import sharing_guarantee
from privfl.crypto.sharing.members import SharingClient, SharingHelper, SharingServer
from privfl.crypto.sharing.noise import noised
from privfl.crypto.sharing.parameters import SharingSettings, parameters_of
from privfl.crypto.sharing.pine import parameters as pine
from privfl.crypto.sharing.pine.guarantee import pine_guarantee
from privfl.crypto.sharing.pine.parameters import Proved
from privfl.crypto.sharing.pine.view import opened
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
    word, unless ``proof`` is set.

    ``proof="pine"`` (2 servers, no third party): every client proves to both servers that the norm
    of its vector keeps the bound and its weight the largest weight, and whose proof does not hold
    is left out (PINE: Rothblum, Omri, Chen, Talwar 2023; draft-chen-cfrg-vdaf-pine of 17 October
    2024). Values then travel in 64 bits. Privacy holds against one server that lies, with any
    clients; that a proof says the truth needs both servers to follow the protocol. A proof that
    fails convicts nobody: its client lied, or one of the servers did.

    Args:
        servers: how many, the one named ``server`` among them; the others are ``server/1``,
            ``server/2``, ...
        threshold: the fraction of the cohort below which nothing is summed (never fewer than 2).
        bits, rounding, rotation: as in `FixedPoint`; ``ring`` (16, 24, 32; None: the smallest that
            holds any sum) is what travels.
        proof: ``"pine"``, or None: norms are the clients' word.
        noise: what EACH server adds to its share of the sum, from ``noise_source``; the noise of
            one server is accounted for.

    Raises:
        ConfigError: a setting that cannot be; and when a round begins, a sum that could leave the
            ring, fewer than 2 clients, or no finite bound.

    >>> AdditiveSharing(servers=3).helpers
    ('server/1', 'server/2')
    """

    examples: ClassVar[Examples] = {"": {"bits": 8}, "proved": {"proof": "pine"}}
    kind: ClassVar[ChannelKind] = ChannelKind("total", takes_noise=True)

    @property
    def able(self) -> Able:
        """Rounding (and with a proof the norm that is proved), the quorum, the servers' noise."""
        return Able(
            streams=True,
            encodes=self.code if self.proof is None else Proved(self.code),
            rounds_off=self.code.error,
            fewest=self.quorum,
            noise=None if self.noise is None else self,
            seeded=self.noise is not None and self.noise_source.repeatable,
            keyed=True,
            joins=True,
        )

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who may collude, who may lie and what the lie can do, as this channel is set."""
        if self.proof is not None:
            said = pine_guarantee(self.others[0], self.quorum)
        else:
            said = sharing_guarantee(self.others, self.quorum)
        return noised(said.needing(self.threshold), self.noise, proved=self.proof is not None)

    def noise_event(
        self, plan: RoundPlan, survivors: int | None = None, colluders: int = 0
    ) -> DpEvent | None:
        """What accounts for the noise of ONE server, whoever survived: the other servers may be the
        adversary, and clients know nothing of it.

        Raises:
            ConfigError: as a round does.
        """
        if self.proof is not None:
            drawn = pine.parameters_of(self, plan).noise
        else:
            drawn = parameters_of(self, plan).noise
        return None if drawn is None else drawn.event(plan.d)

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        proof = "" if self.proof is None else ", with norms proved to both"
        return f"Shares over {self.servers} servers{proof}. {self.guarantee.describe()}"

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
        """The server that learns the sum. It needs keys where it verifies proofs.

        Raises:
            ConfigError: another party's keys, where it needs them.
        """
        if self.proof is not None:
            refuse_others_keys("server", identity)
        return SharingServer(self, identity, directory)

    def helper(self, who: PartyId, identity: PartyKeys, directory: KnownKeys) -> HelperMember:
        """Another server, to whose key clients seal its seeds.

        Raises:
            ConfigError: no such server, or another party's keys.
        """
        if who not in self.others:
            raise no_helper("additive_sharing", who, self.others)
        refuse_others_keys(who, identity)
        return SharingHelper(self, who, identity, directory)

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """The total to whoever reads the first server's mail; every row to all servers together;
        nothing to the others.
        """
        keys = {
            who: member.identity
            for who, member in members.items()
            if isinstance(member, SharingHelper)
        }
        if self.proof is not None:
            return opened(self, received, keys)
        return decode(self.code, self.others, received, keys, backend(self.backend))
