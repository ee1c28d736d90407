"""Blinding factors: what hides a Paillier plaintext, made ahead of time and used once.

Damgård, Jurik and Nielsen (2010, section 4.2) blind with a power of one fixed element h_s = h^n,
where -h generates the squares up to sign; a table of that one base turns an exponentiation of half
the modulus' length into 192 multiplications (3072 bits). The key must have p = q = 3 mod 4 and
gcd(p - 1, q - 1) = 2; keys that lack it blind with r^n as Paillier (1999) does.
"""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from privfl.core import KeepsSecrets
from privfl.crypto.he.libraries import gmpy2

WINDOW = 8


class FixedBase:
    r"""Powers of one base mod n^2: row w holds base^(v 256^w) for v in 0..255, so that base^e is
    one product a byte of e.

    Numbers are kept as pairs (x, y) that stand for x + y n: a product is then three products and
    two reductions of half the length, a fifth faster than one reduction mod n^2.

    >>> FixedBase(3, 1009, bits=16).power(b"\x05\x01") == pow(3, 5 + 256, 1009**2)
    True
    """

    def __init__(self, base: int, n: int, bits: int) -> None:
        self.n = gmpy2.mpz(n)
        self.bytes = -(-bits // WINDOW)
        self.rows: list[list[tuple[Any, Any]]] = []
        square, step = self.n * self.n, gmpy2.mpz(base)
        for _ in range(self.bytes):
            powers, power = [], gmpy2.mpz(1)
            for _ in range(1 << WINDOW):
                powers.append(power)
                power = power * step % square
            self.rows.append([(power % self.n, power // self.n) for power in powers])
            step = power

    def power(self, exponent: bytes) -> Any:
        """base^exponent mod n^2, the exponent little-endian."""
        n, divided = self.n, gmpy2.f_divmod
        low, high = self.rows[0][exponent[0]]
        for row, byte in zip(self.rows[1:], exponent[1:], strict=False):
            x, y = row[byte]
            carry, rest = divided(low * x, n)
            high = (low * y + high * x + carry) % n
            low = rest
        return low + high * n


@lru_cache(maxsize=2)
def fixed_base(base: int, n: int, bits: int) -> FixedBase:
    """The table of a public key: 45 MB at 3072 bits, so all clients of a simulation share it."""
    return FixedBase(base, n, bits)


def powers(bases: list[Any], exponent: int, modulus: int, threads: int = 1) -> list[Any]:
    """base^exponent for each base. GMP lets go of the interpreter lock here, so threads help."""
    if threads <= 1 or len(bases) < 2 * threads:
        return list(gmpy2.powmod_base_list(bases, exponent, modulus)) if bases else []
    step = -(-len(bases) // threads)
    parts = [bases[i : i + step] for i in range(0, len(bases), step)]
    with ThreadPoolExecutor(threads) as pool:
        done = pool.map(lambda part: gmpy2.powmod_base_list(part, exponent, modulus), parts)
        return [power for part in done for power in part]


class BlindingPool(KeepsSecrets):
    """Blinding factors that wait for their one use. They do not survive sleep: waking twice would
    use them twice.

    Who knows a factor reads the plaintext under it, and two ciphertexts under one factor show their
    difference.
    """

    def __init__(self) -> None:
        self._ready: list[Any] = []

    def __len__(self) -> int:
        return len(self._ready)

    def __getstate__(self) -> dict[str, Any]:
        return {"_ready": []}

    def put(self, factors: list[Any]) -> None:
        """Keep these for later."""
        self._ready += factors

    def take(self, count: int) -> list[Any]:
        """Up to ``count`` factors, which are gone from the pool before anybody uses them."""
        taken, self._ready = self._ready[:count], self._ready[count:]
        return taken


def short_powers(base: int, n: int, exponent_bits: int, count: int) -> list[Any]:
    """``count`` fresh blinding factors base^r mod n^2 with random r of ``exponent_bits`` bits."""
    table = fixed_base(base, n, exponent_bits)
    coins, size = secrets.token_bytes(count * table.bytes), table.bytes
    excess = 8 * size - exponent_bits
    factors = []
    for i in range(0, len(coins), size):
        exponent = coins[i : i + size]
        factors.append(table.power(exponent[:-1] + bytes([exponent[-1] >> excess])))
    return factors
