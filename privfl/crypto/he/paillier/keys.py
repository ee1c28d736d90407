"""Paillier keys (Paillier 1999; Damgård, Jurik, Nielsen 2010) over packed fixed-point vectors, on
GMP.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from privfl.core import ConfigError, KeepsSecrets, RoundPlan
from privfl.crypto.he.libraries import gmpy2
from privfl.crypto.he.paillier.blinding import BlindingPool, powers, short_powers
from privfl.crypto.he.paillier.packing import Slots
from privfl.crypto.he.paillier.safe_primes import safe_prime
from privfl.crypto.he.scheme import key_id
from privfl.crypto.he.wire import Numbers, Parts, Refused, pack, unpack

_KIND = b"paillier"


class PaillierPublic(KeepsSecrets):
    """A modulus n, and h_s where the key allows Damgård–Jurik–Nielsen blinding (0 where it does
    not: then r^n).

    ``bits`` is the width of a value, ``exponent_bits`` the length of the blinding exponent: half of
    n by default. ``checks`` of a key that is split: a square v, and v^(holders! s_i) for the share
    of every holder, which parts of a decryption are checked against. Its pool of blinding factors
    is secret, so it does not serialise; `to_bytes` writes what is public. Encryption is IND-CPA
    under decisional composite residuosity; exponents shorter than |n| / 2 assume that h_s^r with
    short r looks random too.
    """

    def __init__(
        self,
        n: int,
        hs: int,
        bits: int,
        exponent_bits: int | None = None,
        threads: int = 1,
        checks: tuple[int, ...] = (),
    ) -> None:
        self.n, self.hs, self.bits, self.threads = n, hs, bits, threads
        self.checks = checks
        self.exponent_bits = exponent_bits or n.bit_length() // 2
        self.n2 = n * n
        self.pool = BlindingPool()

    @property
    def key_id(self) -> bytes:
        """It names n and h_s."""
        return key_id(_KIND, self.to_bytes())

    @property
    def width(self) -> int:
        """Bytes of one ciphertext."""
        return -(-self.n2.bit_length() // 8)

    def to_bytes(self) -> bytes:
        """n, h_s, the value's width and the exponent's; then what parts are checked against."""
        small = self.bits.to_bytes(1, "little") + self.exponent_bits.to_bytes(4, "little")
        checks = (check.to_bytes(self.width, "little") for check in self.checks)
        return pack([_KIND, _bytes(self.n), _bytes(self.hs), small, *checks])

    @classmethod
    def from_bytes(cls, data: bytes, threads: int = 1, least_bits: int = 2048) -> PaillierPublic:
        """Read a public key.

        Raises:
            Refused: it is none, or it is shorter than ``least_bits``.
        """
        fields = unpack(data)
        if len(fields) < 4 or fields[0] != _KIND or len(fields[3]) != 5:
            raise Refused("not a Paillier public key")
        n, hs = int.from_bytes(fields[1], "little"), int.from_bytes(fields[2], "little")
        if n % 2 == 0 or n.bit_length() < least_bits:
            raise Refused(
                f"a Paillier modulus of {n.bit_length()} bits; at least {least_bits} are asked for"
            )
        if hs and (
            gmpy2.gcd(hs, n) != 1 or pow(hs, 2, n * n) == 1
        ):  # powers of 1 or -1 hide nothing
            raise Refused("a Paillier key with a degenerate h_s")
        exponent_bits = int.from_bytes(fields[3][1:], "little")
        if not 256 <= exponent_bits <= n.bit_length() and least_bits >= 2048:
            raise Refused(f"blinding exponents of {exponent_bits} bits")
        checks = tuple(int.from_bytes(check, "little") for check in fields[4:])
        if any(not 1 < check < n * n or gmpy2.gcd(check, n) != 1 for check in checks):
            raise Refused("a Paillier key with degenerate checks of its shares")
        return cls(n, hs, fields[3][0], exponent_bits, threads, checks)

    def slots(self, plan: RoundPlan) -> Slots:
        """How this round packs."""
        return Slots.of((1 << (self.bits - 1)) - 1, max(plan.n, 1), self.n.bit_length() - 1)

    def blinding(self, count: int) -> list[Any]:
        """``count`` factors for one use each, from the pool as far as it goes."""
        ready = self.pool.take(count)
        return ready + self.fresh_blinding(count - len(ready))

    def fresh_blinding(self, count: int) -> list[Any]:
        """``count`` fresh factors."""
        if count <= 0:
            return []
        if self.hs:
            return short_powers(self.hs, self.n, self.exponent_bits, count)
        return powers(
            [gmpy2.mpz(secrets.randbelow(self.n - 1) + 1) for _ in range(count)],
            self.n,
            self.n2,
            self.threads,
        )

    def prefill(self, plan: RoundPlan) -> None:
        """Make one contribution's blinding factors ahead of the round."""
        wanted = self.slots(plan).plaintexts(plan.d + 1)
        self.pool.put(self.fresh_blinding(wanted - len(self.pool)))

    def encrypt(self, numbers: Numbers, plan: RoundPlan) -> Parts:
        """(1 + m n) rho mod n^2 for each packed plaintext m."""
        plaintexts = self.slots(plan).pack(numbers)
        return self.blinded(plaintexts, self.blinding(len(plaintexts)))

    def blinded(self, plaintexts: list[int], factors: list[Any]) -> Parts:
        """Plaintexts under these factors."""
        n, n2, width = gmpy2.mpz(self.n), gmpy2.mpz(self.n2), self.width
        ciphertexts = ((1 + m * n) * rho % n2 for m, rho in zip(plaintexts, factors, strict=True))
        return (b"".join(c.to_bytes(width, "little") for c in ciphertexts),)

    def read(self, ciphertext: Parts, plan: RoundPlan) -> list[Any]:
        """The group elements of a ciphertext.

        Raises:
            Refused: another length, or a number outside of the group's range.
        """
        wanted, width = self.slots(plan).plaintexts(plan.d + 1), self.width
        if len(ciphertext) != 1 or len(ciphertext[0]) != wanted * width:
            raise Refused(f"not {wanted} Paillier ciphertexts of {width} bytes")
        data, number = bytes(ciphertext[0]), gmpy2.mpz.from_bytes
        elements = [number(data[i : i + width], "little") for i in range(0, len(data), width)]
        if min(elements) <= 0 or max(elements) >= self.n2:
            raise Refused("a number outside of the ciphertext group")
        return elements

    def check(self, ciphertext: Parts, plan: RoundPlan) -> None:
        """Refuse numbers that are no units mod n^2.

        Raises:
            Refused: and why.
        """
        product, n = gmpy2.mpz(1), gmpy2.mpz(self.n)
        for c in self.read(ciphertext, plan):
            product = product * c % n
        if gmpy2.gcd(product, n) != 1:
            raise Refused("a number outside of the ciphertext group")

    def add(self, ciphertexts: Sequence[Parts], plan: RoundPlan) -> Parts:
        """Products mod n^2.

        Raises:
            Refused: nothing to add, or no ciphertext of this key.
        """
        if not ciphertexts:
            raise Refused("there is nothing to add")
        n2, width = gmpy2.mpz(self.n2), self.width
        total = self.read(ciphertexts[0], plan)
        for ciphertext in ciphertexts[1:]:
            total = [a * b % n2 for a, b in zip(total, self.read(ciphertext, plan), strict=True)]
        return (b"".join(c.to_bytes(width, "little") for c in total),)


