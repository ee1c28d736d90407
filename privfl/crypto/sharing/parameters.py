"""What every party of a round computes alike from the channel's description and the plan."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from typing import ClassVar, Literal

from privfl.core import (
    Bounded,
    ConfigError,
    NoiseSource,
    OsNoise,
    PartyId,
    RingNoise,
    RoundPlan,
    require,
)
from privfl.crypto.encoding import FixedPoint, weight_words
from privfl.crypto.frame import FramedRound, FrameFormat
from privfl.crypto.primitives import BackendName, Words, backend
from privfl.crypto.ring import RINGS, ring_for, ring_words
from privfl.crypto.sharing.noise import ServerNoise

FORMAT = FrameFormat(b"PAS\x02", "an additive sharing message")
VECTOR, SEEDS, HELD, SURVIVORS, SUM = range(5)
"""Client to server: its share. Client to another server: its seed. Another server to the first:
whom it heard. The first to the others: whom to sum. Another server to the first: their sum.
"""


@dataclass(frozen=True, slots=True)
class SharingSettings:
    """What describes additive sharing before any round; `AdditiveSharing` says what each field
    means.

    Raises:
        ConfigError: a setting that cannot be.
    """

    servers: int = 2
    threshold: float = 0.5
    bits: int = 16
    ring: int | None = None
    rounding: Literal["nearest", "stochastic"] = "nearest"
    rotation: bool = False
    backend: BackendName = "auto"
    proof: Literal["pine"] | None = None
    noise: RingNoise | None = None
    noise_source: NoiseSource = field(default_factory=OsNoise, compare=False)

    def __post_init__(self) -> None:
        require.at_least(2, servers=self.servers)
        require.within(0, 1, threshold=self.threshold)
        if self.ring not in (None, *RINGS):
            raise ConfigError(f"ring is 16, 24, 32 or None, and is {self.ring}.")
        if self.proof not in ("pine", None):
            raise ConfigError(f"proof is 'pine' or None, and is {self.proof!r}.")
        if self.proof is not None and (self.servers != 2 or self.ring is not None):
            raise ConfigError(
                f"proof 'pine' is verified by 2 servers over a field of 64 bits, and servers is"
                f" {self.servers}, ring {self.ring}: leave both out."
            )
        backend(self.backend)
        FixedPoint(self.bits, self.rounding, self.rotation)

    @property
    def code(self) -> FixedPoint:
        """How values become integers."""
        words = 1 if self.proof else weight_words(self.bits)
        return FixedPoint(self.bits, self.rounding, self.rotation, words)

    @property
    def others(self) -> tuple[PartyId, ...]:
        """The servers beside the first."""
        return tuple(f"server/{j}" for j in range(1, self.servers))

    def quorum(self, n: int) -> int:
        """The fewest contributions of a cohort of n that are ever summed."""
        return max(2, math.ceil(n * self.threshold - 1e-9))


@dataclass(frozen=True, slots=True)
class SharingParameters(FramedRound):
    """A round's public parameters; ``tag`` stands for all of them and is in every message."""

    FORMAT: ClassVar[FrameFormat] = FORMAT

    tag: bytes
    plan: RoundPlan
    code: FixedPoint
    ring: int
    quorum: int
    others: tuple[PartyId, ...]
    library_name: BackendName
    noise: ServerNoise | None
    source: NoiseSource

    @property
    def length(self) -> int:
        """How many ring elements a contribution has."""
        return self.code.length(self.plan)

    def encode(self, update: Bounded) -> Words:
        """A contribution [d + 1] in words of the ring.

        Raises:
            BadUpdate: as `FixedPoint.encode`.
        """
        return ring_words(self.code, update, self.plan, self.ring)


def bound_to(tag: bytes, position: int, server: PartyId) -> bytes:
    """What a sealed seed is bound to: the round, the sender's place, the receiver."""
    return tag + position.to_bytes(4, "little") + server.encode()


def parameters_of(settings: SharingSettings, plan: RoundPlan) -> SharingParameters:
    """A round's public parameters, with the headroom of the ring proved. Equal settings may draw
    their noise from different sources, so what is remembered is without it.

    Raises:
        ConfigError: fewer than 2 clients, or a sum that could leave the ring.
    """
    return replace(_public(settings, plan), source=settings.noise_source)


@lru_cache(maxsize=64)
def _public(settings: SharingSettings, plan: RoundPlan) -> SharingParameters:
    if plan.n < 2:
        raise ConfigError(
            f"round {plan.number}: a sum over {plan.n} client hides nothing; additive sharing needs"
            " at least 2."
        )
    code, noise = settings.code, None
    code.scale(plan)
    if settings.noise is not None:
        unit = code.inflated(plan.l2, plan.d) * code.scale(plan)
        noise = ServerNoise(settings.noise, unit)
    reach = 0 if noise is None else noise.reach(settings.servers)
    ring = ring_for(code, plan, reach, settings.ring)
    quorum = settings.quorum(plan.n)
    return SharingParameters(
        round_tag(settings, plan, quorum, ring, reach),
        plan,
        code,
        ring,
        quorum,
        settings.others,
        settings.backend,
        noise,
        OsNoise(),
    )


def round_tag(
    settings: SharingSettings, plan: RoundPlan, quorum: int, ring: int, reach: int
) -> bytes:
    """What stands for a round and all its parameters in every message [16 bytes]; ``reach``: how
    far noise moves a sum, because a server that adds none must not be taken for one that does.
    """
    facts = struct.pack(
        "<IIHHd?", settings.servers, quorum, settings.bits, ring, reach, settings.rotation
    )
    names = settings.code.rounding.encode()
    return sha256(b"privfl/2/sharing" + plan.digest + facts + names).digest()[:16]
