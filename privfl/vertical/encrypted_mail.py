"""What travels in regression under Paillier: fixed-point numbers, their ciphertexts, and heads that
say which batch, key and step they belong to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from privfl.core import Abort, Buffer, ConfigError, PartyId
from privfl.crypto.he.libraries import gmpy2
from privfl.crypto.he.paillier.keys import PaillierPublic
from privfl.crypto.he.wire import Refused, pack, unpack
from privfl.vertical.message import Batch

SHARE_BITS, COLUMN_BITS = 24, 8
"""Fractional bits of shares and residuals, and of columns."""
LARGEST = 1 << 20
"""Shares and residuals are below this, and columns too."""
_DOMAIN = b"privfl/vertical/paillier/1"
Numbers = npt.NDArray[np.float64]
Kind = Literal[b"share", b"residual", b"masked", b"opened"]


def coded(values: Numbers, bits: int) -> list[int]:
    """Fixed-point numbers.

    Raises:
        ConfigError: one that is not finite, or too large.

    >>> coded(np.array([0.5, -1.0]), 8)
    [128, -256]
    """
    if not bool((np.abs(values) < LARGEST).all()):
        raise ConfigError(
            f"shares, residuals and columns are finite and below {LARGEST} under encryption:"
            " standardise the columns, or lower lr."
        )
    return [round(float(value) * (1 << bits)) for value in values]


def sealed(public: PaillierPublic, plaintexts: Sequence[int]) -> list[Any]:
    """Fresh ciphertexts of signed integers."""
    n = gmpy2.mpz(public.n)
    factors = public.blinding(len(plaintexts))
    return [(1 + (m % n) * n) * rho % public.n2 for m, rho in zip(plaintexts, factors, strict=True)]


def closed(
    public: PaillierPublic, batch: Batch, kind: Kind, numbers: Sequence[Any], width: int
) -> bytes:
    """A message: what it is, of which batch and key, and numbers of so many bytes."""
    body = b"".join(int(number).to_bytes(width, "little") for number in numbers)
    return pack([_DOMAIN, kind, batch.digest, public.key_id, body])


def opened(public: PaillierPublic, batch: Batch, kind: Kind, count: int, body: Buffer) -> list[Any]:
    """A message's numbers: ciphertexts, or (``opened``) plaintexts mod n.

    Raises:
        Refused: no message of this batch, key, kind or length, or numbers outside of the group.
    """
    fields = [bytes(field) for field in unpack(body)]
    if len(fields) != 5 or fields[:2] != [_DOMAIN, kind]:
        raise Refused(f"no message {kind.decode()} of vertical regression")
    if fields[2] != batch.digest or fields[3] != public.key_id:
        raise Refused("a message of another batch or key")
    plain = kind == b"opened"
    most = public.n if plain else public.n2
    width = public.width
    if len(fields[4]) != count * width:
        raise Refused(f"{len(fields[4])} bytes where {count} numbers of {width} were due")
    numbers = [
        gmpy2.mpz.from_bytes(fields[4][i : i + width], "little")
        for i in range(0, len(fields[4]), width)
    ]
    if any(number >= most for number in numbers):
        raise Refused("a number outside of its range")
    if not plain and any(gmpy2.gcd(number, public.n) != 1 for number in numbers):
        raise Refused("a number outside of the ciphertext group")
    return numbers


@contextmanager
def letter_of(sender: PartyId) -> Iterator[None]:
    """What is refused inside ends the batch, in the name of whom the letter came."""
    try:
        yield
    except Refused as why:
        raise Abort(f"no message from {sender}: {why}", letter_of=sender) from None
