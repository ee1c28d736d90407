"""Public keys that protect nobody: X25519 keys with which every agreement is known, Ed25519 keys
for which anybody can sign.
"""

from __future__ import annotations

from privfl.core import Buffer
from privfl.crypto.primitives.ladder import P

_D = -121665 * pow(121666, -1, P) % P
"""The constant of Ed25519's curve (RFC 8032, section 5.1)."""

_SMALL_ORDER = frozenset(
    {
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        P - 1,
    }
)
"""The points of Curve25519 with which every agreement gives zero (Bernstein,
cr.yp.to/ecdh.html#validate).
"""


def unusable(box: Buffer) -> bool:
    """Whether every agreement with this X25519 key [32 bytes] is all zero: it is a point of small
    order (RFC 7748, section 6.1).

    >>> unusable(bytes(32)), unusable((9).to_bytes(32, "little"))
    (True, False)
    """
    return _coordinate(box) in _SMALL_ORDER


def forgeable(signing: Buffer) -> bool:
    """Whether anybody can sign for this Ed25519 key [32 bytes]: it is a point whose order divides
    8, and a challenge that is a multiple of it is met without a secret: one message in 8 at least,
    and each where it is the neutral element (Chalkias, Garillot, Nikolaenko 2020, section 3).

    Points of order 8 solve d y^4 + 2 y^2 = 1: what they double to has y = 0.

    >>> base = (4 * pow(5, -1, P) % P).to_bytes(32, "little")
    >>> forgeable((1).to_bytes(32, "little")), forgeable(base)
    (True, False)
    """
    y = _coordinate(signing)
    square = y * y % P
    return y in (0, 1, P - 1) or (_D * square * square + 2 * square - 1) % P == 0


def _coordinate(key: Buffer) -> int:
    """Both curves read 255 bits modulo P: one point has several encodings."""
    return (int.from_bytes(key, "little") & (1 << 255) - 1) % P
