"""What a homomorphic scheme is to the parties that use it: numbers in, ciphertexts that add, a sum
out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from privfl.core import (
    Bounded,
    ConfigError,
    Encodes,
    PartyId,
    RoundPlan,
    Stable,
    Total,
    Vector,
)
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.he.wire import Numbers, Parts, Refused


@runtime_checkable
class PublicKey(Protocol):
    """Everything that a client or a server needs, and nothing secret."""

    @property
    def key_id(self) -> bytes:
        """16 bytes that name this key."""
        ...

    def to_bytes(self) -> bytes:
        """As it travels."""
        ...

    def encrypt(self, numbers: Numbers, plan: RoundPlan) -> Parts:
        """One contribution, encrypted."""
        ...

    def add(self, ciphertexts: Sequence[Parts], plan: RoundPlan) -> Parts:
        """The encrypted sum.

        Raises:
            Refused: a ciphertext is none of this key and round.
        """
        ...

    def check(self, ciphertext: Parts, plan: RoundPlan) -> None:
        """Refuse what is no ciphertext of this key and round.

        Raises:
            Refused: and why.
        """
        ...


@runtime_checkable
class SecretKey(Protocol):
    """What decrypts, alone."""

    def to_bytes(self) -> bytes:
        """As it travels in a sealed box or lies in an owner-only file."""
        ...

    def decrypt(self, ciphertext: Parts, plan: RoundPlan, count: int) -> Numbers:
        """The sum of ``count`` contributions."""
        ...

    def encrypt(self, numbers: Numbers, plan: RoundPlan) -> Parts:
        """One contribution, encrypted by somebody who holds the secret key."""
        ...


@runtime_checkable
class KeyShare(Protocol):
    """A share of a secret key that is whole nowhere."""

    def to_bytes(self) -> bytes:
        """As it travels in a sealed box."""
        ...

    def partial(self, ciphertext: Parts, plan: RoundPlan) -> Parts:
        """The holder's part in a decryption."""
        ...


@runtime_checkable
class Scheme(Encodes, Protocol):
    """How updates become numbers (and what that does to a row), and how a public key is read."""

    def public(self, data: bytes) -> PublicKey:
        """Read a public key; raises `Refused` where it is none."""
        ...

    def encode(self, update: Bounded, plan: RoundPlan) -> Numbers:
        """The numbers [d + 1] of an update: weighted values, then the weight."""
        ...

    def total(self, numbers: Numbers, plan: RoundPlan, count: int) -> Total:
        """The weighted sum, from the sum of the numbers. Raises `Refused` where no contributions
        can have summed to this.
        """
        ...

    def slack(self, plan: RoundPlan, count: int) -> float:
        """How far two honest decryptions of one sum may be apart in a number."""
        ...

    def headroom(self, plan: RoundPlan) -> None:
        """Refuse a round whose sum could overflow, before it starts; raises `ConfigError`."""
        ...

    def inflated(self, l2: float, d: int) -> float:
        """The norm that an update of norm ``l2`` can have after encoding."""
        ...


@runtime_checkable
class DealtScheme(Scheme, Protocol):
    """A scheme whose secret key one party makes."""

    def generate(self) -> tuple[PublicKey, SecretKey]:
        """A fresh key pair."""
        ...

    def secret(self, data: bytes) -> SecretKey:
        """Read a secret key."""
        ...


@runtime_checkable
class ThresholdScheme(DealtScheme, Protocol):
    """A scheme whose secret key a dealer can split."""

    def split(
        self, secret: SecretKey, holders: int, threshold: int
    ) -> tuple[PublicKey, Sequence[KeyShare]]:
        """One share for each holder, any ``threshold`` of whom decrypt; and the public key, with
        what their parts of a decryption are checked against.
        """
        ...

    def proven(
        self, public: PublicKey, ciphertext: Parts, part: Parts, index: int, plan: RoundPlan
    ) -> None:
        """Refuse what is not the part of the holder of this number, from 1, in the decryption of a
        ciphertext; raises `Refused`.
        """
        ...

    def share(self, data: bytes) -> KeyShare:
        """Read a share."""
        ...

    def combine(
        self,
        public: PublicKey,
        partials: Mapping[PartyId, Parts],
        plan: RoundPlan,
        count: int,
        threshold: int,
    ) -> Numbers | None:
        """The sum, from the proven parts of at least ``threshold`` holders; None from fewer."""
        ...


@dataclass(frozen=True, slots=True)
class IntegerCode:
    """The fixed-point half of an integer scheme: how updates become integers, and their sums
    updates again.
    """

    code: FixedPoint

    def encode(self, update: Bounded, plan: RoundPlan) -> Numbers:
        """Signed integers [d + 1]."""
        return self.code.encode(update, plan)

    def total(self, numbers: Numbers, plan: RoundPlan, count: int) -> Total:
        """The sum, if ``count`` contributions can have made it."""
        if len(numbers) != self.code.length(plan) or numbers.dtype != np.int64:
            raise Refused(
                f"{len(numbers)} numbers where {self.code.length(plan)} integers were due"
            )
        most = count * self.code.top
        if numbers.max() > most or numbers.min() < -most or not numbers[-1] > 0:
            raise Refused(f"the decrypted sum is not a sum of {count} contributions")
        return self.code.decode(numbers, plan, count)

    def slack(self, plan: RoundPlan, count: int) -> float:
        """None: sums of integers are exact."""
        return 0.0

    def inflated(self, l2: float, d: int) -> float:
        """Rounding adds at most half a step (or one) an entry."""
        return self.code.inflated(l2, d)

    def arrives(self, row: Vector, plan: RoundPlan) -> Vector:
        """As `FixedPoint.arrives`."""
        return self.code.arrives(row, plan)

    def stage(self, d: int) -> Stable:
        """As `FixedPoint.stage`."""
        return self.code.stage(d)


def key_id(kind: bytes, public: bytes) -> bytes:
    """16 bytes that name a public key."""
    return hashlib.sha256(b"privfl/he/key/1\x00" + kind + b"\x00" + public).digest()[:16]


def no_room(scheme: str, plan: RoundPlan, bits: int, most: int) -> ConfigError:
    """The error of a round that is too large for a scheme's slots."""
    return ConfigError(
        f"{scheme}: a sum of {plan.n} contributions of {bits} bits can overflow; this setting has"
        f" room for {most}. Lower bits, or make the channel for more clients."
    )
