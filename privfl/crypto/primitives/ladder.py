"""X25519 by plain integers (RFC 7748, section 5): for libraries without it. Not constant time."""

from __future__ import annotations

P = 2**255 - 19
_A24 = 121665


def x25519(secret: bytes, public: bytes) -> bytes:
    """The shared secret [32 bytes] of a secret scalar and a public key [32 bytes each].

    Raises:
        ValueError: not 32 bytes, or the result is all zero because the public key is a point of
            small order.

    >>> x25519(bytes(31) + b"@", (9).to_bytes(32, "little")).hex()[:16]
    '2fe57da347cd6243'
    """
    if len(secret) != 32 or len(public) != 32:
        raise ValueError("X25519 keys have 32 bytes.")
    k = (int.from_bytes(secret, "little") & ~7 & (1 << 255) - 1) | 1 << 254
    k &= (1 << 255) - 1
    u = (int.from_bytes(public, "little") & (1 << 255) - 1) % P
    x2, z2, x3, z3, swap = 1, 0, u, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + _A24 * e) % P
    if swap:
        x2, z2 = x3, z3
    shared = x2 * pow(z2, P - 2, P) % P
    if not shared:
        raise ValueError("the public key is a point of small order.")
    return shared.to_bytes(32, "little")
