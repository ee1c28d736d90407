"""The exchanges that programs of two parties are made of: open shares, tell signs, turn bits into
numbers, multiply.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privfl.crypto.mpc.comparison import SignBits
from privfl.crypto.mpc.machine import Shared, SharedBits, TwoPartyMachine
from privfl.crypto.mpc.preprocessing import ONE
from privfl.crypto.mpc.words import U64, pack, ring_mask, unpack
from privfl.crypto.primitives.fields import Malformed


@dataclass(frozen=True, slots=True)
class Open:
    """Both parties learn a shared register."""

    what: Shared

    def say(self, machine: TwoPartyMachine) -> bytes:
        """The own share, reduced to the ring: bits above it would tell more than the value."""
        return pack(machine.shares[self.what].reshape(-1), machine.ring)

    def hear(self, machine: TwoPartyMachine, theirs: memoryview) -> bool:
        """Add the other's."""
        mine = machine.shares[self.what]
        other = unpack(theirs, machine.ring, mine.size).reshape(mine.shape)
        machine.public[self.what] = (mine + other) & ring_mask(machine.ring)
        return True


@dataclass(frozen=True, slots=True)
class OpenToFirst:
    """The first party alone learns a shared register."""

    what: Shared

    def say(self, machine: TwoPartyMachine) -> bytes:
        """The second party's share, or nothing."""
        return b"" if machine.first else pack(machine.shares[self.what].reshape(-1), machine.ring)

    def hear(self, machine: TwoPartyMachine, theirs: memoryview) -> bool:
        """Add it."""
        if machine.first:
            Open(self.what).hear(machine, theirs)
        elif theirs:
            raise Malformed("a share where none was asked for")
        return True


