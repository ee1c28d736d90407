"""Threshold Paillier (Damgård and Jurik 2001, section 4.1): t of the holders of Shamir shares
decrypt, fewer learn nothing.

The secret d is 0 mod m and 1 mod n, with m = (p - 1)(q - 1) / 4, and is shared modulo n m by a
random polynomial of degree t - 1. Only keys of safe primes are split: then m is a product of two
large primes, so that t - 1 shares say nothing, and every part carries a proof that it is what its
holder's share makes of the ciphertexts (`privfl.crypto.he.paillier.proofs`). Any t proven parts
decrypt; whoever's proof fails is named. The dealer that splits the key knows it.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from privfl.core import ConfigError, KeepsSecrets, PartyId, RoundPlan
from privfl.crypto.he.libraries import gmpy2
from privfl.crypto.he.paillier.blinding import powers
from privfl.crypto.he.paillier.keys import PaillierPublic, PaillierSecret, unpacked
from privfl.crypto.he.paillier.proofs import SameExponent
from privfl.crypto.he.paillier.safe_primes import is_safe
from privfl.crypto.he.wire import Numbers, Parts, Refused, digest, pack, unpack


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
        index, holders = fields[0]
        value = int.from_bytes(fields[1], "little")
        if public.checks:
            power = math.factorial(holders) * value
            if (
                len(public.checks) != holders + 1
                or not 1 <= index <= holders
                or gmpy2.powmod_sec(public.checks[0], power or 1, public.n2) != public.checks[index]
            ):
                raise Refused("a share that does not fit what the key says of it")
        return cls(index, value, holders, public)

    def partial(self, ciphertext: Parts, plan: RoundPlan) -> Parts:
        """c^(2 holders! share) for each element, and the proof of all of them where the key has
        what it is checked against.
        """
        public, secret = self.public, math.factorial(self.holders) * self.value
        elements = public.read(ciphertext, plan)
        done = powers(elements, 2 * secret, public.n2, public.threads)
        body = b"".join(c.to_bytes(public.width, "little") for c in done)
        proof = b""
        if public.checks:
            proof = _statement(public, self.index, elements, done, plan).prove(secret)
        return bytes([self.index, self.holders]), body, proof


def _statement(
    public: PaillierPublic,
    index: int,
    elements: Sequence[Any],
    parts: Sequence[Any],
    plan: RoundPlan,
) -> SameExponent:
    topic = digest(plan.session) + digest(plan.part.encode()) + plan.number.to_bytes(8, "little")
    base, key = public.checks[0], public.checks[index]
    return SameExponent(public.n, base, key, elements, parts, topic + bytes([index]))


def proven(
    public: PaillierPublic, ciphertext: Parts, part: Parts, index: int, plan: RoundPlan
) -> None:
    """Refuse what is not the part of the holder of this number in the decryption of a ciphertext.

    Raises:
        Refused: another form, another holder's, or a proof that does not hold.
    """
    holders = len(public.checks) - 1
    if len(part) != 3 or bytes(part[0]) != bytes([index, holders]):
        raise Refused("a part of a decryption of another form, or another holder's")
    public.check((part[1],), plan)
    parts = public.read((part[1],), plan)
    elements = public.read(ciphertext, plan)
    _statement(public, index, elements, parts, plan).check(bytes(part[2]))


def split(
    secret: PaillierSecret, holders: int, threshold: int
) -> tuple[PaillierPublic, list[PaillierShare]]:
    """Shares for ``holders``, any ``threshold`` of whom decrypt, and the public key with what their
    parts are checked against.

    Raises:
        ConfigError: the key's primes are not safe primes.
    """
    p, q, old = secret.p, secret.q, secret.public
    if not (is_safe(p) and is_safe(q)):
        raise ConfigError(
            "this Paillier key cannot be split: its primes are no safe primes, so nothing could"
            " prove a part of a decryption. Generate one with keys='threshold'."
        )
    n, m = old.n, (p - 1) * (q - 1) // 4
    modulus = n * m
    d = m * int(gmpy2.invert(m, n))
    polynomial = [d] + [secrets.randbelow(modulus) for _ in range(threshold - 1)]
    values = []
    for index in range(1, holders + 1):
        value = 0
        for coefficient in reversed(polynomial):
            value = (value * index + coefficient) % modulus
        values.append(value)
    v = 1
    while gmpy2.gcd(v, n) != 1 or v <= 1:
        v = pow(secrets.randbelow(n * n), 2, n * n)
    scale = math.factorial(holders)
    checks = (v, *(int(gmpy2.powmod(v, scale * value, n * n)) for value in values))
    public = PaillierPublic(n, old.hs, old.bits, old.exponent_bits, old.threads, checks)
    return public, [PaillierShare(i, x, holders, public) for i, x in enumerate(values, start=1)]


def combine(
    public: PaillierPublic, partials: Sequence[Parts], plan: RoundPlan, count: int, threshold: int
) -> Numbers | None:
    """The sum, from the first ``threshold`` different holders' parts, whose proofs have been
    checked; None from fewer.

    Raises:
        Refused: a part has another form, or the outcome is no sum.
    """
    by_index: dict[int, list[Any]] = {}
    holders = 0
    for part in partials:
        if len(part) != 3 or len(part[0]) != 2:
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
