"""A sealed_box sealed to one receiver's public key: an ephemeral X25519 agreement, HKDF,
AES-256-GCM.
"""

from __future__ import annotations

import secrets

from privfl.crypto.primitives.backend import Backend
from privfl.crypto.primitives.hkdf import derive

OVERHEAD = 32 + 16
_NONCE = bytes(12)


def seal_box(to: bytes, plain: bytes, context: bytes, library: Backend) -> bytes:
    """Ephemeral public key, ciphertext and tag. The key serves once, so its nonce is fixed;
    ``context`` is authenticated.

    >>> from privfl.crypto.primitives import backend
    >>> secret = bytes(range(32)); public = backend().x25519_public(secret)
    >>> open_box(secret, seal_box(public, b"hello", b"round 1", backend()), b"round 1", backend())
    b'hello'
    """
    ephemeral = secrets.token_bytes(32)
    public = library.x25519_public(ephemeral)
    key = derive(library.agreement(ephemeral)(to), context, "letter", public, to)
    return public + library.seal(key, _NONCE, plain, context)


def open_box(secret: bytes, sealed_box: bytes, context: bytes, library: Backend) -> bytes | None:
    """What was sealed to this secret key in this context, or None."""
    if len(sealed_box) < OVERHEAD:
        return None
    public, body = sealed_box[:32], sealed_box[32:]
    try:
        shared = library.agreement(secret)(public)
    except ValueError:
        return None
    key = derive(shared, context, "letter", public, library.x25519_public(secret))
    return library.unseal(key, _NONCE, body, context)
