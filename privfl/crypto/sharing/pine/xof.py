"""Where a proof's randomness comes from: a seed's expansion into field elements."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol, runtime_checkable

import numpy as np

from privfl.core import Buffer
from privfl.crypto.primitives import Keystream, backend
from privfl.crypto.sharing.pine.field64 import Field64, P

_ROOM = 16
"""Bytes beyond its length that a keystream's buffer has."""
_BLOCK = 1 << 16


@runtime_checkable
class Expansion(Protocol):
    """A stream of bytes that a seed, a purpose and a binder stand for."""

    def next(self, n: int) -> bytes:
        """The next n bytes."""
        ...


class HmacAes:
    """XofHmacSha256Aes128 of draft-chen-cfrg-vdaf-pine: HMAC-SHA256(seed; len(dst) || dst ||
    binder) is an AES-128 key and the first counter block of a CTR keystream. 32-byte seeds.

    >>> HmacAes(bytes(32), b"purpose", b"").next(4).hex()
    'a2beb9f2'
    """

    seed_size = 32

    def __init__(self, seed: bytes, dst: bytes, *binder: Buffer) -> None:
        digest = hmac.new(seed, bytes([len(dst)]) + dst, sha256)
        for part in binder:
            digest.update(part)
        block = digest.digest()
        self._stream: Keystream = backend().keystream(block[:16], block[16:])

    def next(self, n: int) -> bytes:
        """The next n bytes of the keystream."""
        raw = np.empty(n + _ROOM, dtype=np.uint8)
        self._stream.fill(raw, n)
        return raw[:n].tobytes()


@dataclass(frozen=True, slots=True)
class Xof:
    """An extendable output function: how it expands, and how long its seeds are."""

    expand: Callable[..., Expansion]
    seed_size: int

    def seed(self, seed: bytes, dst: bytes, *binder: Buffer) -> bytes:
        """A seed derived from another one."""
        return self.expand(seed, dst, *binder).next(self.seed_size)

    def elements(self, seed: bytes, dst: bytes, binder: bytes, n: int) -> Field64:
        """So many uniform elements of Field64: 8 bytes each, little-endian; words of p and above
        are thrown away.
        """
        stream = self.expand(seed, dst, binder)
        out = np.empty(n, dtype=np.uint64)
        have = 0
        for words in _words(stream, n):
            good = words[words < np.uint64(P)]
            take = min(len(good), n - have)
            out[have : have + take] = good[:take]
            have += take
            if have == n:
                break
        return out


def _words(stream: Expansion, n: int) -> Iterator[Field64]:
    while True:
        size = min(n, _BLOCK) if n > 0 else 1
        yield np.frombuffer(stream.next(8 * size), dtype="<u8").astype(np.uint64, copy=False)
        n = max(n - size, 1)


HMAC_SHA256_AES128 = Xof(HmacAes, HmacAes.seed_size)
