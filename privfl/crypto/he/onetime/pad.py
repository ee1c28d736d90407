"""The one-time pad of ring learning with errors: b = a s + e + step * digits, with a public a that
follows from the round, and s and e short, fresh, and used once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

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
from privfl.crypto.primitives import backend
from privfl.crypto.primitives.stream import keystream, next_words

Sum = npt.NDArray[np.int64]
"""A sum of short vectors [N]."""
Running = npt.NDArray[np.uint64]
"""A running sum of encrypted contributions: limbs [blocks, 3, N], carries not yet moved up."""
_LOW = np.int64(0xFFFF)


class PublicPolynomials:
    """The polynomials a of a round, block after block: AES-128-CTR under SHAKE-256 of the round's
    facts (session, part, cohort, models) and number. Nobody picks them.
    """

    def __init__(self, topic: Topic) -> None:
        facts = topic.facts + topic.number.to_bytes(8, "little")
        key = hashlib.shake_256(b"privfl/onetime/a/2\x00" + facts).digest(16)
        self._stream = keystream(key, backend())

    def take(self, k: int) -> Words:
        """The next k of them, [3, k, N]."""
        words = next_words(self._stream, LIMBS * k * N, "<u4").reshape(k, LIMBS, N)
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
        words = self.stream.words(k * N, "<u8")
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
) -> Iterator[memoryview]:
    """A contribution [d + 1] under the one-time key ``short`` [N], which must be fresh: limbs
    [blocks, 3, N] as they travel, some blocks after the others.
    """
    public, errors, key = PublicPolynomials(topic), ShortStream(secrets), spectrum(short)
    weights = layout.weights
    moved_up = layout.top * np.array(weights, dtype=np.int64).sum(axis=0) - SHIFT
    for start in range(0, layout.blocks, BLOCK):
        stop = min(start + BLOCK, layout.blocks)
        limbs = shifted_product(spectrum(public.take(stop - start)), key)
        limbs[0] += errors.take(stop - start)
        limbs += moved_up[:, None, None]
        flat = torch.from_numpy(limbs).view(LIMBS, -1)
        for slot in range(layout.slots):
            first = slot * layout.blocks
            digits = torch.from_numpy(numbers[(first + start) * N : (first + stop) * N])
            for limb, weight in zip(flat, weights[slot], strict=True):
                if weight and len(digits):
                    limb[: len(digits)].add_(digits, alpha=weight)
        for half, blocks, place in _halves(start, stop, layout):
            some = numbers[layout.whole + place.start * N : layout.whole + place.stop * N]
            digits = torch.from_numpy(some + layout.top)
            first = (blocks.start - start) * N
            weight = 1 << 32 - (layout.sum_bits if half else layout.half_bits)
            flat[-1, first : first + len(digits)].add_(digits, alpha=weight)
        out = np.empty((stop - start, LIMBS, N), dtype="<u4")
        _settle(limbs, out.swapaxes(0, 1))
        yield out.data.cast("B")


def _halves(start: int, stop: int, layout: Layout) -> Iterator[tuple[int, slice, slice]]:
    """Which halves the blocks from ``start`` to ``stop`` hold: the low (0) or the high ones (1), in
    which blocks, and of which polynomials of those that lie in halves.
    """
    for half in (0, 1):
        shift = half * layout.halves
        first, last = max(start, shift), min(stop, shift + layout.halves)
        if first < last:
            yield half, slice(first, last), slice(first - shift, last - shift)


def _settle(limbs: npt.NDArray[np.int64], out: Words) -> None:
    """Limbs mod 2^96 of signed ones, whose carries travel upwards; the signed ones are used up."""
    for place in range(LIMBS):
        if place:
            limbs[place] += limbs[place - 1]
        np.copyto(out[place], limbs[place], casting="unsafe")  # conversion to 32 bits wraps
        limbs[place] >>= 32


def empty(layout: Layout) -> Running:
    """The sum of nothing."""
    return np.zeros((layout.blocks, LIMBS, N), dtype=np.uint64)


def add(total: Running, body: Buffer) -> None:
    """Add an encrypted contribution of the right size, in place."""
    total += np.frombuffer(body, dtype="<u4").reshape(total.shape)


def subtract(total: Running, body: Buffer) -> None:
    """Take one out again that was added."""
    total -= np.frombuffer(body, dtype="<u4").reshape(total.shape)


def fits(total: Running, short: Sum, topic: Topic, layout: Layout) -> bool:
    """Whether the first blocks of a running sum open under a sum of one-time keys."""
    return unmasked(total, short, topic, layout, blocks=1) is not None


def unmasked(
    total: Running, short: Sum, topic: Topic, layout: Layout, blocks: int | None = None
) -> Numbers | None:
    """The sums of the digits [capacity], from the running sum and the sum of the one-time keys;
    None where what is left below a step is no sum of so many errors in some coefficient, or the
    digits are more than there is room for. A wrong key leaves uniform numbers there.

    ``layout.reach`` bounds the errors; ``blocks``: look into the first so many alone.
    """
    out = np.empty(layout.capacity, dtype=np.int64)
    whole = out[: layout.whole].reshape(layout.slots, layout.blocks, N)
    split = out[layout.whole :].reshape(layout.halves, N)
    public, key = PublicPolynomials(topic), spectrum(short)
    last = layout.blocks if blocks is None else blocks
    for start in range(0, last, BLOCK):
        stop = min(start + BLOCK, last)
        here = total[start:stop].swapaxes(0, 1).astype(np.int64)
        here -= _long_product(public.take(stop - start), key)
        here[0] += layout.step // 2
        left = carried(*here)
        _take_halves(left[-1], split, start, stop, layout)
        digits, error = _divided(list(left[::-1].astype(np.uint64)), layout.step)
        if (np.abs(error.astype(np.int64) - layout.step // 2) > layout.reach).any():
            return None
        for slot in range(layout.slots):
            digits, digit = _divided(digits, layout.radix)
            whole[slot, start:stop] = digit
        if any(rest.any() for rest in digits):
            return None
    return out


def _take_halves(
    highest: npt.NDArray[np.uint32], split: Numbers, start: int, stop: int, layout: Layout
) -> None:
    """Move what lies in halves in these blocks from the highest limbs [blocks, N] to where it
    belongs [halves, N].
    """
    for half, blocks, place in _halves(start, stop, layout):
        limb = highest[blocks.start - start : blocks.stop - start]
        if half:  # whose low bits are known from earlier blocks
            limb -= (split[place] << 32 - layout.sum_bits).astype(np.uint32)
            rest = 32 - layout.sum_bits + layout.half_bits
            split[place] += (limb >> rest).astype(np.int64) << layout.half_bits
        else:
            rest = 32 - layout.half_bits
            split[place] = limb >> rest
        limb &= (1 << rest) - 1


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
    numbers: Numbers = digits[:length] - count * layout.top
    return numbers
