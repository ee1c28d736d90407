"""A round's public parameters, agreed before it starts: the ring with its headroom proved, the
checks, the kinds of messages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch

from privfl.core import BadUpdate, Buffer, ConfigError, RoundPlan, Vector
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.frame import FramedRound, FrameFormat
from privfl.crypto.mpc.words import packed_size
from privfl.crypto.primitives import Backend, BackendName, backend
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.soundness import REACH, RINGS, projections

FORMAT = FrameFormat(b"P2S\x01", "a two-server message")
SERVERS = ("server", "server/1")
"""Who computes, the first of them first."""
VECTOR, SEED, HELD, MASKED, DEAL, DEALT, STEPS, PIECE, MORE, CLAIM, DIFFERENCES = range(11)
"""Client to server: its masked vector. Client to server/1: its seed. server/1 to server: whom it
heard. server to server/1: the masked rows. Both to the dealer: seeds. Dealer to server/1: what the
seeds do not say. Between the servers: steps of the computation. Where the masked rows are more than
one letter carries: server to server/1 the next piece of them, server/1 to server that it has room.
Where the dealer dealt ahead: server to server/1 which dealing it took, and for whom; server/1 to
server how the clients' masks differ from the dealt ones.
"""
FIXED_HEAD = 32 + 16
"""Bytes before a fixed row: the seed of one mask, and the tag of the row."""
_WEIGHT_BITS = 10
"""FLTrust's weights get at least so many bits after the point."""


Security = Literal["semi_honest", "malicious"]


