"""A box sealed to one receiver's public key: an ephemeral X25519 agreement, HKDF, AES-256-GCM."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from privfl.core import Buffer, KeepsSecrets, PartyKeys
from privfl.crypto.primitives.backend import Backend
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.primitives.hkdf import derive

OVERHEAD = 32 + 16
_NONCE = bytes(12)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class BoxKey(KeepsSecrets):
    """What an ephemeral key and a receiver's key agree on: ``public`` and ``to`` are the public
    halves, ``shared`` the secret [32 bytes each]. It seals any number of boxes, EACH IN A CONTEXT
    OF ITS OWN: one context gives one key, whose nonce is fixed.
    """

    public: bytes
    to: bytes
    shared: bytes

    @classmethod
    def fresh(cls, to: bytes, library: Backend) -> BoxKey:
        """A new ephemeral key, agreed with a receiver's.

        Raises:
            ValueError: the receiver's key is a point of small order.
        """
        public, agree = library.pair(secrets.token_bytes(32))
        return cls(public, to, agree(to))

    @classmethod
    def heard(cls, public: bytes, secret: bytes, to: bytes, library: Backend) -> BoxKey:
        """The same at the receiver, from the ephemeral public key and both halves of its own.

        Raises:
            ValueError: the ephemeral key is a point of small order.
        """
        return cls(public, to, library.agreement(secret)(public))

    def seal(self, plain: Buffer, context: bytes, library: Backend) -> bytes:
        """Ciphertext and tag; ``context`` is authenticated."""
        return library.seal(self._key(context), _NONCE, plain, context)

    def seal_into(
        self, plain: Iterable[Buffer], context: bytes, library: Backend, out: memoryview
    ) -> None:
        """The same of a plaintext in pieces, written to ``out``."""
        library.seal_into(self._key(context), _NONCE, plain, context, out)

    def unseal(self, sealed: Buffer, context: bytes, library: Backend) -> bytes | None:
        """What `seal` sealed in this context, or None."""
        return library.unseal(self._key(context), _NONCE, sealed, context)

    def _key(self, context: bytes) -> bytes:
        return derive(self.shared, context, "letter", self.public, self.to)


def seal_box(to: bytes, plain: Buffer, context: bytes, library: Backend) -> bytes:
    """Ephemeral public key, ciphertext and tag. The key serves once, so its nonce is fixed;
    ``context`` is authenticated.

    Raises:
        ValueError: the receiver's key is a point of small order.

    >>> from privfl.crypto.primitives import backend
    >>> secret = bytes(range(32)); public = backend().x25519_public(secret)
    >>> open_box(secret, seal_box(public, b"hello", b"round 1", backend()), b"round 1", backend())
    b'hello'
    """
    key = BoxKey.fresh(to, library)
    return key.public + key.seal(plain, context, library)


def open_box(
    secret: bytes,
    sealed_box: Buffer,
    context: bytes,
    library: Backend,
    public_half: bytes | None = None,
) -> bytes | None:
    """What was sealed to this secret key in this context, or None. ``public_half`` of the key saves
    computing it again.
    """
    if len(sealed_box) < OVERHEAD:
        return None
    public, body = bytes(sealed_box[:32]), memoryview(sealed_box)[32:]
    own = public_half or library.x25519_public(secret)
    try:
        key = BoxKey.heard(public, secret, own, library)
    except ValueError:
        return None
    return key.unseal(body, context, library)


def seal_to(keys: Iterable[bytes], plain: bytes, context: bytes, library: Backend) -> bytes:
    """A box to each key that a party may hold, all of one length, one after the other."""
    return b"".join(seal_box(key, plain, context, library) for key in keys)


def open_one(content: Buffer, size: int, keys: PartyKeys, context: bytes) -> bytes:
    """The ``size`` bytes in the one of these boxes that this party's key opens.

    Raises:
        Malformed: none does.
    """
    whole = size + OVERHEAD
    for start in range(0, len(content) - whole + 1, whole):
        plain = keys.unseal(content[start : start + whole], context)
        if plain is not None:
            return plain
    raise Malformed("no sealed box that this party can open")
