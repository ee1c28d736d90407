"""Rows of signs as each party holds them, and the dealt bits that turn them into numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privfl.core import KeepsSecrets
from privfl.crypto.mpc.words import U64, stream
from privfl.crypto.primitives import Backend, derive
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.parameters import TwoServerParameters

Bits = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
_TAIL = 16


def size(d: int) -> int:
    """Bytes of d packed bits."""
    return -(-d // 8)


def drawn(seed: bytes, purpose: str, n: int, length: int, library: Backend) -> Iterator[Bits]:
    """N rows of so many bytes from a purpose of a seed."""
    source = stream(derive(seed, b"two-server", purpose), library)
    for _ in range(n):
        raw = np.empty(length + _TAIL, dtype=np.uint8)
        source.fill(raw, length)
        yield raw[:length]


@dataclass(repr=False)
class BitRows(KeepsSecrets):
    """The first server's: each client's signs, masked, packed."""

    bodies: list[Bits]

    def packed(self, now: TwoServerParameters) -> Iterator[Bits]:
        """Row by row."""
        yield from self.bodies


@dataclass(repr=False)
class BitSeeds(KeepsSecrets):
    """The second server's and the dealer's: each client's masks, from its seed."""

    seeds: list[bytes]

    def packed(self, now: TwoServerParameters) -> Iterator[Bits]:
        """Row by row."""
        for seed in self.seeds:
            yield next(drawn(seed, "bits", 1, size(now.plan.d), now.library))


@dataclass(repr=False)
class Flips(KeepsSecrets):
    """One server's share of the dealt bits: by exclusive or from its seed; as numbers from its
    seed, or as the dealer sent them.

    ``scaled`` are numbers too: the dealt bits times the dealt weights, row by row, where weights
    stay hidden. ``macs``, where rows are fixed, are shares of a key times what the two servers'
    numbers add up to as integers.
    """

    seed: bytes
    numbers: U32 | None = None
    scaled: U32 | None = None
    macs: U64 | None = None

    def bits(self, now: TwoServerParameters, n: int) -> Iterator[Bits]:
        """The packed bits, row by row."""
        return drawn(self.seed, "flips", n, size(now.plan.d), now.library)

    def rows(self, now: TwoServerParameters, n: int, scaled: bool = False) -> Iterator[U32]:
        """The numbers, row by row."""
        dealt, purpose = (self.scaled, "scaled") if scaled else (self.numbers, "numbers")
        if dealt is not None:
            yield from dealt
        else:
            for raw in drawn(self.seed, purpose, n, 4 * now.plan.d, now.library):
                yield raw.view("<u4")

    def authenticated(self, now: TwoServerParameters, n: int) -> Iterator[U64]:
        """The shares of the key's products, row by row."""
        if self.macs is not None:
            yield from self.macs
        else:
            for raw in drawn(self.seed, "flip macs", n, 8 * now.plan.d, now.library):
                yield raw.view("<u8").astype(np.uint64, copy=False)


def dealt_flips(
    now: TwoServerParameters, first: bytes, second: bytes, n: int, weights: U64
) -> bytes:
    """The dealer's act: the second server's numbers, row by row, then, where there are dealt
    weights [n], its scaled ones.
    """
    numbers = _dealt(now, first, second, n, None)
    scaled = _dealt(now, first, second, n, weights.astype(np.uint32)) if len(weights) else ()
    return b"".join((*numbers, *scaled))


def received_flips(
    now: TwoServerParameters, seed: bytes, dealt: memoryview, n: int, scaled: bool
) -> Flips:
    """The second server's share, from what `dealt_flips` made.

    Raises:
        Malformed: it is of another length.
    """
    if len(dealt) != 4 * n * now.plan.d * (1 + scaled):
        raise Malformed(
            f"{len(dealt)} bytes of dealt bits where {4 * n * now.plan.d * (1 + scaled)} were"
            " asked for"
        )
    words = np.frombuffer(dealt, dtype="<u4").reshape(-1, n, now.plan.d)
    return Flips(seed, words[0], words[1] if scaled else None)


def _dealt(
    now: TwoServerParameters, first: bytes, second: bytes, n: int, weights: U32 | None
) -> Iterator[bytes]:
    d = now.plan.d
    one, two = Flips(first), Flips(second)
    rows = zip(
        one.bits(now, n), two.bits(now, n), one.rows(now, n, weights is not None), strict=True
    )
    for i, (mine, theirs, numbers) in enumerate(rows):
        bits = opened_bits(mine ^ theirs, d).astype(np.uint32)
        yield (
            ((bits if weights is None else bits * weights[i]) - numbers)
            .astype("<u4", copy=False)
            .tobytes()
        )


def opened_bits(packed: Bits, d: int) -> Bits:
    """D bits from their bytes; what a client put behind them is not looked at."""
    return np.unpackbits(packed, count=d, bitorder="little")
