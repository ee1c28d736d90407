"""Comparison of values that two parties share modulo 2^64: the sign bit by a Kogge-Stone adder on
bits, then back to arithmetic shares.

64 additions run in one word: each level is one bitwise AND of shared words with the dealer's
triples. Semi-honest parties, a dealer who colludes with neither.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from privfl.core import KeepsSecrets
from privfl.crypto.mpc.beaver import UsedUp

U64 = npt.NDArray[np.uint64]
_LEVELS = (1, 2, 4, 8, 16, 32)


@dataclass(repr=False)
class Ands(KeepsSecrets):
    """One party's exclusive-or shares of random words a and b [13, n] and of a & b, for the
    comparison of n values; a row serves once.
    """

    a: U64
    b: U64
    c: U64


@dataclass(repr=False)
class SignBits(KeepsSecrets):
    """One of two parties that learn exclusive-or shares of "x < 0" for shared x [n], in two's
    complement.

    ``send()`` is what goes to the other party, ``take(its message)`` brings it one of seven rounds
    further; then ``bits`` is there.

    >>> x = np.array([5, -3], dtype=np.int64).view(np.uint64)
    >>> x0 = np.array([2**63, 7], dtype=np.uint64)
    >>> zeros = Ands(*np.zeros((3, 13, 2), dtype=np.uint64))  # a dealer's words are random
    >>> one, two = SignBits(x0, zeros, first=True), SignBits(x - x0, zeros, first=False)
    >>> while one.bits is None:
    ...     a, b = one.send(), two.send()
    ...     one.take(b)
    ...     two.take(a)
    >>> (one.bits ^ two.bits).tolist()
    [0, 1]
    """

    share: U64
    ands: Ands
    first: bool
    row: int = 0
    pending: tuple[tuple[U64, U64], ...] = ()
    generate: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    propagate: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    bits: U64 | None = None

    def send(self) -> bytes:
        """The party's own shares of the masked words of the next round.

        Raises:
            UsedUp: asked twice in one round.
        """
        if self.pending:
            raise UsedUp(
                "this round's message was sent: a second one under the same triples would reveal"
                " the words."
            )
        zero = np.zeros_like(self.share)
        if (
            self.row == 0
        ):  # the carry of x0 + x1: each party knows one operand, and shares the other as zero
            asked = [(self.share, zero) if self.first else (zero, self.share)]
        else:
            shift = np.uint64(_LEVELS[(self.row - 1) // 2])
            asked = [
                (self.propagate, self.generate << shift),
                (self.propagate, self.propagate << shift),
            ]
        self.pending = tuple(
            (x ^ self.ands.a[self.row + i], y ^ self.ands.b[self.row + i])
            for i, (x, y) in enumerate(asked)
        )
        return b"".join(part.astype("<u8").tobytes() for pair in self.pending for part in pair)

    def take(self, other: bytes | memoryview) -> None:
        """The other party's message of this round.

        Raises:
            ValueError: it has another length than this party's own.
        """
        words = np.frombuffer(other, dtype="<u8")
        if not self.pending or len(words) != 2 * len(self.pending) * len(self.share):
            raise ValueError("the other party's message does not belong to this round")
        products = []
        for i, ((d, e), theirs) in enumerate(
            zip(self.pending, words.reshape(len(self.pending), 2, -1), strict=True)
        ):
            d, e, row = d ^ theirs[0], e ^ theirs[1], self.row + i  # noqa: PLW2901
            product = self.ands.c[row] ^ (d & self.ands.b[row]) ^ (self.ands.a[row] & e)
            products.append(product ^ (d & e) if self.first else product)
        if self.row == 0:
            self.generate, self.propagate = products[0], self.share.copy()
        else:
            self.generate, self.propagate = self.generate ^ products[0], products[1]
        self.row += len(self.pending)
        self.pending = ()
        if self.row > 2 * len(
            _LEVELS
        ):  # the sign is the top bit of both operands and of the carry into it
            self.bits = (
                (self.share >> np.uint64(63)) ^ (self.generate >> np.uint64(62))
            ) & np.uint64(1)


@dataclass(repr=False)
class DaBits(KeepsSecrets):
    """One party's shares of random bits, both ways: by exclusive or and modulo 2^64. They serve
    once.
    """

    bits: U64
    numbers: U64
    spent: bool = False

    def mask(self, bits: U64) -> U64:
        """The party's own share of bit ^ r, to be opened.

        Raises:
            UsedUp: they were used before.
        """
        if self.spent:
            raise UsedUp(
                "random bits serve once: a second use reveals the difference of what they hide."
            )
        self.spent = True
        return bits ^ self.bits

    def to_arithmetic(self, opened: U64, first: bool) -> U64:
        """The party's own share modulo 2^64 of the bits, from the opened v = bit ^ r: v + r - 2 v
        r.
        """
        share = self.numbers - np.uint64(2) * opened * self.numbers
        return share + opened if first else share