def check_security(security: str) -> None:
    """Refuse what is none.

    Raises:
        ConfigError: it is neither of the two.
    """
    if security not in ("semi_honest", "malicious"):
        raise ConfigError(f"security is 'semi_honest' or 'malicious', and is '{security}'.")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a rule asks of the ring beside sums.

    Sums of so many ``distances`` of two rows; ``dots`` with a reference, and their ``squares``;
    sums of rows under ``real_weights`` in fixed point, or under ``dot_weights``.
    """

    distances: int = 0
    dots: bool = False
    squares: bool = False
    real_weights: bool = False
    dot_weights: bool = False


@dataclass(frozen=True, slots=True)
class Direction:
    """A public direction: integers [d] of norm about `TwoServerParameters.steep`, the square of
    their norm, and the length of what they stand for.
    """

    values: npt.NDArray[np.int64]
    square: int
    length: float

    @classmethod
    def of(cls, values: npt.NDArray[np.int64], length: float) -> Direction:
        """With the square computed, exactly."""
        parts = np.add.reduceat(values * values, np.arange(0, len(values), 1 << 16))
        return cls(values, sum(int(part) for part in parts), length)


def direct(vector: Vector, steep: int) -> Direction | None:
    """A vector [d] as a direction; None where it is zero.

    Raises:
        BadUpdate: it is not finite.
    """
    exact = vector.detach().to("cpu", torch.float64).numpy()
    length = float(np.linalg.norm(exact))
    if not length < math.inf:
        raise BadUpdate("the reference holds NaN or infinite values.")
    if length == 0:
        return None
    values = np.rint(exact * ((steep - math.sqrt(len(exact)) / 2 - 1) / length)).astype(np.int64)
    return Direction.of(values, length)


@dataclass(frozen=True, slots=True)
class TwoServerParameters(FramedRound):
    """A round's public parameters; ``tag`` stands for all of them and is in every message.

    ``longest`` is C, the integer norm that no accepted row is over (``shortest``: under, where
    clients normalise), ``rows`` how many projections prove it, ``weighted`` whether each row
    carries its weight as one more word, ``signs`` whether rows are single bits. ``malicious``:
    clients fix their rows, and all that servers open is proved.
    """

    FORMAT: ClassVar[FrameFormat] = FORMAT

    tag: bytes
    plan: RoundPlan
    code: FixedPoint
    ring: int
    rows: int
    longest: int
    shortest: int
    quorum: int
    weighted: bool
    gram: bool
    steep: int
    library_name: BackendName
    signs: bool = False
    malicious: bool = False

    @property
    def library(self) -> Backend:
        """The cryptographic library."""
        return backend(self.library_name)

    @property
    def reach(self) -> int:
        """B: what no projection of an honest row passes."""
        return REACH * self.longest

    @property
    def length(self) -> int:
        """Words of a contribution that are summed."""
        return self.plan.d + self.weighted

    @property
    def sum_tags(self) -> int:
        """How many keys tag a row's mask for the sum under public weights."""
        return 2 if self.malicious else 1

    @property
    def words(self) -> int:
        """Words of a contribution: where rows are fixed, its squared norm comes last."""
        return self.length + self.malicious

    @property
    def body(self) -> int:
        """Bytes of a contribution on the wire."""
        return self.packed + (FIXED_HEAD if self.malicious else 0)

    @property
    def packed(self) -> int:
        """Bytes of a row."""
        return -(-self.plan.d // 8) if self.signs else packed_size(self.ring, self.words)

    @property
    def digits(self) -> int:
        """Base-256 digits of a word in products: tags are modulo 2^64 whatever the ring."""
        return 8 if self.malicious else self.ring // 8

    @property
    def scale(self) -> float:
        """Ring integers per unit of update."""
        return self.code.scale(self.plan)

    @property
    def fine(self) -> int:
        """Steps of a real weight: as many as n weighted rows of the longest norm leave room for, in
        the ring and in 40 bits.

        More would let errors of a sum hide in bits that tags see badly.
        """
        room = (1 << (min(self.ring, 40) - 1)) // (self.plan.n * self.longest + 1)
        return 1 << max(room.bit_length() - 2, _WEIGHT_BITS)

    def inner(self, n: int) -> int:
        """How many inner products n rows need: of each with itself, or of all with all."""
        return n * n if self.gram else n

    def width(self, n: int) -> int:
        """Columns at a time: n rows of them stay in cache."""
        return max(256, min(8192, (1 << 18) // max(n, 1) // 64 * 64))

    def asked_before(self, body: Buffer, kind: int, last: int) -> bool:
        """Whether it is a numbered message of this kind, up to the last one that came."""
        try:
            number, _ = self.read(body, kind)
        except Malformed:
            return False
        return number <= last

    def bound_to(self, *names: str) -> bytes:
        """What a sealed box of this round is bound to."""
        return self.tag + "/".join(names).encode()


def fitting(
    code: FixedPoint,
    plan: RoundPlan,
    needs: Needs,
    noise: int,
    soundness: int,
    rings: Sequence[int],
    wide: bool = False,
) -> tuple[int, int, int, int]:
    """The smallest ring that holds all sums, norms and products, the rows that prove norms in it,
    the longest norm C, steps of a direction. ``wide``: squares are of 64 bits whatever the ring,
    and of products 40 bits are looked at.

    Raises:
        ConfigError: none of the ``rings`` does; too few bits for vectors of this length.
    """
    unit = code.inflated(plan.l2, plan.d) * code.scale(plan)
    longest = math.ceil(unit * (1 + 1e-6))
    if longest > 2 * code.top:
        raise ConfigError(
            f"round {plan.number}: {code.bits} bits are too coarse for {plan.d} values: rounding"
            " could double a norm. Raise bits."
        )
    why = ""
    for tried in rings:
        half = 1 << (tried - 1)
        steep = min(1 << 22, half // 2 // longest)
        if wide:
            steep = min(steep, (1 << (min(tried, 40) - 2)) // longest)
        if needs.squares:
            steep = min(steep, math.isqrt((1 << 61) if wide else half // 4) // longest)
        if needs.dot_weights:
            steep = min(steep, half // 2 // (plan.n * longest**2))
        rows = projections(longest, tried, plan.d, soundness)
        if plan.n * longest + noise >= half or max(4 * needs.distances, 1) * longest**2 >= half:
            why = "sums, norms and distances could leave the ring"
        elif rows is None:
            why = f"norms cannot be proved to 2^-{soundness} in so small a ring"
        elif needs.dots and steep < (1 << 12) + math.isqrt(plan.d):
            why = "products with the reference could leave the ring"
        elif needs.real_weights and plan.n * longest * ((1 << _WEIGHT_BITS) + 1) >= half:
            why = "weighted sums could leave the ring"
        else:
            return tried, rows, longest, steep
    way_out = "lower bits" if rings[-1] == 64 or len(rings) > 1 else "set ring=None, or lower bits"
    if wide and rings[-1] < max(RINGS):
        way_out += ", or set security: semi_honest, which has rings of 64"
    raise ConfigError(
        f"round {plan.number}: a ring of {rings[-1]} bits is too small for {plan.n} rows of norm"
        f" {longest}: {why}; {way_out}."
    )
