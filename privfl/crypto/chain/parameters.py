"""What every party of a round computes alike from the channel's description and the plan."""

from __future__ import annotations

import math
import struct
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import ClassVar, Literal

from privfl.core import Bounded, Buffer, ConfigError, KnownKeys, PartyId, RoundPlan, require
from privfl.crypto.abort import StageAbort
from privfl.crypto.cohort import boxes_of
from privfl.crypto.encoding import FixedPoint, weight_words
from privfl.crypto.frame import FramedRound, FrameFormat
from privfl.crypto.primitives import BackendName, Words, backend, fields, seal_to
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.ring import RINGS, ring_for, ring_words

FORMAT = FrameFormat(b"PCH\x02", "a chain's message")
HERE, ORDER, READY, LINK, PASSED, WATCH, WATCHED = range(7)
"""Client to server: it takes part. Server to clients: who does, a token, and to the first a sealed
seed. The second to the server, with the token: it waits for the first. A client to the next, the
last one to the server: the sum so far, sealed. A client to the server: it passed the sum on. Server
to that client: answer me. That client to the server: it does.
"""
SEED = 32
TOKEN = 8
"""Bytes that nobody knows before the chain is named: who names them does not wait too early."""
LEAST = 3
"""Of two clients, each reads the other off the sum."""
LONGEST = 900
"""Clients in a chain: each is an exchange, and a run ends after `core.drive.MAX_EXCHANGES`."""


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """What describes a chain before any round; `Chain` says what each field means.

    Raises:
        ConfigError: a setting that cannot be.
    """

    threshold: float = 0.5
    bits: int = 16
    ring: int | None = None
    rounding: Literal["nearest", "stochastic"] = "nearest"
    rotation: bool = False
    backend: BackendName = "auto"
    history: int = 1

    def __post_init__(self) -> None:
        require.within(0, 1, threshold=self.threshold)
        require.at_least(1, history=self.history)
        if self.ring not in (None, *RINGS):
            raise ConfigError(f"ring is 16, 24, 32 or None, and is {self.ring}.")
        backend(self.backend)
        FixedPoint(self.bits, self.rounding, self.rotation)

    @property
    def code(self) -> FixedPoint:
        """How values become integers."""
        return FixedPoint(self.bits, self.rounding, self.rotation, weight_words(self.bits))

    def quorum(self, n: int) -> int:
        """The fewest contributions of a cohort of n that are ever summed: more than half, because
        of two chains side by side a server that names both would read both sums.

        Raises:
            ConfigError: a cohort that no chain can have.
        """
        if n > LONGEST:
            raise ConfigError(
                f"a chain has {LEAST} to {LONGEST} clients, and the cohort has {n}: every client"
                " takes an exchange; ask fewer, or use channel secagg."
            )
        return max(LEAST, n // 2 + 1, math.ceil(n * self.threshold - 1e-9))


@dataclass(frozen=True, slots=True)
class ChainParameters(FramedRound):
    """A round's public parameters; ``tag`` stands for all of them and is in every message."""

    FORMAT: ClassVar[FrameFormat] = FORMAT

    tag: bytes
    plan: RoundPlan
    code: FixedPoint
    ring: int
    quorum: int
    library_name: BackendName

    @property
    def length(self) -> int:
        """How many ring elements a contribution has."""
        return self.code.length(self.plan)

    def encode(self, update: Bounded) -> Words:
        """A contribution [d + words] in words of the ring.

        Raises:
            BadUpdate: as `FixedPoint.encode`.
        """
        return ring_words(self.code, update, self.plan, self.ring)

    def link(
        self, position: int, order: Collection[int], total: Words, to: PartyId, keys: KnownKeys
    ) -> bytes:
        """The sum so far as a client passes it on, sealed to its receiver.

        Raises:
            StageAbort: the directory knows no key of the receiver.
        """
        bits = fields.bit_set(order, self.plan.n)
        packed = bytes(fields.pack(total, self.ring))
        context = bound_to(self.tag, bits, position, to)
        sealed = seal_for(keys, to, packed, context, self.library_name)
        return self.write(LINK, position, fields.facts(self.plan), bits, sealed)


def read_order(content: memoryview, n: int) -> tuple[frozenset[int], bytes, memoryview]:
    """Who is in the chain that the server names, its token, and what is sealed to the first.

    Raises:
        Malformed: it ends early, or names who is not in a cohort of ``n``.
    """
    order, rest = fields.read_bit_set(content, n)
    if len(rest) < TOKEN:
        raise Malformed("its token is cut off")
    return order, bytes(rest[:TOKEN]), rest[TOKEN:]


def neighbours(order: Collection[int], position: int) -> tuple[int | None, int | None]:
    """Who is before and after a client in the chain; None is the server.

    >>> neighbours({5, 1, 3}, 1), neighbours({5, 1, 3}, 3)
    ((None, 3), (1, 5))
    """
    chain = sorted(order)
    at = chain.index(position)
    before = chain[at - 1] if at else None
    return before, chain[at + 1] if at + 1 < len(chain) else None


def bound_to(tag: bytes, order: Buffer, position: int, to: PartyId) -> bytes:
    """What a sealed box is bound to: the round, who is in the chain, the sender's place, the
    receiver.
    """
    return b"".join((tag, order, position.to_bytes(4, "little"), to.encode()))


def seed_bound_to(tag: bytes, order: Buffer, to: PartyId) -> bytes:
    """What the sealed seed of the first client is bound to."""
    return b"".join((tag, order, b"seed", to.encode()))


def seal_for(
    keys: KnownKeys, to: PartyId, plain: bytes, context: bytes, library: BackendName
) -> bytes:
    """A box for a party of the directory.

    Raises:
        StageAbort: the directory knows no key of the party.
    """
    try:
        boxes = boxes_of(keys, to)
    except ConfigError as unknown:
        raise StageAbort("keys", str(unknown), who=[to]) from None
    return seal_to(boxes, plain, context, backend(library))


@lru_cache(maxsize=64)
def parameters_of(settings: ChainSettings, plan: RoundPlan) -> ChainParameters:
    """A round's public parameters, with the headroom of the ring proved.

    Raises:
        ConfigError: fewer than 3 clients or more than 900, or a sum that could leave the ring.
    """
    if not LEAST <= plan.n <= LONGEST:
        raise ConfigError(
            f"round {plan.number}: a chain has {LEAST} to {LONGEST} clients, and the cohort has"
            f" {plan.n}: under {LEAST} the sum hides nothing, and every client takes an exchange;"
            " ask others, or use channel secagg."
        )
    code = settings.code
    code.scale(plan)
    ring, quorum = ring_for(code, plan, ring=settings.ring), settings.quorum(plan.n)
    facts = struct.pack("<IHH?", quorum, settings.bits, ring, settings.rotation)
    said = b"privfl/1/chain" + plan.digest + facts + settings.rounding.encode()
    return ChainParameters(sha256(said).digest()[:16], plan, code, ring, quorum, settings.backend)