class PaillierSecret(KeepsSecrets):
    """The two primes. Decryption is by the Chinese remainder theorem (Paillier 1999, section 7)."""

    def __init__(self, p: int, q: int, public: PaillierPublic) -> None:
        self.p, self.q, self.public = p, q, public

    def to_bytes(self) -> bytes:
        """The primes and the public half."""
        return pack([_bytes(self.p), _bytes(self.q), self.public.to_bytes()])

    @classmethod
    def from_bytes(cls, data: bytes, threads: int = 1, least_bits: int = 2048) -> PaillierSecret:
        """Read a secret key.

        Raises:
            Refused: it is none, or its halves do not belong together.
        """
        fields = unpack(data)
        if len(fields) != 3:
            raise Refused("not a Paillier secret key")
        public = PaillierPublic.from_bytes(bytes(fields[2]), threads, least_bits)
        p, q = int.from_bytes(fields[0], "little"), int.from_bytes(fields[1], "little")
        if p * q != public.n:
            raise Refused("the primes do not belong to the modulus")
        return cls(p, q, public)

    def encrypt(self, numbers: Numbers, plan: RoundPlan) -> Parts:
        """As anybody would, but r^n modulo p^2 and q^2 apart where the key has no h_s."""
        if self.public.hs:
            return self.public.encrypt(numbers, plan)
        plaintexts = self.public.slots(plan).pack(numbers)
        return self.public.blinded(
            plaintexts, [self.residue(secrets.randbelow(self.public.n - 1) + 1) for _ in plaintexts]
        )

    def residue(self, r: int) -> Any:
        """r^n mod n^2."""
        p2, q2, n = self.p**2, self.q**2, self.public.n
        at_p = gmpy2.powmod(r, n % (self.p * (self.p - 1)), p2)
        at_q = gmpy2.powmod(r, n % (self.q * (self.q - 1)), q2)
        return at_p + p2 * ((at_q - at_p) * gmpy2.invert(p2, q2) % q2)

    def decrypt(self, ciphertext: Parts, plan: RoundPlan, count: int) -> Numbers:
        """The signed sums [d + 1].

        Raises:
            Refused: the plaintext is no sum of ``count`` packed contributions.
        """
        elements = self.public.read(ciphertext, plan)
        return unpacked(self.public, self.plaintexts(elements), plan, count)

    def plaintexts(self, elements: list[Any]) -> list[int]:
        """Raw plaintexts mod n."""
        p, q, threads = gmpy2.mpz(self.p), gmpy2.mpz(self.q), self.public.threads
        p2, q2 = p * p, q * q
        at_p = powers([c % p2 for c in elements], self.p - 1, self.p**2, threads)
        at_q = powers([c % q2 for c in elements], self.q - 1, self.q**2, threads)
        undo_p, undo_q, shift = gmpy2.invert(-q, p), gmpy2.invert(-p, q), gmpy2.invert(p, q)
        plain = []
        for cp, cq in zip(at_p, at_q, strict=True):
            mp, mq = (cp - 1) // p * undo_p % p, (cq - 1) // q * undo_q % q
            plain.append(int(mp + p * ((mq - mp) * shift % q)))
        return plain


