"""Proofs that a holder of a share raised every ciphertext to it (Damgård and Jurik 2001, section
4.1: equality of discrete logarithms, made non-interactive by Fiat and Shamir 1986).

The dealer publishes a random square v and v_i = v^(D s_i) for every share s_i, D = holders!. A part
of c is d = c^(2 D s_i); the proof shows that log_(c^4) d^2 = log_v v_i. All ciphertexts of a round
are proved at once: with 128-bit exponents that hash all of them, one for each, the products of the
powers stand for them (Bellare, Garay, Rabin 1998). A wrong part passes with probability 2^-128 a
try, given that the modulus is of safe primes. The negative of a part passes too, and decrypts to
the same.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from privfl.crypto.he.libraries import gmpy2
from privfl.crypto.he.wire import Refused

SECURITY = 128
_BYTES = SECURITY // 8
_DOMAIN = b"privfl/paillier/part/1\x00"


@dataclass(frozen=True, slots=True)
class SameExponent:
    """What is proved: that ``parts`` are the ciphertexts ``elements``, each to the power of the
    secret under ``key`` = base^(D s) mod n^2, in the round that ``topic`` names.
    """

    n: int
    base: int
    key: int
    elements: Sequence[Any]
    parts: Sequence[Any]
    topic: bytes

    def _hash(self, *numbers: Any) -> bytes:
        width = -(-2 * self.n.bit_length() // 8)
        words = hashlib.sha256(_DOMAIN)
        words.update(len(self.topic).to_bytes(4, "little") + self.topic)
        words.update(len(self.elements).to_bytes(4, "little"))
        all_of_them = (self.n, self.base, self.key, *self.elements, *self.parts, *numbers)
        for number in all_of_them:
            words.update(int(number).to_bytes(width, "little"))
        return words.digest()

    def _batched(self) -> tuple[Any, Any]:
        """c^4 and d^2 of the products that stand for all ciphertexts and all parts."""
        n2, seed = gmpy2.mpz(self.n) ** 2, self._hash()
        c, d = gmpy2.mpz(1), gmpy2.mpz(1)
        for i, (element, part) in enumerate(zip(self.elements, self.parts, strict=True)):
            word = hashlib.sha256(seed + i.to_bytes(4, "little")).digest()[:_BYTES]
            power = int.from_bytes(word, "little")
            c = c * gmpy2.powmod(element, power, n2) % n2
            d = d * gmpy2.powmod(part, power, n2) % n2
        return gmpy2.powmod(c, 4, n2), gmpy2.powmod(d, 2, n2)

    def prove(self, secret: int) -> bytes:
        """The proof, by whoever knows ``secret`` = D s: a challenge and an answer that is masked by
        2^128 times its own range.
        """
        n2 = gmpy2.mpz(self.n) ** 2
        c, _ = self._batched()
        mask = secrets.randbits(2 * self.n.bit_length() + 24 + 2 * SECURITY)
        a, b = gmpy2.powmod_sec(c, mask, n2), gmpy2.powmod_sec(self.base, mask, n2)
        challenge = self._hash(a, b)[:_BYTES]
        answer = mask + int.from_bytes(challenge, "little") * secret
        return challenge + answer.to_bytes(self.size - _BYTES, "little")

    @property
    def size(self) -> int:
        """Bytes of a proof."""
        return _BYTES + (2 * self.n.bit_length() + 24 + 2 * SECURITY) // 8 + 1

    def check(self, proof: bytes) -> None:
        """Refuse a proof that does not hold.

        Raises:
            Refused: it does not.
        """
        if len(proof) != self.size or len(self.parts) != len(self.elements):
            raise Refused("a part of a decryption without a proof of this version")
        n2 = gmpy2.mpz(self.n) ** 2
        c, d = self._batched()
        challenge, answer = proof[:_BYTES], int.from_bytes(proof[_BYTES:], "little")
        power = int.from_bytes(challenge, "little")
        a = gmpy2.powmod(c, answer, n2) * gmpy2.powmod(d, -power, n2) % n2
        b = gmpy2.powmod(self.base, answer, n2) * gmpy2.powmod(self.key, -power, n2) % n2
        if self._hash(a, b)[:_BYTES] != challenge:
            raise Refused("its part of the decryption is not what its share makes of the sum")
