"""A box sealed to one receiver's public key: an ephemeral X25519 agreement, HKDF, AES-256-GCM."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from privfl.core import Buffer
from privfl.crypto.primitives.backend import Backend
from privfl.crypto.primitives.fields import Malformed
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
    return b"".join(seal_pieces(to, plain, context, library))


def seal_pieces(to: bytes, plain: Buffer, context: bytes, library: Backend) -> tuple[bytes, bytes]:
    """`seal_box` in its two pieces, which nobody has copied together: the ephemeral public key
    [32 bytes], and ciphertext with tag.

    Raises:
        ValueError: the receiver's key is a point of small order.
    """
    ephemeral = secrets.token_bytes(32)
    public = library.x25519_public(ephemeral)
    key = derive(library.agreement(ephemeral)(to), context, "letter", public, to)
    return public, library.seal(key, _NONCE, plain, context)


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
    try:
        shared = library.agreement(secret)(public)
    except ValueError:
        return None
    own = public_half or library.x25519_public(secret)
    key = derive(shared, context, "letter", public, own)
    return library.unseal(key, _NONCE, body, context)


def seal_to(keys: Iterable[bytes], plain: bytes, context: bytes, library: Backend) -> bytes:
    """A box to each key that a party may hold, all of one length, one after the other."""
    return b"".join(seal_box(key, plain, context, library) for key in keys)


def open_one(content: Buffer, size: int, secret: bytes, context: bytes, library: Backend) -> bytes:
    """The ``size`` bytes in the one of these boxes that this key opens.

    Raises:
        Malformed: none does.
    """
    whole = size + OVERHEAD
    for start in range(0, len(content) - whole + 1, whole):
        plain = open_box(secret, bytes(content[start : start + whole]), context, library)
        if plain is not None:
            return plain
    raise Malformed("no sealed box that this party can open")
