"""Shared words that nobody can change unnoticed: the authentication of SPDZ2k (Cramer, Damgard,
Escudero, Scholl and Xing 2018) with a dealer.

With v = v0 + v1 come shares of alpha v modulo 2^64 for each of `KEYS` keys alpha = alpha0 + alpha1
that nobody knows. Opening sends all 64 bits of the shares, and then H("first", sigma_0) against
H("second", -sigma_1), where sigma_b = m_b - alpha_b y for every opened y: the labels stop a copy,
and no commitments are needed, because nobody learns from a hash what must be answered. Nothing that
was opened is used before it is checked. Who opens values of a smaller ring masks the bits above it.

An error that is not 0 modulo 2^ring passes one key only by guessing 65 - ring bits of it, also when
earlier errors in higher bits told some of them (the chance of having got away with these is the
same factor). In a ring of 40 bits two keys make it 2^-50. There is no second try: `FailedMac` ends
the session.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

import numpy as np

from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc.machine import Authenticated, TwoPartyMachine
from privfl.crypto.mpc.words import U64, pack, unpack

KEYS = 2
"""How many keys authenticate a word."""
WORDS = 1 + KEYS
"""The words of one party's share of an authenticated value: of itself, of its product with each
key.
"""
LARGEST_RING = 40


class FailedMac(StageAbort):
    """What one party sent is not what was shared; the session ends."""


@dataclass
class Ending:
    """Why one party takes no further part in a session; None while it does."""

    why: str | None = None

    def check(self) -> None:
        """Refuse to go on.

        Raises:
            StageAbort: the session has ended.
        """
        if self.why is not None:
            raise StageAbort("enter", f"this session ended when a proof failed ({self.why})")


@dataclass(frozen=True, slots=True)
class OpenChecked:
    """Both parties learn an authenticated register [n], and each proves its share: two messages."""

    what: Authenticated

    def say(self, machine: TwoPartyMachine) -> bytes:
        """The own share, all 64 bits; then the own proof."""
        if machine.unchecked is None:
            return pack(machine.shares[self.what][:, 0], 64)
        _, off = machine.unchecked
        return self._proof(machine, machine.first, off if machine.first else np.uint64(0) - off)

    def hear(self, machine: TwoPartyMachine, theirs: memoryview) -> bool:
        """Add the other's share; then check its proof.

        Raises:
            FailedMac: the share is not the other's.
        """
        if machine.unchecked is None:
            mine = machine.shares[self.what]
            values = mine[:, 0] + unpack(theirs, 64, len(mine))
            machine.unchecked = (values, mine[:, 1:] - values[:, None] * machine.keys)
            return False
        values, off = machine.unchecked
        expected = self._proof(
            machine, not machine.first, off if machine.first else np.uint64(0) - off
        )
        if not hmac.compare_digest(expected, bytes(theirs)):
            raise FailedMac(
                "open",
                f"what {machine.other} opened is not what was shared: {machine.other} or the dealer"
                " lied",
                who=(machine.other, "dealer"),
            )
        machine.unchecked = None
        machine.public[self.what] = values
        return True

    def _proof(self, machine: TwoPartyMachine, first: bool, off: U64) -> bytes:
        label = machine.names[not first].encode()
        told = b"privfl/1/mpc/opened/" + machine.tag + label + b"/" + self.what.name.encode()
        body = machine.frame.to_bytes(4, "little") + off.astype("<u8", copy=False).tobytes()
        return hashlib.sha256(told + body).digest()
