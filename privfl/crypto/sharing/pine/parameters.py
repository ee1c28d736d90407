"""What every party of a round with proved norms computes alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from privfl.core import (
    Bounded,
    ConfigError,
    NoiseSource,
    OsNoise,
    PartyId,
    RoundPlan,
    Stable,
    Vector,
)
from privfl.core.update import SLACK
from privfl.crypto.encoding import FixedPoint, Rounded
from privfl.crypto.frame import FramedRound, FrameFormat
from privfl.crypto.own_noise import own_noise
from privfl.crypto.sharing.noise import ServerNoise
from privfl.crypto.sharing.parameters import SharingSettings, round_tag
from privfl.crypto.sharing.pine.circuit import Circuit
from privfl.crypto.sharing.pine.field64 import Field64, P, centred, words
from privfl.crypto.sharing.pine.vdaf import NONCE, Pine

FORMAT = FrameFormat(b"PPN\x01", "a message of sharing with proved norms")
REPORT, SEEDS, HALF, HELD, SURVIVORS, SUM = range(6)
"""Client to each server: its share, the nonce and the public share. Each server to the other: its
half of the key under which proofs are verified; then what it says of each proof, server/1 with
whom it heard, and server with whom to sum. Server/1 to server: whom it summed, and their sum.
"""
RING = 64
KEY = 32
WITH_WEIGHT = 0xFFFF7076
"""The algorithm of our instance, from the range for private use: the draft's for Field64, HMAC and
AES, with the bits of a weight behind its own.
"""


def largest(code: FixedPoint, plan: RoundPlan) -> int:
    """C, the norm in integer steps that is proved: that of a vector as long as the bound, rounding
    and the slack of float32 included.

    >>> largest(FixedPoint(16), RoundPlan(0, (1, 2), d=100, l2=1.0))
    32773
    """
    longest = code.inflated(plan.l2 * (1 + SLACK), plan.d) * code.scale(plan)
    return math.ceil(longest * (1 + 1e-12))


@dataclass(frozen=True, slots=True)
class Proved:
    """Fixed point whose norms the servers verify: what leaves it is at most as long as what is
    proved, whatever a client does.
    """

    code: FixedPoint

    def arrives(self, row: Vector, plan: RoundPlan) -> Vector:
        """As `FixedPoint.arrives`."""
        return self.code.arrives(row, plan)

    def stage(self, d: int) -> Stable:
        """The proved norm, between a client's row [d] and the sum."""
        return Rounded(lambda l2: self.longest(l2, d))

    def longest(self, l2: float, d: int) -> float:
        """The norm that is proved of a contribution [d] under a bound.

        >>> Proved(FixedPoint(16)).longest(1.0, 100)
        1.000...
        """
        plan = RoundPlan(0, (0, 1), d=d, l2=l2)
        return largest(self.code, plan) / self.code.scale(plan)


@dataclass(frozen=True, slots=True)
class PineParameters(FramedRound):
    """A round's public parameters; ``tag`` stands for all of them and is in every message."""

    FORMAT: ClassVar[FrameFormat] = FORMAT

    tag: bytes
    plan: RoundPlan
    code: FixedPoint
    quorum: int
    other: PartyId
    pine: Pine
    noise: ServerNoise | None
    source: NoiseSource
    ring: int = RING

    @property
    def length(self) -> int:
        """Elements of a contribution: the vector, and the weight."""
        return self.plan.d + 1

    @property
    def said(self) -> int:
        """Bytes of what a server says of one proof."""
        return self.pine.said_size + 2 * self.pine.xof.seed_size

    def encode(self, update: Bounded) -> tuple[Field64, int]:
        """A contribution: the vector [d] in the field, and the weight.

        Raises:
            BadUpdate: as `FixedPoint.encode`.
        """
        integers = self.code.encode(update, self.plan)
        return words(integers[:-1]), int(integers[-1])

    def nonce(self, position: int, drawn: bytes) -> bytes:
        """The nonce of a client's report, from what the client drew: nobody else's, and no other
        round's.
        """
        names = self.tag + position.to_bytes(4, "little") + drawn
        return sha256(b"privfl/1/pine/nonce" + names).digest()[:NONCE]

    def verify_key(self, first: bytes, second: bytes) -> bytes:
        """The key under which proofs are verified, from both servers' halves."""
        return sha256(b"privfl/1/pine/key" + self.tag + first + second).digest()

    def half_context(self, sender: PartyId) -> bytes:
        """What a server's sealed half is bound to."""
        return b"privfl/1/pine/half" + self.tag + sender.encode()

    def report_context(self, position: int) -> bytes:
        """What a client's sealed share is bound to."""
        return b"privfl/1/pine/share" + self.tag + position.to_bytes(4, "little")

    def noise_words(self, role: str) -> Field64:
        """The noise of the server in this role on the vector, none on the weight [d + 1]."""
        out: npt.NDArray[np.int64] = np.zeros(self.length, dtype=np.int64)
        if self.noise is not None:
            out[:-1] = self.noise.draw(
                self.plan.d, own_noise(self.source, self.plan, f"server/{role}")
            )
        return words(out)

    def integers(self, total: Field64) -> npt.NDArray[np.int64]:
        """A sum as the integers around zero that it stands for."""
        return centred(total)


def parameters_of(settings: SharingSettings, plan: RoundPlan) -> PineParameters:
    """A round's public parameters, with the headroom of the field proved; what is remembered of
    them is without the source of the noise, as over plain shares.

    Raises:
        ConfigError: fewer than 2 clients, no finite bound, a norm too large for the field, or noise
            that could leave it.
    """
    return replace(_public(settings, plan), source=settings.noise_source)


@lru_cache(maxsize=64)
def _public(settings: SharingSettings, plan: RoundPlan) -> PineParameters:
    if plan.n < 2:
        raise ConfigError(
            f"round {plan.number}: a sum over {plan.n} client hides nothing; additive sharing needs"
            " at least 2."
        )
    code = settings.code
    bound = largest(code, plan)
    circuit = Circuit(plan.d, bound, weight_bits=settings.bits - 1)
    noise = None
    if settings.noise is not None:
        noise = ServerNoise(settings.noise, bound)
    reach = 0 if noise is None else noise.reach(2)
    if plan.n * code.top + reach >= P // 2:
        raise ConfigError(
            f"round {plan.number}: noise that reaches {reach} steps could leave Field64: lower the"
            " noise multiplier."
        )
    quorum = settings.quorum(plan.n)
    return PineParameters(
        round_tag(settings, plan, quorum, RING, reach),
        plan,
        code,
        quorum,
        settings.others[0],
        Pine(circuit, WITH_WEIGHT),
        noise,
        OsNoise(),
    )
