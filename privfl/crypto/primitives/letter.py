"""A letter sealed to one receiver's public key: an ephemeral X25519 agreement, HKDF, AES-256-GCM."""

from __future__ import annotations

import secrets

from privfl.crypto.primitives.backend import Backend
from privfl.crypto.primitives.hkdf import derive

OVERHEAD = 32 + 16
_NONCE = bytes(12)


def seal_letter(to: bytes, plain: bytes, scene: bytes, library: Backend) -> bytes:
    """Ephemeral public key, ciphertext and tag. The key serves once, so its nonce is fixed; ``scene`` is authenticated.

    >>> from privfl.crypto.primitives import backend
    >>> secret = bytes(range(32)); public = backend().x25519_public(secret)
    >>> open_letter(secret, seal_letter(public, b"hello", b"round 1", backend()), b"round 1", backend())
    b'hello'
    """
    ephemeral = secrets.token_bytes(32)
    public = library.x25519_public(ephemeral)
    key = derive(library.agreement(ephemeral)(to), scene, "letter", public, to)
    return public + library.seal(key, _NONCE, plain, scene)


def open_letter(secret: bytes, letter: bytes, scene: bytes, library: Backend) -> bytes | None:
    """What was sealed to this secret key in this scene, or None."""
    if len(letter) < OVERHEAD:
        return None
    public, body = letter[:32], letter[32:]
    try:
        shared = library.agreement(secret)(public)
    except ValueError:
        return None
    key = derive(shared, scene, "letter", public, library.x25519_public(secret))
    return library.unseal(key, _NONCE, body, scene)
