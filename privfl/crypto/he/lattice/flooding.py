"""Noise flooding: what makes a CKKS decryption safe to publish.

A CKKS decryption carries the ciphertext's noise, and the noise and the ciphertext together give the
key (Li and Micciancio 2021). A release adds Gaussian noise of standard deviation sqrt(12 T) 2^(s/2)
t (Li, Micciancio, Schultz, Sorrell 2022, theorem 2 with corollary 2), where t bounds the L2 norm of
all that the ciphertext's noise and double precision move in a release, T is how many releases one
key makes and s the bits of statistical security. Then nothing about the noise underneath can be
told of honest contributions: one whose norm is over the bound moves more, and one that picks its
own c1 shows the key however much noise there is. The noise of a release is drawn from the key, the
encrypted sum and the round: who opens one sum again releases nothing new, and honest holders of one
key agree.
"""

from __future__ import annotations

import hashlib
import math
import struct

import numpy as np

from privfl.core import RoundPlan
from privfl.crypto.he.lattice.parameters import Lattice
from privfl.crypto.he.wire import Numbers, Parts, digest
from privfl.crypto.primitives import backend, derive, keystream_words

DOUBLE = 16 * 2.0**-53
"""Relative L2 error of decoding in doubles: log2 of the degree (at most 13) roundings of half a
unit.
"""


def moved(lattice: Lattice, plan: RoundPlan, clients: int) -> float:
    """How far noise and rounding move a release [d + 1] of the sum of ``clients``, in L2, in units
    of the bound.
    """
    padded = -(-(plan.d + 1) // lattice.slots) * lattice.slots
    slot = lattice.deviation * math.sqrt(clients * lattice.degree / 2) * 2.0**-lattice.scale_bits
    return slot * math.sqrt(padded) + DOUBLE * clients * math.sqrt(2)


def deviation(lattice: Lattice, plan: RoundPlan, clients: int, bits: int, releases: int) -> float:
    """Standard deviation of the noise of one released value, in units of the bound.

    >>> from privfl.crypto.he.lattice.parameters import ckks
    >>> plan = RoundPlan(0, tuple(range(100)), d=1_000_000, l2=1.0)
    >>> [
    ...     f"{deviation(lattice, plan, 100, bits=40, releases=1000):.0e}"
    ...     for lattice in ckks(clients=255)
    ... ]
    ['4e+01', '3e-05']
    """
    return float(math.sqrt(12 * releases) * 2.0 ** (bits / 2) * moved(lattice, plan, clients))


def seed(secret: bytes, ciphertext: Parts, plan: RoundPlan, count: int) -> bytes:
    """The seed [32 bytes] of one release's noise: a pseudo-random function under the secret key of
    the encrypted sum, the round and the number of contributions, which scales the noise.
    """
    facts = digest(plan.session) + digest(plan.part.encode())
    facts += struct.pack("<qI", plan.number, count) + b"".join(map(digest, ciphertext))
    return derive(hashlib.sha256(secret).digest(), digest(facts), "he/flooding")


def gaussian(n: int, seed: bytes) -> Numbers:
    """Standard normal values [n] from a seed's expansion (Box and Muller 1958)."""
    pairs = -(-n // 2)
    raw = keystream_words(seed, 2 * pairs, "<u8", backend()).astype(np.uint64).reshape(2, pairs)
    uniform = ((raw >> np.uint64(11)) + 0.5) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log(uniform[0])), 2 * np.pi * uniform[1]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:n]
