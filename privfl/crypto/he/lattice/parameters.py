"""Parameter sets of depth 0, chosen by what has to fit: averaging happens after decryption, so
chains are short.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from privfl.core import ConfigError
from privfl.crypto.he.libraries import gmpy2

SIGMAS = 9
"""Headroom over the noise of a sum, in standard deviations: 2e-19 a coefficient."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """Ring degree, prime sizes in bits (the last one is used up inside of encryption), and the
    plaintext side of the scheme.

    All sets are within the 128-bit limits of the homomorphic encryption standard, which SEAL
    enforces. ``plain_bits`` is BFV's plaintext modulus, ``scale_bits`` CKKS's scale; the other is
    0.
    """

    scheme: Literal["bfv", "ckks"]
    degree: int
    primes: tuple[int, ...]
    plain_bits: int = 0
    scale_bits: int = 0

    @property
    def slots(self) -> int:
        """Values in one ciphertext."""
        return self.degree if self.scheme == "bfv" else self.degree // 2

    @property
    def q_bits(self) -> int:
        """Length of the modulus of a ciphertext that travels."""
        return sum(self.primes[:-1])

    @property
    def deviation(self) -> float:
        """Standard deviation of a fresh ciphertext's noise in a coefficient: what dropping the last
        prime rounds (it drowns the rest).
        """
        return math.sqrt((self.degree * 2 / 3 + 1) / 12)

    def to_bytes(self) -> bytes:
        """As it travels with a public key."""
        return ",".join(
            map(str, (self.scheme, self.degree, *self.primes, self.plain_bits, self.scale_bits))
        ).encode()


def plain_modulus(degree: int, bits: int) -> int:
    """BFV's t: the largest prime under 2^bits that is 1 modulo 2 degree, as batching needs.

    >>> plain_modulus(4096, 24)
    16760833
    """
    step = 2 * degree
    candidate = ((1 << bits) - 2) // step * step + 1
    while not gmpy2.is_prime(candidate, 40):
        candidate -= step
    return candidate


def bfv(bits: int, clients: int) -> Lattice:
    """The smallest set in which sums of ``clients`` values of ``bits`` bits stay below half of the
    plaintext modulus, noise included.

    Raises:
        ConfigError: no set has that much room.

    >>> bfv(bits=16, clients=255)
    Lattice(scheme='bfv', degree=4096, primes=(40, 40), plain_bits=24, scale_bits=0)
    """
    top = (1 << (bits - 1)) - 1
    for degree, primes in ((4096, (40, 40)), (4096, (54, 54)), (8192, (60, 60))):
        plain_bits = max(17, (2 * clients * top).bit_length())
        plain_bits += (
            plain_modulus(degree, plain_bits) <= 2 * clients * top
        )  # the prime may be well below its power of two
        chosen = Lattice("bfv", degree, primes, plain_bits)
        noise = SIGMAS * chosen.deviation * math.sqrt(clients) + clients
        if plain_bits <= 60 and noise < 2.0 ** (chosen.q_bits - plain_bits - 1):
            return chosen
    raise ConfigError(
        f"bfv: no parameter set holds sums of {clients} values of {bits} bits; lower bits or"
        " max_clients."
    )


CKKS_SETS = (
    ((4096, (54, 52)), 54),
    ((8192, (60, 60, 60)), 90),
)
"""Degree, primes, and how many bits of the modulus to use: past 2^80 the scale outruns double
precision and buys nothing.
"""


def ckks(clients: int) -> tuple[Lattice, ...]:
    """The sets in which sums of ``clients`` values in [-1, 1] fit, cheapest first.

    >>> [(lattice.degree, lattice.scale_bits) for lattice in ckks(clients=255)]
    [(4096, 44), (8192, 80)]
    """
    room = clients.bit_length() + 2  # the sign, and the norm of a slot vector in coefficients
    return tuple(
        Lattice("ckks", degree, primes, scale_bits=used - room)
        for (degree, primes), used in CKKS_SETS
        if used - room > 20
    )
