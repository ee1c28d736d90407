"""Additive sharing over two or more servers as a channel: the first server learns the sum, and each
single server nothing else.
"""

from __future__ import annotations

import math
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import ClassVar, Literal

import numpy as np

from privfl.core import (
    Able,
    BadUpdate,
    Bounded,
    ChannelKind,
    ClientId,
    ClientMember,
    ConfigError,
    Guarantee,
    HelperMember,
    KeepsSecrets,
    Liars,
    Member,
    Opener,
    Party,
    PartyId,
    Received,
    RoundPlan,
    RowBound,
    Rows,
    ServerMember,
    Silent,
    Total,
    require,
)
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.primitives import BackendName, Directory, backend
from privfl.crypto.ring import RINGS, ring_for, word
from privfl.crypto.sharing.guarantee import sharing_guarantee
from privfl.crypto.sharing.parties import (
    HelperParty,
    SharingClientParty,
    SharingParameters,
    SharingServerParty,
    decode,
)


@dataclass(frozen=True, slots=True)
class AdditiveSharing:
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

    servers: int = 2
    threshold: float = 0.5
    bits: int = 16
    ring: int | None = None
    rounding: Literal["nearest", "stochastic"] = "nearest"
    rotation: bool = False
    backend: BackendName = "auto"
    directory: Directory = field(default_factory=Directory, compare=False, repr=False)

    def __post_init__(self) -> None:
        require.at_least(2, servers=self.servers)
        require.within(0, 1, threshold=self.threshold)
        if self.ring not in (None, *RINGS):
            raise ConfigError(f"ring is 16, 24, 32 or None, and is {self.ring}.")
        backend(self.backend)
        FixedPoint(self.bits, self.rounding, self.rotation)

    @property
    def able(self) -> Able:
        """Rounding."""
        return Able(encodes=self.code)

    @property
    def code(self) -> FixedPoint:
        """How values become integers."""
        return FixedPoint(self.bits, self.rounding, self.rotation)

    @property
    def others(self) -> tuple[PartyId, ...]:
        """The servers beside the first."""
        return tuple(f"server/{j}" for j in range(1, self.servers))

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        return f"Shares over {self.servers} servers. {self.guarantee.describe()}"

    def quorum(self, n: int) -> int:
        """The fewest contributions of a cohort of n that are ever summed."""
        return max(2, math.ceil(n * self.threshold - 1e-9))

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who may collude, who may lie and what the lie can do, as this channel is set."""
        return sharing_guarantee(self.others, self.quorum)

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

    def row_bound(self, l2: float, d: int) -> RowBound:
        """Rounding makes a contribution longer: its norm is what one client adds to the sum, and
        twice that how far it moves it.
        """
        longest = self.code.inflated(l2, d)
        return RowBound(longest, 2 * longest)

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


@lru_cache(maxsize=64)
def round_of(channel: AdditiveSharing, plan: RoundPlan) -> SharingParameters:
    """A round's public parameters, with the headroom of the ring proved.

    Raises:
        ConfigError: fewer than 2 clients, or a sum that could leave the ring.
    """
    if plan.n < 2:
        raise ConfigError(
            f"round {plan.number}: a sum over {plan.n} client hides nothing; additive sharing needs"
            " at least 2."
        )
    channel.code.scale(plan)
    ring = ring_for(channel.code, plan, ring=channel.ring)
    quorum = channel.quorum(plan.n)
    names = b"\0".join(
        [
            plan.session,
            plan.part.encode(),
            ",".join(map(str, plan.cohort)).encode(),
            channel.code.rounding.encode(),
            *(model.encode() for model in plan.models),
        ]
    )
    facts = struct.pack(
        "<qQddIIIH?",
        plan.number,
        plan.d,
        plan.l2,
        plan.max_weight,
        channel.servers,
        quorum,
        channel.bits,
        ring,
        channel.rotation,
    )
    tag = sha256(b"privfl/1/sharing" + facts + names).digest()[:16]
    return SharingParameters(tag, plan, channel.code, ring, quorum, channel.others, channel.backend)


@dataclass
class SharingClient:
    """A client between rounds."""

    channel: AdditiveSharing
    who: ClientId

    def set_up(self) -> Party:
        """Nothing to say: the servers' keys are in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan, update: Bounded) -> Party:
        """The party of one round.

        Raises:
            ConfigError: as `AdditiveSharing`, or a client that is not in the cohort, or servers
                whose keys nobody knows.
        """
        channel, now = self.channel, round_of(self.channel, plan)
        if self.who not in plan.cohort:
            raise ConfigError(f"round {plan.number}: client {self.who} is not in the cohort.")
        boxes = {who: channel.directory.boxes(who) for who in channel.others}
        unknown = [who for who, known in boxes.items() if not known]
        if unknown:
            raise ConfigError(
                f"the directory knows no key of {unknown[0]}: make the helpers before a round"
                " begins."
            )
        vector, refused = None, None
        try:
            vector = (
                channel.code.encode(update, plan, dtype=np.int32)
                .view(np.uint32)
                .astype(word(now.ring), copy=False)
            )
        except BadUpdate as bad:
            refused = str(bad)
        return SharingClientParty(
            now, self.who, plan.cohort.index(self.who), boxes, vector, refused
        )


@dataclass
class SharingServer:
    """The first server between rounds."""

    channel: AdditiveSharing

    def set_up(self) -> Party:
        """Nothing to say."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Opener[Total]:
        """The party of one round.

        Raises:
            ConfigError: as `AdditiveSharing`.
        """
        return SharingServerParty(round_of(self.channel, plan))


@dataclass(repr=False)
class SharingHelper(KeepsSecrets):
    """Another server between rounds: the key to which clients seal its seeds."""

    channel: AdditiveSharing
    who: PartyId
    secret: bytes

    def set_up(self) -> Party:
        """Nothing to say: its public key is in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Party:
        """The party of one round.

        Raises:
            ConfigError: as `AdditiveSharing`.
        """
        return HelperParty(round_of(self.channel, plan), self.who, self.secret)
