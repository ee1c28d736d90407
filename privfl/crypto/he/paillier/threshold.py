"""Threshold Paillier (Damgård and Jurik 2001, section 4.1): t of the holders of Shamir shares
decrypt, fewer learn nothing.

The secret d is 0 mod m and 1 mod n, with m = (p - 1)(q - 1) / 4, and is shared modulo n m by a
random polynomial of degree t - 1. The primes are such that m has no prime factor up to 13, so the
differences of up to nine holders' numbers are units and t - 1 shares say nothing. Safe primes are
only needed for proofs that a part is right, which this does not give: a part that is wrong at
random shows as a plaintext that is no sum, and one that a holder chose moves the sum by a constant
unnoticed (`privfl.crypto.he.paillier.lies`).
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence

import gmpy2

from privfl.core import ConfigError, KeepsSecrets, PartyId, RoundPlan
from privfl.crypto.he.paillier.blinding import powers
from privfl.crypto.he.paillier.keys import SMALL_FACTORS, PaillierPublic, PaillierSecret, unpacked
from privfl.crypto.he.wire import Numbers, Parts, Refused, pack, unpack


class PaillierShare(KeepsSecrets):
    """One holder's share: the value of the polynomial at its ``index``."""

    def __init__(self, index: int, value: int, holders: int, public: PaillierPublic) -> None:
        self.index, self.value, self.holders, self.public = index, value, holders, public

    def to_bytes(self) -> bytes:
        """For a sealed box."""
        size = -(-self.value.bit_length() // 8)
        return pack(
            [
                bytes([self.index, self.holders]),
                self.value.to_bytes(size, "little"),
                self.public.to_bytes(),
            ]
        )

    @classmethod
    def from_bytes(cls, data: bytes, threads: int = 1, least_bits: int = 2048) -> PaillierShare:
        """Read a share.

        Raises:
            Refused: it is none.
        """
        fields = unpack(data)
        if len(fields) != 3 or len(fields[0]) != 2:
            raise Refused("not a share of a Paillier key")
        public = PaillierPublic.from_bytes(bytes(fields[2]), threads, least_bits)
        return cls(fields[0][0], int.from_bytes(fields[1], "little"), fields[0][1], public)

    def partial(self, ciphertext: Parts, plan: RoundPlan) -> Parts:
        """c^(2 holders! share) for each element."""
        public = self.public
        exponent = 2 * math.factorial(self.holders) * self.value
        done = powers(public.read(ciphertext, plan), exponent, public.n2, public.threads)
        return bytes([self.index, self.holders]), b"".join(
            c.to_bytes(public.width, "little") for c in done
        )


def split(secret: PaillierSecret, holders: int, threshold: int) -> list[PaillierShare]:
    """Shares for ``holders``, any ``threshold`` of whom decrypt.

    Raises:
        ConfigError: the key's primes cannot be shared safely.
    """
    p, q, n = secret.p, secret.q, secret.public.n
    m = (p - 1) * (q - 1) // 4
    if m % 2 == 0 or any(m % small == 0 for small in SMALL_FACTORS):
        raise ConfigError(
            "this Paillier key cannot be split: its primes are not made for it. Generate a key here"
            " instead."
        )
    modulus = n * m
    d = m * int(gmpy2.invert(m, n))
    polynomial = [d] + [secrets.randbelow(modulus) for _ in range(threshold - 1)]
    shares = []
    for index in range(1, holders + 1):
        value = 0
        for coefficient in reversed(polynomial):
            value = (value * index + coefficient) % modulus
        shares.append(PaillierShare(index, value, holders, secret.public))
    return shares


def combine(
    public: PaillierPublic, partials: Sequence[Parts], plan: RoundPlan, count: int, threshold: int
) -> Numbers | None:
    """The sum, from the first ``threshold`` different holders' parts; None from fewer.

    Raises:
        Refused: a part has another form, or the outcome is no sum.
    """
    by_index: dict[int, list[gmpy2.mpz]] = {}
    holders = 0
    for part in partials:
        if len(part) != 2 or len(part[0]) != 2:
            raise Refused("a decryptor's part of another form")
        index, holders = part[0][0], part[0][1]
        public.check((part[1],), plan)
        by_index.setdefault(index, public.read((part[1],), plan))
    chosen = sorted(by_index)[:threshold]
    if len(chosen) < threshold:
        return None
    n, n2, scale = gmpy2.mpz(public.n), gmpy2.mpz(public.n2), math.factorial(holders)
    undo = gmpy2.invert(4 * scale * scale, n)
    product = [gmpy2.mpz(1)] * len(by_index[chosen[0]])
    for index in chosen:
        weight = 2 * lagrange(index, chosen, scale)
        product = [
            a * b % n2
            for a, b in zip(product, powers(by_index[index], weight, public.n2), strict=True)
        ]
    if any((c - 1) % n for c in product):
        raise Refused("the decryptors' parts do not fit together")
    return unpacked(public, [int((c - 1) // n * undo % n) for c in product], plan, count)


def lagrange(index: int, chosen: Sequence[int], scale: int) -> int:
    """The Lagrange coefficient at 0 times ``scale``, an integer where scale = holders!."""
    above, below = scale, 1
    for other in chosen:
        if other != index:
            above, below = above * -other, below * (index - other)
    return above // below


def parts_in_order(partials: Mapping[PartyId, Parts]) -> list[Parts]:
    """The parts, by party."""
    return [partials[who] for who in sorted(partials)]
