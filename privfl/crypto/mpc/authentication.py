"""Shared words that nobody can change unnoticed: the authentication of SPDZ2k (Cramer, Damgard,
Escudero, Scholl and Xing 2018) with a dealer.

With v = v0 + v1 come shares of alpha v modulo 2^64 for each of `KEYS` keys alpha = alpha0 + alpha1
that nobody knows. Opening sends all 64 bits of the shares, then a commitment to sigma_b = m_b -
alpha_b y of every opened y, then what opens it: H("first", sigma_0, r_0) and H("second", -sigma_1,
r_1) for random r_b. The labels stop a copy. Without r_b a party that opened y off by 2^39 and
hears a hash first finds by 2^50 more of them what it should have said. Nothing that was opened is
used before it is checked. Who opens values of a smaller ring masks the bits above it.

Values that are compared in a few bits, ranks, carry one key: an error in their low 8 bits passes it
with a chance of 2^-57. Values of 64 bits have words and a key of 128 (`wide`).

An error that is not 0 modulo 2^ring passes one key only by guessing 65 - ring bits of it, also when
earlier errors in higher bits told some of them (the chance of having got away with these is the
same factor). In a ring of 40 bits two keys make it 2^-50. There is no second try: `FailedMac` ends
the session.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc.machine import Authenticated, TwoPartyMachine, Wide
from privfl.crypto.mpc.wide import off_key, opposite, plus
from privfl.crypto.mpc.words import U64, pack, unpack
from privfl.crypto.primitives.fields import Malformed

KEYS = 2
"""How many keys authenticate a word."""
WORDS = 1 + KEYS
"""The words of one party's share of an authenticated value: of itself, of its product with each
key.
"""
LARGEST_RING = 40
_NONCE = 32
_MINE, _THEIRS = "proof", "their proof"


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

    @contextmanager
    def stands(self) -> Iterator[None]:
        """A step of the party, with which the session ends where a proof fails in it.

        Raises:
            StageAbort: the session has ended, or ends now.
        """
        self.check()
        try:
            yield
        except FailedMac as failed:
            self.why = str(failed)
            raise


@dataclass(frozen=True, slots=True)
class OpenChecked:
    """Both parties learn an authenticated register [n], or halves [n, 2] of a wide one, and each
    proves its share: three messages, the share, a commitment to the proof, and what opens it.
    """

    what: Authenticated | Wide

    def say(self, machine: TwoPartyMachine) -> bytes:
        """The own share, all 64 bits; then the own commitment; then its nonce."""
        if machine.unchecked is None:
            return pack(machine.shares[self.what][:, 0].reshape(-1), 64)
        if _THEIRS in machine.sealed:
            return machine.sealed[_MINE]
        nonce = machine.sealed[_MINE] = secrets.token_bytes(_NONCE)
        return self._proof(machine, machine.first, nonce)

    def hear(self, machine: TwoPartyMachine, theirs: memoryview) -> bool:
        """Add the other's share; keep its commitment; then check it.

        Raises:
            FailedMac: the share is not the other's.
        """
        if machine.unchecked is None:
            machine.unchecked = self._opened(machine, theirs)
            return False
        if _THEIRS not in machine.sealed:
            machine.sealed[_THEIRS] = bytes(theirs)
            return False
        told = machine.sealed.pop(_THEIRS)
        if len(theirs) != _NONCE or not hmac.compare_digest(
            self._proof(machine, not machine.first, bytes(theirs)), told
        ):
            raise FailedMac(
                "open",
                f"what {machine.other} opened is not what was shared: {machine.other} or the dealer"
                " lied",
                who=(machine.other, "dealer"),
            )
        values, _ = machine.unchecked
        machine.unchecked = None
        machine.public[self.what] = values
        return True

    def _opened(self, machine: TwoPartyMachine, theirs: memoryview) -> tuple[U64, U64]:
        """What the register opens to, and the own shares of what its MACs are off by."""
        mine = machine.shares[self.what]
        if isinstance(self.what, Wide):
            values = plus(mine[:, 0], unpack(theirs, 64, 2 * len(mine)).reshape(-1, 2))
            return values, off_key(values, mine[:, 1], machine.wide_key)
        values = mine[:, 0] + unpack(theirs, 64, len(mine))
        return values, mine[:, 1:] - values[:, None] * machine.keys[: mine.shape[1] - 1]

    def _proof(self, machine: TwoPartyMachine, first: bool, nonce: bytes) -> bytes:
        if machine.unchecked is None:
            raise Malformed("it is out of order")
        off = machine.unchecked[1]
        negative = opposite(off) if isinstance(self.what, Wide) else np.uint64(0) - off
        words = off if machine.first else negative
        label = machine.names[not first].encode()
        told = b"privfl/1/mpc/opened/" + machine.tag + label + b"/" + self.what.name.encode()
        body = machine.at.to_bytes(4, "little") + nonce + words.astype("<u8", copy=False).tobytes()
        return hashlib.sha256(told + body).digest()
