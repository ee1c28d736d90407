"""HKDF with SHA-256 (RFC 5869), and key derivation that keeps purposes apart."""

from __future__ import annotations

import hmac

_HASH = 32


def extract(salt: bytes, secret: bytes) -> bytes:
    """A pseudorandom key [32 bytes] (section 2.2)."""
    return hmac.digest(salt or bytes(_HASH), secret, "sha256")


def expand(key: bytes, info: bytes, length: int = 32) -> bytes:
    """``length`` bytes from a pseudorandom key (section 2.3).

    Raises:
        ValueError: more than 255 hashes were asked for.
    """
    if length > 255 * _HASH:
        raise ValueError(
            f"HKDF-SHA256 gives at most {255 * _HASH} bytes, and {length} were asked for."
        )
    block, out = b"", b""
    for counter in range(1, -(-length // _HASH) + 1):
        block = hmac.digest(key, block + info + bytes((counter,)), "sha256")
        out += block
    return out[:length]


def derive(secret: bytes, context: bytes, purpose: str, *public: bytes) -> bytes:
    """A key [32 bytes] that belongs to one context (session and round), one purpose, and the public
    values of who shares it.

    >>> derive(b"s" * 32, b"round 1", "mask") == derive(b"s" * 32, b"round 2", "mask")
    False
    """
    label = f"privfl/1/{purpose}".encode()
    parts = b"".join([len(part).to_bytes(2, "big") + part for part in (label, *public)])
    return hmac.digest(extract(context, secret), parts + b"\x01", "sha256")  # `expand`, 32 bytes