@dataclass(frozen=True, slots=True)
class OpenBits:
    """Both parties learn bits [n] that are shared by exclusive or."""

    what: SharedBits

    def say(self, machine: TwoPartyMachine) -> bytes:
        """The own share, a bit a value."""
        return np.packbits(machine.shares[self.what].astype(np.uint8), bitorder="little").tobytes()

    def hear(self, machine: TwoPartyMachine, theirs: memoryview) -> bool:
        """Combine it with the other's."""
        mine = machine.shares[self.what]
        if len(theirs) != -(-mine.size // 8):
            raise Malformed("a wrong number of bits")
        other = np.unpackbits(
            np.frombuffer(theirs, dtype=np.uint8), bitorder="little", count=mine.size
        )
        machine.public[self.what] = mine ^ other.astype(np.uint64)
        return True


@dataclass(frozen=True, slots=True)
class Negative:
    """Bits, shared by exclusive or, that tell which entries of a shared register are below zero."""

    of: Shared
    into: SharedBits

    def say(self, machine: TwoPartyMachine) -> bytes:
        """The own message of the comparison's next round."""
        if machine.comparing is None:
            share = machine.shares[self.of].reshape(-1) << np.uint64(64 - machine.ring)
            machine.comparing = SignBits(
                share, machine.preprocessing.comparison(len(share)), machine.first
            )
        return machine.comparing.send()

    def hear(self, machine: TwoPartyMachine, theirs: memoryview) -> bool:
        """One round further."""
        comparison = machine.comparing
        if comparison is None:
            raise Malformed("it is out of order")
        try:
            comparison.take(theirs)
        except ValueError as wrong:
            raise Malformed(str(wrong)) from None
        if comparison.bits is None:
            return False
        machine.shares[self.into] = comparison.bits.reshape(machine.shares[self.of].shape)
        machine.comparing = None
        return True


@dataclass(frozen=True, slots=True)
class ToNumbers:
    """Bits [n] shared by exclusive or become numbers 0 and 1 shared by addition."""

    of: SharedBits
    into: Shared

    def say(self, machine: TwoPartyMachine) -> bytes:
        """The own share of the masked bits."""
        bits = machine.shares[self.of]
        machine.dabits = machine.preprocessing.dabits(len(bits))
        return np.packbits(machine.dabits.mask(bits).astype(np.uint8), bitorder="little").tobytes()

    def hear(self, machine: TwoPartyMachine, theirs: memoryview) -> bool:
        """Take the masks off."""
        bits, dabits = machine.shares[self.of], machine.dabits
        if dabits is None or len(theirs) != -(-len(bits) // 8):
            raise Malformed("a wrong number of bits")
        other = np.unpackbits(
            np.frombuffer(theirs, dtype=np.uint8), bitorder="little", count=len(bits)
        ).astype(np.uint64)
        machine.shares[self.into] = dabits.to_arithmetic(
            bits ^ (dabits.bits & ONE) ^ other, machine.first
        )
        machine.dabits = None
        return True


@dataclass(frozen=True, slots=True)
class Multiply:
    """Entrywise products of two shared registers [n]; ``whole``: modulo 2^64 whatever the ring."""

    left: Shared
    right: Shared
    into: Shared
    whole: bool = False

    def say(self, machine: TwoPartyMachine) -> bytes:
        """The own shares of the masked factors."""
        left, right = machine.shares[self.left].reshape(-1), machine.shares[self.right].reshape(-1)
        machine.triple = machine.preprocessing.triple(len(left))
        machine.masked = machine.triple.mask(left, right)
        return pack(np.concatenate(machine.masked), self._ring(machine))

    def hear(self, machine: TwoPartyMachine, theirs: memoryview) -> bool:
        """Open them and multiply."""
        if machine.triple is None or machine.masked is None:
            raise Malformed("it is out of order")
        left, right = machine.masked
        other = unpack(theirs, self._ring(machine), 2 * len(left))
        product = machine.triple.product(
            left + other[: len(left)], right + other[len(left) :], machine.first
        )
        machine.shares[self.into] = product
        machine.triple = machine.masked = None
        return True

    def _ring(self, machine: TwoPartyMachine) -> int:
        return 64 if self.whole else machine.ring


@dataclass(frozen=True, slots=True)
class AllOf:
    """Of bits [k, n], shared by exclusive or, the n that say for each place whether all k are 0: a
    tree of ANDs, so that nothing but the last bit of a place is ever opened.
    """

    of: SharedBits
    into: SharedBits

    def say(self, machine: TwoPartyMachine) -> bytes:
        """The own shares of the masked operands of one level."""
        if self.into not in machine.shares:
            bits = machine.shares[self.of].astype(np.uint8)
            machine.shares[self.into] = (bits ^ np.uint8(machine.first)).astype(np.uint64)
        left, right, _ = halves(machine.shares[self.into])
        words = fold_words(left.shape[0], left.shape[1])
        dealt = machine.preprocessing.folds(words)
        machine.masked = (_packed(left, words) ^ dealt[0], _packed(right, words) ^ dealt[1])
        machine.folding = dealt
        return b"".join(part.astype("<u8", copy=False).tobytes() for part in machine.masked)

    def hear(self, machine: TwoPartyMachine, theirs: memoryview) -> bool:
        """One level further."""
        dealt = machine.folding
        if dealt is None or machine.masked is None:
            raise Malformed("it is out of order")
        words = dealt.shape[1]
        if len(theirs) != 16 * words:
            raise Malformed("a wrong number of bits")
        other = np.frombuffer(theirs, dtype="<u8").reshape(2, words)
        d, e = machine.masked[0] ^ other[0], machine.masked[1] ^ other[1]
        product = dealt[2] ^ (d & dealt[1]) ^ (dealt[0] & e)
        if machine.first:
            product ^= d & e
        left, _, odd = halves(machine.shares[self.into])
        folded = np.unpackbits(product.view(np.uint8), count=left.size, bitorder="little")
        kept = np.concatenate([folded.reshape(left.shape).astype(np.uint64), odd])
        machine.folding = machine.masked = None
        machine.shares[self.into] = kept if len(kept) > 1 else kept[0]
        return len(kept) == 1


def halves(bits: U64) -> tuple[U64, U64, U64]:
    """Rows [k, n] as two halves to be multiplied, and the odd one [0 or 1, n]."""
    half = len(bits) // 2
    return bits[:half], bits[half : 2 * half], bits[2 * half :]


def fold_words(pairs: int, n: int) -> int:
    """Words of ANDs that one level takes."""
    return -(-pairs * n // 64)


def fold_demand(k: int, n: int) -> int:
    """Words of ANDs that `AllOf` takes of k n bits."""
    total = 0
    while k > 1:
        total += fold_words(k // 2, n)
        k -= k // 2
    return total


def _packed(bits: U64, words: int) -> U64:
    raw = np.zeros(8 * words, dtype=np.uint8)
    packed = np.packbits(bits.reshape(-1).astype(np.uint8), bitorder="little")
    raw[: len(packed)] = packed
    return raw.view("<u8").astype(np.uint64, copy=False)
