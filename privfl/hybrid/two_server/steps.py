"""The exchanges that programs of two servers are made of: open shares, tell signs, turn bits into
numbers, multiply.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.sharing import SignBits
from privfl.hybrid.two_server.machine import Machine
from privfl.hybrid.two_server.preprocessing import ONE
from privfl.hybrid.two_server.ring_codec import pack, ring_mask, unpack


@dataclass(frozen=True, slots=True)
class Open:
    """Both servers learn a shared register."""

    what: str

    def say(self, machine: Machine) -> bytes:
        """The own share, reduced to the ring: bits above it would tell more than the value."""
        return pack(machine.shares[self.what].reshape(-1), machine.now.ring)

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Add the other's."""
        mine = machine.shares[self.what]
        other = unpack(theirs, machine.now.ring, mine.size).reshape(mine.shape)
        machine.public[self.what] = (mine + other) & ring_mask(machine.now.ring)
        return True


@dataclass(frozen=True, slots=True)
class OpenToFirst:
    """The first server alone learns a shared register."""

    what: str

    def say(self, machine: Machine) -> bytes:
        """The second server's share, or nothing."""
        return (
            b"" if machine.first else pack(machine.shares[self.what].reshape(-1), machine.now.ring)
        )

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Add it."""
        if machine.first:
            Open(self.what).hear(machine, theirs)
        elif theirs:
            raise Malformed("a share where none was asked for")
        return True


@dataclass(frozen=True, slots=True)
class OpenBits:
    """Both servers learn bits [n] that are shared by exclusive or."""

    what: str

    def say(self, machine: Machine) -> bytes:
        """The own share, a bit a value."""
        return np.packbits(machine.shares[self.what].astype(np.uint8), bitorder="little").tobytes()

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
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
    """Bits, shared by exclusive or, that tell which entries of a shared register [n] are below
    zero.
    """

    of: str
    into: str

    def say(self, machine: Machine) -> bytes:
        """The own message of the comparison's next round."""
        if machine.comparing is None:
            share = machine.shares[self.of].reshape(-1) << np.uint64(64 - machine.now.ring)
            machine.comparing = SignBits(
                share, machine.preprocessing.comparison(len(share)), machine.first
            )
        return machine.comparing.send()

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
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
        machine.shares[self.into], machine.comparing = comparison.bits, None
        return True


@dataclass(frozen=True, slots=True)
class ToNumbers:
    """Bits shared by exclusive or become numbers 0 and 1 shared by addition."""

    of: str
    into: str

    def say(self, machine: Machine) -> bytes:
        """The own share of the masked bits."""
        bits = machine.shares[self.of]
        machine.dabits = machine.preprocessing.dabits(len(bits))
        return np.packbits(machine.dabits.mask(bits).astype(np.uint8), bitorder="little").tobytes()

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
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
    """Entrywise products of two shared registers [n]."""

    left: str
    right: str
    into: str

    def say(self, machine: Machine) -> bytes:
        """The own shares of the masked factors."""
        left, right = machine.shares[self.left].reshape(-1), machine.shares[self.right].reshape(-1)
        machine.triple = machine.preprocessing.triple(len(left))
        machine.masked = machine.triple.mask(left, right)
        return pack(np.concatenate(machine.masked), machine.now.ring)

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Open them and multiply."""
        if machine.triple is None or machine.masked is None:
            raise Malformed("it is out of order")
        left, right = machine.masked
        other = unpack(theirs, machine.now.ring, 2 * len(left))
        product = machine.triple.product(
            left + other[: len(left)], right + other[len(left) :], machine.first
        )
        machine.shares[self.into] = product
        machine.triple = machine.masked = None
        return True