def unpacked(public: PaillierPublic, plaintexts: list[int], plan: RoundPlan, count: int) -> Numbers:
    """The sums in these plaintexts.

    Raises:
        Refused: they are no sums of ``count`` packed contributions.
    """
    try:
        return public.slots(plan).unpack(plaintexts, plan.d + 1, count)
    except OverflowError:
        raise Refused(
            "the plaintext is no sum of packed contributions: another key, or not a sum"
        ) from None


def generate(
    key_bits: int, bits: int, exponent_bits: int | None, threads: int, *, safe: bool = False
) -> PaillierSecret:
    """A fresh key of ``key_bits``, made for Damgård–Jurik–Nielsen blinding; of ``safe`` primes,
    which splitting needs and which take seconds to find.
    """
    while safe:
        p, q = safe_prime(key_bits // 2), safe_prime(key_bits // 2)
        if p != q:
            return from_primes(p, q, bits, exponent_bits, threads)
    while True:
        p, q = _prime(key_bits // 2), _prime(key_bits // 2)
        if p != q and (p * q).bit_length() == key_bits and gmpy2.gcd(p - 1, q - 1) == 2:
            return from_primes(p, q, bits, exponent_bits, threads)


def _prime(bits: int) -> int:
    """A random prime, 3 modulo 4, with its two upper bits set, so that the product of two has full
    length.
    """
    while True:
        drawn = secrets.randbits(bits) | 3 << (bits - 2) | 3
        if gmpy2.is_prime(drawn, 40):
            return drawn


def from_primes(
    p: int, q: int, bits: int, exponent_bits: int | None = None, threads: int = 1
) -> PaillierSecret:
    """The key of two primes, with h_s where they allow it.

    Raises:
        ConfigError: they are not two different primes of one length.
    """
    if (
        p == q
        or p.bit_length() != q.bit_length()
        or not (gmpy2.is_prime(p, 40) and gmpy2.is_prime(q, 40))
    ):
        raise ConfigError("a Paillier key needs two different primes of one length.")
    n = p * q
    hs = 0
    if p % 4 == 3 and q % 4 == 3 and gmpy2.gcd(p - 1, q - 1) == 2:
        secret = PaillierSecret(p, q, PaillierPublic(n, 0, bits))
        x = secrets.randbelow(n - 2) + 2
        hs = int(secret.residue(-x * x % n))
    return PaillierSecret(p, q, PaillierPublic(n, hs, bits, exponent_bits, threads))


def _bytes(number: int) -> bytes:
    return number.to_bytes(-(-number.bit_length() // 8), "little")
