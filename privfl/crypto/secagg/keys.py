"""A client's secrets of one round, and the keys that two clients derive from each other's."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from privfl.core import KeepsSecrets
from privfl.crypto.primitives import Backend, derive
from privfl.crypto.sharing import shamir

Agreement = Callable[[bytes], bytes]
KEYS = 64
SIGNATURE = 64
SEALED = 12 + 2 * shamir.SIZE + 16
"""Nonce, a share of the seed and one of the key, tag."""

_SMALL_ORDER = frozenset(
    {
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        2**255 - 20,
        2**255 - 19,
        2**255 - 18,
    }
)
"""The points of Curve25519 with which every agreement gives zero (Bernstein,
cr.yp.to/ecdh.html#validate).
"""


def unusable(public: bytes | memoryview) -> bool:
    """Whether nobody could agree on a key with this public key."""
    return int.from_bytes(public, "little") & (1 << 255) - 1 in _SMALL_ORDER


def _scalar() -> bytes:
    """A clamped X25519 scalar (RFC 7748, section 5) that is also an element of the field that
    Shamir's shares live in.
    """
    while True:
        k = (secrets.randbits(255) & ~7) | 1 << 254
        if k < shamir.P:
            return shamir.to_bytes(k)


@dataclass(repr=False)
class RoundKeys(KeepsSecrets):
    """``c`` opens the shares that others send, ``s`` agrees on the pairwise masks, ``b`` seeds the
    client's own mask.

    Two key pairs, because ``s`` is what the others reconstruct when the client drops out: the
    shares that it held must stay sealed.
    """

    c: bytes
    s: bytes
    b: bytes
    public: bytes

    @classmethod
    def fresh(cls, library: Backend) -> RoundKeys:
        """Keys that serve in one round and never again."""
        c, s = _scalar(), _scalar()
        b = shamir.to_bytes(shamir.random_element())
        return cls(c, s, b, library.x25519_public(c) + library.x25519_public(s))


def advertisement(epoch: bytes, client: int, public: bytes | memoryview) -> bytes:
    """What a client signs with its identity key: these key pairs are its, in this round of this
    session, and in no other.
    """
    return b"privfl/1/secagg/advertise" + epoch + str(client).encode() + b"/" + bytes(public)


def survivors_statement(tag: bytes, survivors: bytes | memoryview) -> bytes:
    """What a client signs at the consistency exchange: the one survivor set that it will answer
    for.
    """
    return b"privfl/1/secagg/survivors" + tag + hashlib.sha256(survivors).digest()


def commitment(tag: bytes, position: int, b: bytes) -> bytes:
    """Binds a client to its mask seed, so that the server can tell a wrong share; 255 bits of seed
    hide it.
    """
    return hashlib.sha256(
        b"privfl/1/secagg/seed" + tag + position.to_bytes(4, "little") + b
    ).digest()


def share_key(shared: bytes, tag: bytes, sender: int, receiver: int) -> bytes:
    """The AES-256-GCM key from one client to another in one round."""
    return derive(
        shared, tag, "secagg/shares", sender.to_bytes(4, "little"), receiver.to_bytes(4, "little")
    )


def pair_seed(shared: bytes, tag: bytes, a: int, b: int) -> bytes:
    """The seed of the mask that two clients share in one round."""
    return derive(
        shared,
        tag,
        "secagg/pair mask",
        min(a, b).to_bytes(4, "little"),
        max(a, b).to_bytes(4, "little"),
    )


def self_seed(b: bytes, tag: bytes) -> bytes:
    """The seed of a client's own mask in one round."""
    return derive(b, tag, "secagg/self mask")


def bound_to(tag: bytes, sender: int, receiver: int) -> bytes:
    """What a sealed share is authenticated with."""
    return tag + sender.to_bytes(4, "little") + receiver.to_bytes(4, "little")


def pair_sign(position: int, other: int) -> int:
    """Whether a client adds (+1) or subtracts (-1) the mask that it shares with another: the sum
    over both is nothing.
    """
    return 1 if position < other else -1
