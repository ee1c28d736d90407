"""Safe primes p = 2 p' + 1 with p' prime: of a modulus of two of them the squares have no small
subgroup, which proofs about exponents need (Damgård and Jurik 2001, section 4.1).

Whole windows of candidates are sieved at once, on p' and on 2 p' + 1 (Wiener 2003, "Safe prime
generation with a combined sieve"); what is left is tested.
"""

from __future__ import annotations

import secrets
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from privfl.core import require
from privfl.crypto.he.libraries import gmpy2

ROUNDS = 40
"""Miller-Rabin tests of what a Fermat test lets pass."""


@lru_cache(maxsize=4)
def _small(limit: int) -> npt.NDArray[np.int64]:
    """The odd primes below a limit."""
    is_prime = np.ones(limit, dtype=bool)
    is_prime[:2] = False
    for n in range(2, int(limit**0.5) + 1):
        if is_prime[n]:
            is_prime[n * n :: n] = False
    return np.flatnonzero(is_prime)[1:]


def _sieved(start: int, window: int, limit: int) -> npt.NDArray[np.int64]:
    """The k below ``window`` for which neither start + 2 k nor 2 (start + 2 k) + 1 has a prime
    factor below ``limit``.
    """
    left = np.ones(window, dtype=bool)
    for r in _small(limit).tolist():
        half, rest = (r + 1) // 2, start % r  # half is 1/2 mod r
        left[-rest * half % r :: r] = False
        left[((r - 1) // 2 - rest) * half % r :: r] = False
    return np.flatnonzero(left)


def safe_prime(bits: int) -> int:
    """A random safe prime of so many bits, at least 128, the two highest set: a product of two has
    full length.

    Raises:
        ConfigError: fewer bits.

    >>> p = safe_prime(128)
    >>> p.bit_length(), bool(gmpy2.is_prime(p)), bool(gmpy2.is_prime(p // 2))
    (128, True, True)
    """
    require.at_least(128, bits=bits)
    window, limit = bits * bits // 4, 1 << min(20, max(10, bits // 75))
    while True:
        start = (0b11 << (bits - 3)) | secrets.randbits(bits - 3) | 1
        for k in _sieved(start, window, limit).tolist():
            q = gmpy2.mpz(start + 2 * k)
            p = 2 * q + 1
            if p.bit_length() > bits:
                break
            if gmpy2.powmod(2, q - 1, q) != 1 or gmpy2.powmod(2, p - 1, p) != 1:
                continue
            if gmpy2.is_prime(q, ROUNDS) and gmpy2.is_prime(p, ROUNDS):
                return int(p)


def is_safe(p: int) -> bool:
    """Whether p and (p - 1) / 2 are prime.

    >>> [p for p in range(30) if is_safe(p)]
    [5, 7, 11, 23]
    """
    return bool(gmpy2.is_prime(p, ROUNDS) and gmpy2.is_prime((p - 1) // 2, ROUNDS))
