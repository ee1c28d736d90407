"""A client's secrets of one round, and the keys that two clients derive from each other's."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from privfl.core import KeepsSecrets
from privfl.crypto.primitives import Backend, derive
from privfl.crypto.sharing import shamir

Agreement = Callable[[bytes], bytes]
Secret: TypeAlias = Literal["seed", "key"]
Statement: TypeAlias = Literal["masked", "survivors"]
_DEALT: Mapping[Secret, bytes] = {
    "seed": b"privfl/1/secagg/dealt seed",
    "key": b"privfl/1/secagg/dealt key",
}
_SAID: Mapping[Statement, bytes] = {"masked": b"secagg/2/masked", "survivors": b"secagg/2/agreed"}
SIGNATURE = 64
WORD = 8
"""Bytes of what one client says to another so that the server cannot forge it: it has one guess at
each of them in a round, and must guess many to gain anything.
"""
DEALT = 8
"""Bytes of a commitment to one share: another share with the same one takes 2^63 tries."""
SEALED = 2 * DEALT + 2 * shamir.SIZE + 16
"""Semi-honest: commitments to a share of the seed and to one of the key, the two sealed, tag."""
AGREED = 2 * DEALT
"""Active: the commitments alone, where the shares are what owner and holder have in common."""
MOVED = AGREED + 2 * shamir.SIZE
"""Active: the commitments, and by how much the shares differ from that."""


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
    shares that it held must stay sealed. Against an active server they are one pair, because there
    shares are sealed under the two clients' lasting keys as well.
    """

    c: bytes
    s: bytes
    b: bytes
    public: bytes

    @classmethod
    def fresh(cls, library: Backend, *, active: bool) -> RoundKeys:
        """Keys that serve in one round and never again."""
        s, b = _scalar(), shamir.to_bytes(shamir.random_element())
        if active:
            return cls(s, s, b, library.x25519_public(s))
        c = _scalar()
        return cls(c, s, b, library.x25519_public(c) + library.x25519_public(s))


def advertisement(epoch: bytes, client: int, public: bytes | memoryview) -> bytes:
    """What a client signs with its identity key: these key pairs are its, in this round of this
    session, and in no other.
    """
    return b"privfl/1/secagg/advertise" + epoch + str(client).encode() + b"/" + bytes(public)


def commitment(tag: bytes, position: int, b: bytes) -> bytes:
    """Binds a client to its mask seed, so that the server can tell a wrong share; 255 bits of seed
    hide it.
    """
    return hashlib.sha256(
        b"privfl/1/secagg/seed" + tag + position.to_bytes(4, "little") + b
    ).digest()


def dealt(tag: bytes, owner: int, holder: int, what: Secret, share: bytes) -> bytes:
    """Binds a client to a share that it deals, in the server's sight: a holder that shows another
    is convicted, and a share that is this one and off the polynomial convicts its dealer.
    """
    ends = owner.to_bytes(4, "little") + holder.to_bytes(4, "little")
    return hashlib.sha256(_DEALT[what] + tag + ends + share).digest()[:DEALT]


def dealt_both(tag: bytes, owner: int, holder: int, plain: bytes) -> bytes:
    """The commitments to a share of the seed and to one of the key, one after the other."""
    round_and_ends = tag + owner.to_bytes(4, "little") + holder.to_bytes(4, "little")
    seed = hashlib.sha256(_DEALT["seed"] + round_and_ends + plain[: shamir.SIZE])
    key = hashlib.sha256(_DEALT["key"] + round_and_ends + plain[shamir.SIZE :])
    return seed.digest()[:DEALT] + key.digest()[:DEALT]


def share_key(shared: bytes, tag: bytes, sender: int, receiver: int) -> bytes:
    """The AES-256-GCM key from one client to another in one round."""
    return derive(
        shared, tag, "secagg/shares", sender.to_bytes(4, "little"), receiver.to_bytes(4, "little")
    )


def pair_root(shared: bytes, lasting: bytes, tag: bytes, ends: Mapping[int, bytes]) -> bytes:
    """What two clients of an active round have in common and nobody else [32 bytes]: from the
    agreement of their fresh keys (``ends``, by position) and of their lasting ones, which keys the
    hash.

    Without the lasting secret nobody can be one of the two; without the fresh one nobody can later.
    The fresh one of a client that drops out is the server's when the round ends: what the two had
    in common then hangs on their lasting keys alone.
    """
    named = b"".join([i.to_bytes(4, "little") + ends[i] for i in sorted(ends)])
    return _prf(lasting, shared + tag + named, b"secagg/2/pair", 32)


def _prf(key: bytes, data: bytes, purpose: bytes, size: int) -> bytes:
    """BLAKE2b, keyed (RFC 7693) and personalised: the purpose (16 bytes at most) is in its
    parameter block (Aumasson, Neves, Wilcox-O'Hearn and Winnerlein 2013, which the RFC refers to).
    Luykx, Mennink and Neves (2016) prove its compression function indifferentiable from a random
    one, its cipher weakly ideal, so that none of its modes has a generic attack: a third of the
    time of HMAC, of which a round of a thousand clients would take half a million.
    """
    return hashlib.blake2b(data, digest_size=size, key=key, person=purpose).digest()


def agreed_shares(root: bytes, owner: int, holder: int) -> tuple[int, int]:
    """Two elements of the shares' field that owner and holder have in common, for the owner's seed
    and its key: 64 bytes in two halves, each modulo 2^255 - 19, of which 2^256 is 38 more than
    twice: uniform but for 2^-249.
    """
    ends = owner.to_bytes(4, "little") + holder.to_bytes(4, "little")
    drawn = _prf(root, ends, b"secagg/2/shares", 2 * shamir.SIZE)
    seed, key = drawn[: shamir.SIZE], drawn[shamir.SIZE :]
    return int.from_bytes(seed, "little") % shamir.P, int.from_bytes(key, "little") % shamir.P


def said(root: bytes, what: Statement, sender: int, statement: bytes) -> bytes:
    """One of two clients' word to the other [WORD bytes]."""
    return _prf(root, sender.to_bytes(4, "little") + statement, _SAID[what], WORD)


def pair_seed(shared: bytes, tag: bytes, a: int, b: int) -> bytes:
    """The seed of the mask that two clients share in one round: of what their keys agree on, under
    the round's tag.
    """
    ends = min(a, b).to_bytes(4, "little") + max(a, b).to_bytes(4, "little")
    return _prf(tag, shared + ends, b"secagg/2/mask", 32)


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
