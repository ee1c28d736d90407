"""The one-time pad of ring learning with errors: b = a s + e + step * digits, with a public a that
follows from the round, and s and e short, fresh, and used once.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from privfl.core import Buffer
from privfl.crypto.he.mprlwe.ring import (
    BLOCK,
    LIMBS,
    SHIFT,
    N,
    Small,
    Words,
    carried,
    product,
    shifted_product,
    spectrum,
)
from privfl.crypto.he.mprlwe.sampling import Stream
from privfl.crypto.he.onetime.parameters import SIGMA, TAIL, Layout, Secrets
from privfl.crypto.he.wire import Numbers, Topic

Sum = npt.NDArray[np.int64]
"""A sum of short vectors [N]."""
Running = npt.NDArray[np.uint64]
"""A running sum of encrypted contributions: limbs [3, blocks, N], carries not yet moved up."""
_LOW = np.int64(0xFFFF)


class PublicPolynomials:
    """The polynomials a of a round, block after block: AES-128-CTR under SHAKE-256 of the round's
    facts (session, part, cohort, models) and number. Nobody picks them.
    """

    def __init__(self, topic: Topic) -> None:
        facts = topic.facts + topic.number.to_bytes(8, "little")
        key = hashlib.shake_256(b"privfl/onetime/a/1\x00" + facts).digest(16)
        self._cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def take(self, k: int) -> Words:
        """The next k of them, [3, k, N]."""
        raw = self._cipher.update(bytes(4 * LIMBS * k * N))
        words = np.frombuffer(raw, dtype="<u4").reshape(k, LIMBS, N)
        return np.ascontiguousarray(words.swapaxes(0, 1))


class ShortStream:
    """Secret short vectors from the operating system's randomness: centred binomial (magnitude at
    most 24), or discrete Gaussian cut at nine deviations.
    """

    def __init__(self, secrets: Secrets) -> None:
        self.secrets, self.stream = secrets, Stream()

    def take(self, k: int) -> Small:
        """Fresh ones [k, N]."""
        if self.secrets == "binomial":
            return self.stream.error(k)
        words = np.frombuffer(self.stream.bytes(8 * k * N), dtype="<u8")
        most = int(TAIL * SIGMA)
        values: Small = (np.searchsorted(_gaussian(), words, side="right") - most).astype(np.int8)
        return values.reshape(k, N)


@cache
def _gaussian() -> npt.NDArray[np.uint64]:
    """The cumulative table of the discrete Gaussian in 64 bits: how many words fall below each
    value.
    """
    most = int(TAIL * SIGMA)
    densities = [float(np.exp(-(x * x) / (2 * SIGMA**2))) for x in range(-most, most + 1)]
    whole, below = sum(densities), np.cumsum(densities[:-1])
    return np.array([min(int(x / whole * 2.0**64), (1 << 64) - 1) for x in below], dtype=np.uint64)


def encrypted(
    numbers: Numbers, short: Small, secrets: Secrets, topic: Topic, layout: Layout
) -> memoryview:
    """A contribution [d + 1] under the one-time key ``short`` [N], which must be fresh: limbs
    [3, blocks, N] as they travel.
    """
    out = np.empty((LIMBS, layout.blocks, N), dtype="<u4")
    public, errors, key = PublicPolynomials(topic), ShortStream(secrets), spectrum(short)
    moved_up = layout.top * np.array(layout.weights, dtype=np.int64).sum(axis=0) - SHIFT
    for start in range(0, layout.blocks, BLOCK):
        block = slice(start, min(start + BLOCK, layout.blocks))
        here = block.stop - start
        limbs = shifted_product(spectrum(public.take(here)), key)
        limbs[0] += errors.take(here)
        limbs += moved_up[:, None, None]
        flat = torch.from_numpy(limbs).view(LIMBS, here * N)
        for slot, weights in enumerate(layout.weights):
            first = (slot * layout.blocks + start) * N
            digits = torch.from_numpy(numbers[first : first + here * N])
            for limb, weight in zip(flat, weights, strict=True):
                if weight and len(digits):
                    limb[: len(digits)].add_(digits, alpha=weight)
        _settle(limbs, out[:, block])
    return out.data.cast("B")


def _settle(limbs: npt.NDArray[np.int64], out: Words) -> None:
    """Limbs mod 2^96 of signed ones, whose carries travel upwards; the signed ones are used up."""
    for place in range(LIMBS):
        if place:
            limbs[place] += limbs[place - 1]
        np.copyto(out[place], limbs[place], casting="unsafe")  # conversion to 32 bits wraps
        limbs[place] >>= 32


def empty(layout: Layout) -> Running:
    """The sum of nothing."""
    return np.zeros((LIMBS, layout.blocks, N), dtype=np.uint64)


def add(total: Running, body: Buffer) -> None:
    """Add an encrypted contribution of the right size, in place."""
    total += np.frombuffer(body, dtype="<u4").reshape(total.shape)


def subtract(total: Running, body: Buffer) -> None:
    """Take one out again that was added."""
    total -= np.frombuffer(body, dtype="<u4").reshape(total.shape)


def unmasked(
    total: Running, short: Sum, topic: Topic, layout: Layout, blocks: int | None = None
) -> Numbers | None:
    """The sum of the digits [slots, blocks, N], from the running sum and the sum of the one-time
    keys; None where what is left below a step is no sum of so many errors in some coefficient, or
    the digits are more than there is room for. A wrong key leaves uniform numbers there.

    ``layout.reach`` bounds the errors; ``blocks``: only the first so many.
    """
    count = layout.blocks if blocks is None else blocks
    out = np.empty((layout.slots, count, N), dtype=np.int64)
    public, key = PublicPolynomials(topic), spectrum(short)
    for start in range(0, count, BLOCK):
        block = slice(start, min(start + BLOCK, count))
        here = total[:, block].astype(np.int64)
        here -= _long_product(public.take(block.stop - start), key)
        here[0] += layout.step // 2
        digits, error = _divided(list(carried(*here)[::-1].astype(np.uint64)), layout.step)
        if (np.abs(error.astype(np.int64) - layout.step // 2) > layout.reach).any():
            return None
        for slot in range(layout.slots):
            digits, digit = _divided(digits, layout.radix)
            out[slot, block] = digit
        if any(rest.any() for rest in digits):
            return None
    return out


def _long_product(polynomials: Words, key: object) -> npt.NDArray[np.int64]:
    """Each polynomial times a sum of short vectors: in halves of limbs, because 32-bit limbs times
    a sum of more than ten is longer than a double holds.
    """
    halves = polynomials.astype(np.int64)
    low = product(spectrum(halves & _LOW), key)  # type: ignore[arg-type]
    high = product(spectrum(halves >> 16), key)  # type: ignore[arg-type]
    return low + (high << 16)


def _divided(
    limbs: list[npt.NDArray[np.uint64]], divisor: int
) -> tuple[list[npt.NDArray[np.uint64]], npt.NDArray[np.uint64]]:
    """Long division by a number of up to 32 bits: quotient and remainder; 32-bit limbs, the highest
    first, of which a highest that is zero everywhere is dropped.
    """
    by, shift = np.uint64(divisor), np.uint64(32)
    quotient: list[npt.NDArray[np.uint64]] = []
    rest = np.zeros_like(limbs[0])
    for limb in limbs:
        whole = (rest << shift) | limb
        part = whole // by
        rest = whole - part * by
        if quotient or part.any():
            quotient.append(part)
    return quotient or [np.zeros_like(rest)], rest


def integers(digits: Numbers, count: int, length: int, layout: Layout) -> Numbers:
    """The signed sums [d + 1] of ``count`` contributions."""
    numbers: Numbers = digits.reshape(-1)[:length] - count * layout.top
    return numbers
