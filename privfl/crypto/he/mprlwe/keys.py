"""Keys of the multi-party scheme: a joint public key, and a secret that exists only in pieces.

The secret is a sum of ternary pieces, one for every set of t - 1 decryptors, given to all the
OTHERS (replicated secret sharing: Ito, Saito, Nishizeki 1987). So t decryptors hold every piece
between them, and any t - 1 lack the one that is named after them, which is enough to decrypt to
noise. With t = n every decryptor holds one piece of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np
import torch

from privfl.core import ConfigError, KeepsSecrets, RoundPlan
from privfl.crypto.he.mprlwe.ring import (
    BLOCK,
    LIMBS,
    N,
    Small,
    Words,
    carried,
    product,
    spectrum,
    summed,
    times,
    top,
)
from privfl.crypto.he.mprlwe.sampling import ERROR, Stream, uniform_from
from privfl.crypto.he.scheme import key_id
from privfl.crypto.he.wire import Numbers, Parts, Refused, pack, unpack

_KIND = b"mp-rlwe"
SIGMAS = 9
"""Headroom over smudging, in standard deviations: 2e-19 a coefficient."""


def smudging_distance(
    plan: RoundPlan, count: int, smudge_bits: int, releases: int, shows: int
) -> float:
    """Statistical distance between all that ``releases`` rounds like this one show of the key, each
    piece by up to ``shows`` holders, and the same made without the key.

    The parts of a round can be imitated up to the encryption's noise, of norm t over all
    coefficients. Gaussians of deviation s that are t apart have Kullback-Leibler divergence
    t^2 / 2 s^2, divergences add over shows and rounds, and Pinsker's inequality makes a distance.

    >>> plan = RoundPlan(0, tuple(range(100)), d=1_000_000, l2=1.0)
    >>> round(math.log2(smudging_distance(plan, 3, 67, releases=1000, shows=2)), 1)
    -40.4
    """
    coefficients = -(-(plan.d + 1) // N) * N
    norm2 = coefficients * (ERROR / 2) * max(plan.n, 1) * (4 * N * count / 3 + 1)
    divergence = releases * shows * norm2 / 2.0 ** (2 * smudge_bits + 1)
    return math.sqrt(divergence / 2)


def pieces(holders: int, threshold: int) -> tuple[tuple[int, ...], ...]:
    """Who holds each piece, by piece.

    >>> pieces(3, 2)
    ((1, 2), (0, 2), (0, 1))
    >>> pieces(3, 3)
    ((2,), (1,), (0,))
    """
    everybody = range(holders)
    return tuple(
        tuple(i for i in everybody if i not in left_out)
        for left_out in combinations(everybody, threshold - 1)
    )


def plain_bits(plan: RoundPlan, top: int) -> int:
    """Bits of the plaintext modulus: the least that hold any sum of the cohort, sign included."""
    return (2 * max(plan.n, 1) * top).bit_length()


def noise(clients: int, count: int) -> int:
    """The largest noise of a sum of ``clients`` ciphertexts under a secret of ``count`` pieces, in
    a coefficient, truncation apart.
    """
    return clients * (2 * N * ERROR * count + ERROR)


def room(plan: RoundPlan, top: int, count: int, smudge_bits: int) -> int:
    """What is left of half of a plaintext step when everything that can go wrong does, smudging of
    nine standard deviations included; a round fits where this is above 0.
    """
    smudging = math.isqrt((SIGMAS**2 * count) << (2 * smudge_bits)) + 1
    worst = plan.n * (1 << 63) + noise(plan.n, count) + smudging
    return (1 << (95 - plain_bits(plan, top))) - worst if plain_bits(plan, top) <= 31 else -worst


class JointPublic:
    """The seed of a, and b = -(a s) + e, the sum of what every piece's maker contributed."""

    def __init__(self, seed: bytes, b: Words, bits: int) -> None:
        self.seed, self.b, self.top = seed, b, (1 << (bits - 1)) - 1

    @property
    def key_id(self) -> bytes:
        """It names a and b."""
        return key_id(_KIND, self.to_bytes())

    def to_bytes(self) -> bytes:
        """The seed and b."""
        return pack([_KIND, self.seed, to_bytes(self.b)])

    @classmethod
    def from_bytes(cls, data: bytes, bits: int) -> JointPublic:
        """Read a joint key.

        Raises:
            Refused: it is none.
        """
        fields = unpack(data)
        if len(fields) != 3 or fields[0] != _KIND or len(fields[1]) != 32:
            raise Refused("not a multi-party RLWE key")
        return cls(bytes(fields[1]), from_bytes(fields[2], 1), bits)

    def blocks(self, plan: RoundPlan) -> int:
        """How many polynomials hold a contribution."""
        return -(-(plan.d + 1) // N)

    def encrypt(self, numbers: Numbers, plan: RoundPlan) -> Parts:
        """(c0, c1) = (b u + e0 + 2^(96 - t) m, a u + e1): of c0 the top 32 bits, rounded, 4 bytes a
        value; all of c1, 12 bytes.
        """
        k, shift = self.blocks(plan), 32 - plain_bits(plan, self.top)
        message = np.zeros((k, N), dtype=np.int64)
        message.reshape(-1)[: len(numbers)] = numbers << shift
        a, b = _spectra(self.seed, self.b.tobytes())
        c0, c1 = np.empty((k, N), dtype=np.uint32), np.empty((LIMBS, k, N), dtype=np.uint32)
        stream = Stream()
        for start in range(0, k, BLOCK):
            block = slice(start, min(start + BLOCK, k))
            here = block.stop - start
            u = spectrum(stream.ternary(here))
            low, middle, high = product(u, b)
            c0[block] = top(low + stream.error(here), middle, high + message[block])
            low, middle, high = product(u, a)
            c1[:, block] = carried(low + stream.error(here), middle, high)
        return c0.astype("<u4", copy=False).tobytes(), to_bytes(c1)

    def check(self, ciphertext: Parts, plan: RoundPlan) -> None:
        """Refuse another length: any words of the right number are a ciphertext.

        Raises:
            Refused: and why.
        """
        k = self.blocks(plan)
        if (
            len(ciphertext) != 2
            or len(ciphertext[0]) != 4 * k * N
            or len(ciphertext[1]) != 4 * LIMBS * k * N
        ):
            raise Refused(f"not {k} ciphertexts of this scheme")

    def add(self, ciphertexts: Sequence[Parts], plan: RoundPlan) -> Parts:
        """Both halves.

        Raises:
            Refused: nothing to add, or no ciphertext of this scheme.
        """
        for ciphertext in ciphertexts:
            self.check(ciphertext, plan)
        return add_c0([c[0] for c in ciphertexts]), self.add_c1([c[1] for c in ciphertexts], plan)

    def add_c1(self, halves: Sequence[bytes | bytearray | memoryview], plan: RoundPlan) -> bytes:
        """The halves that decryptors add.

        Raises:
            Refused: nothing to add, or another length.
        """
        if not halves:
            raise Refused("there is nothing to add")
        return to_bytes(summed([from_bytes(half, self.blocks(plan)) for half in halves]))

    def opened(self, c0: bytes, partials: Sequence[bytes | memoryview], plan: RoundPlan) -> Numbers:
        """The signed sums [d + 1], from the summed c0 and parts that together make s c1.

        Raises:
            Refused: a part has another length.
        """
        k, bits = self.blocks(plan), plain_bits(plan, self.top)
        total = summed([from_bytes(part, k) for part in partials])
        top = np.frombuffer(c0, dtype="<u4").reshape(k, N) + total[2]
        rounded = (top + np.uint32(1 << (31 - bits))).view(np.int32) >> (32 - bits)
        numbers: Numbers = rounded.reshape(-1)[: plan.d + 1].astype(np.int64)
        return numbers


def add_c0(halves: Sequence[bytes | bytearray | memoryview]) -> bytes:
    """The halves that the server adds: 32-bit words that wrap."""
    total = np.frombuffer(halves[0], dtype="<u4").copy()
    for half in halves[1:]:
        total += np.frombuffer(half, dtype="<u4")
    return total.tobytes()


@lru_cache(maxsize=4)
def _spectra(seed: bytes, b: bytes) -> tuple[torch.Tensor, torch.Tensor]:
    return spectrum(uniform_from(seed)), spectrum(
        np.frombuffer(b, dtype=np.uint32).reshape(LIMBS, 1, N)
    )


def to_bytes(words: Words) -> bytes:
    """Limbs as they travel."""
    return words.astype("<u4", copy=False).tobytes()


def from_bytes(data: bytes | bytearray | memoryview, k: int) -> Words:
    """Limbs [3, k, N].

    Raises:
        Refused: another length.
    """
    if len(data) != 4 * LIMBS * k * N:
        raise Refused(f"{len(data)} bytes are not {k} polynomials")
    return np.frombuffer(data, dtype="<u4").astype(np.uint32, copy=False).reshape(LIMBS, k, N)


class TernaryPart(KeepsSecrets):
    """One ternary piece of the secret."""

    def __init__(self, coefficients: Small | None = None) -> None:
        self.coefficients = Stream().ternary(1)[0] if coefficients is None else coefficients

    def to_bytes(self) -> bytes:
        """For a sealed box."""
        return self.coefficients.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> TernaryPart:
        """Read a piece.

        Raises:
            Refused: it is none.
        """
        coefficients = np.frombuffer(data, dtype=np.int8).copy()
        if coefficients.shape != (N,) or np.abs(coefficients).max() > 1:
            raise Refused("not a piece of a key")
        return cls(coefficients)

    def public(self, seed: bytes) -> Words:
        """Its contribution -(a s) + e to the joint key, [3, 1, N]."""
        done = -product(spectrum(uniform_from(seed)), spectrum(self.coefficients))
        done[0] += Stream().error(1)
        return carried(done[0], done[1], done[2])

    def fits(self, contribution: Words, seed: bytes) -> bool:
        """Whether a contribution is one of this piece: b + a s is a small error."""
        done = product(
            spectrum(uniform_from(seed)), spectrum(self.coefficients)
        ) + contribution.astype(np.int64)
        error = carried(done[0], done[1], done[2])
        small = error[0].view(np.int32)
        signs = (small >> 31).view(np.uint32)
        return bool(
            (np.abs(small) <= ERROR).all()
            and (error[1] == signs).all()
            and (error[2] == signs).all()
        )


def partial(
    held: Sequence[TernaryPart], c1: bytes | memoryview, k: int, smudge_bits: int | None
) -> bytes:
    """(the sum of these pieces) c1 + noise: what a decryptor answers. Without smudging for a
    coalition that decrypts by itself.

    Raises:
        ConfigError: no pieces.
    """
    if not held:
        raise ConfigError("a part of a decryption needs at least one piece of the key.")
    small = spectrum(np.sum([piece.coefficients.astype(np.int64) for piece in held], axis=0))
    blur = None if smudge_bits is None else Stream().smudge(k, smudge_bits)
    return to_bytes(times(from_bytes(c1, k), small, blur))
