"""What the dealer hands out for a rule, beyond the rows: words that it alone knows, authenticated,
and comparisons with words that it alone knows.

All that two servers know of fixed rows is public words less masks of which the dealer knows every
function. So whatever is a polynomial in such a value is linear in words that the dealer can deal:
the mask, its square, its products with hidden bits. A comparison's outcome b is opened as b xor a
dealt bit, which is uniform, and is linear in this bit again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from privfl.core import Buffer, KeepsSecrets
from privfl.crypto.mpc.authentication import KEYS
from privfl.crypto.mpc.dcf import Corrections, evaluate, generate
from privfl.crypto.mpc.preprocessing import derived_words
from privfl.crypto.mpc.wide import Integers, halves, numbers
from privfl.crypto.mpc.words import U64
from privfl.crypto.primitives import derive
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.parameters import TwoServerParameters

_ONE, _TWO = np.uint64(1), np.uint64(2)


@dataclass(frozen=True, slots=True)
class Words:
    """So many words that the dealer knows, under the first ``keys`` keys."""

    count: int
    keys: int = KEYS


@dataclass(frozen=True, slots=True)
class WideWords:
    """So many words of which all 64 bits count."""

    count: int


@dataclass(frozen=True, slots=True)
class Comparisons:
    """So many comparisons of public words of ``levels`` bits, whose outcomes carry ``keys``."""

    count: int
    levels: int
    keys: int = KEYS


Item = Words | WideWords | Comparisons


@dataclass(frozen=True, slots=True, repr=False)
class Compared(KeepsSecrets):
    """What the dealer knows of comparisons [m]: public x gives ``scale`` times (x < ``alpha``, the
    other way round where ``flip`` is 1).
    """

    alpha: U64
    flip: U64
    scale: U64


@dataclass(frozen=True, slots=True, repr=False)
class Masks(KeepsSecrets):
    """What the dealer knows, modulo the ring, of what both servers know: a product with the
    direction or of two rows, or a norm that a client dealt, is public plus its mask: ``dots`` [n],
    ``norms`` [n], ``pairs`` [n, n]. ``weights`` [n] hide those of the sum, where they stay shared.
    """

    dots: U64
    norms: U64
    pairs: U64
    weights: U64


@dataclass(frozen=True, slots=True, repr=False)
class Joint(KeepsSecrets):
    """Words that both servers' seeds make and neither knows."""

    seeds: tuple[bytes, bytes]
    now: TwoServerParameters

    def words(self, purpose: str, count: int) -> U64:
        """Uniform words of one purpose."""
        one, two = (
            derived_words(seed, f"joint {purpose}", count, self.now.library) for seed in self.seeds
        )
        return one + two

    def bits(self, purpose: str, count: int) -> U64:
        """Uniform bits of one purpose."""
        return self.words(purpose, count) & _ONE

    def of_first(self, purpose: str) -> int:
        """A uniform integer of 128 bits that the first server knows."""
        return blind_of(self.seeds[0], self.now, purpose)

    def integers(self, purpose: str, count: int) -> Integers:
        """Uniform integers of 128 bits of one purpose."""
        return numbers(self.words(purpose, 2 * count).reshape(count, 2))


def blind_of(seed: bytes, now: TwoServerParameters, purpose: str) -> int:
    """A uniform integer of 128 bits from a server's seed."""
    words = derived_words(seed, f"blind {purpose}", 2, now.library)
    return int(numbers(words[None])[0])


Known = Mapping[str, U64 | Integers | Compared]


@runtime_checkable
class RuleStock(Protocol):
    """What a rule takes of the dealer beyond its rows."""

    @property
    def most(self) -> int:
        """The most rows for which there is so much; 0: any number."""
        ...

    def items(self, now: TwoServerParameters, n: int) -> Mapping[str, Item]:
        """What there is for n rows, by name."""
        ...

    def known(self, now: TwoServerParameters, n: int, masks: Masks, joint: Joint) -> Known:
        """What the dealer knows of each."""
        ...


@dataclass(frozen=True, slots=True)
class Nothing:
    """A rule that needs nothing but its rows (a `RuleStock`)."""

    @property
    def most(self) -> int:
        """Any number."""
        return 0

    def items(self, now: TwoServerParameters, n: int) -> Mapping[str, Item]:
        """None."""
        return {}

    def known(self, now: TwoServerParameters, n: int, masks: Masks, joint: Joint) -> Known:
        """Nothing."""
        return {}


@dataclass(frozen=True, slots=True, repr=False)
class Compare(KeepsSecrets):
    """One server's part of comparisons [m]: where they start [m, 2], constants [m, 1 + keys]."""

    starts: U64
    corrections: Corrections
    constants: U64

    def at(self, now: TwoServerParameters, first: bool, points: U64) -> U64:
        """The own shares [m, 1 + keys] of the outcomes at public points [m]."""
        levels = len(self.corrections.nodes)
        low = points & np.uint64((1 << levels) - 1)
        permute = now.library.permutation(comparison_key(now))
        found = evaluate(int(not first), self.starts, self.corrections, low[None], permute)
        outcomes: U64 = found[0] + self.constants
        return outcomes


@dataclass(frozen=True, slots=True, repr=False)
class Stocked(KeepsSecrets):
    """One server's part of it all, by name: words [m, 1 + keys], halves [m, 2, 2] of wide words,
    comparisons.
    """

    words: Mapping[str, U64]
    compare: Mapping[str, Compare]


def comparison_key(now: TwoServerParameters) -> bytes:
    """The public key of the permutation that comparisons are made with in this round."""
    return derive(now.tag, b"two-server", "comparisons")[:16]


def outcome_of(known: U64, ring: int, rho: U64 | None = None, scale: U64 | None = None) -> Compared:
    """What tells whether P - ``known`` is below zero in so many bits, for a P that is public later;
    xor ``rho``. The top bit of P turns it around (`turned`).
    """
    low = known & np.uint64((1 << (ring - 1)) - 1)
    top = (known >> np.uint64(ring - 1)) & _ONE
    flip = top if rho is None else top ^ rho
    return Compared(low, flip, np.ones_like(low) if scale is None else scale)


def both_outcomes(one: Compared, other: Compared) -> Compared:
    """All of the one's comparisons, then all of the other's."""
    pairs = ((one.alpha, other.alpha), (one.flip, other.flip), (one.scale, other.scale))
    return Compared(*(np.concatenate(pair) for pair in pairs))


def turned(outcomes: U64, points: U64, ring: int, one: U64) -> U64:
    """The outcomes [..., 1 + keys] of `outcome_of` at these points [...]; ``one``: their scale's
    shares.
    """
    top = ((points >> np.uint64(ring - 1)) & _ONE).astype(bool)
    found: U64 = np.where(top[..., None], one - outcomes, outcomes)
    return found


def _shape(item: Item) -> tuple[int, ...]:
    if isinstance(item, WideWords):
        return (item.count, 2, 2)
    return (item.count, 1 + item.keys)


def _drawn(now: TwoServerParameters, seed: bytes, name: str, *shape: int) -> U64:
    length = int(np.prod(shape))
    return derived_words(seed, f"stock {name}", length, now.library).reshape(shape)


def _starts(now: TwoServerParameters, seed: bytes, name: str, item: Comparisons) -> U64:
    return _drawn(now, seed, f"{name} starts", item.count, 2)


def stock_size(stock: RuleStock, now: TwoServerParameters, n: int) -> int:
    """Bytes of what `deal` sends to the second server, which is sent more than the first."""
    size = 0
    for item in stock.items(now, n).values():
        size += 8 * math.prod(_shape(item))
        if isinstance(item, Comparisons):
            size += Corrections.size(item.levels, item.count, 1 + item.keys)
    return size


def deal(
    stock: RuleStock, now: TwoServerParameters, masks: Masks, keys: U64, wide_key: int, joint: Joint
) -> tuple[list[Buffer], list[Buffer]]:
    """What the dealer sends to both servers, and more to the second, piece by piece: ``keys`` [K]
    and ``wide_key`` are whole here.

    Raises:
        Malformed: the rule knows a comparison where it takes words.
    """
    n = len(masks.norms)
    items = stock.items(now, n)
    known = stock.known(now, n, masks, joint) if items else {}
    first, second = joint.seeds
    both: list[Buffer] = []
    theirs: list[Buffer] = []
    for name, item in items.items():
        told, own = known[name], _drawn(now, first, name, *_shape(item))
        values = np.concatenate([[_ONE], keys])[: own.shape[1]]
        if isinstance(told, Compared):
            if not isinstance(item, Comparisons):
                raise Malformed(f"{name} is no comparison")
            starts = np.stack([_starts(now, seed, name, item) for seed in (first, second)])
            payload = (told.scale * (_ONE - _TWO * told.flip))[:, None] * values
            permute = now.library.permutation(comparison_key(now))
            both += generate(told.alpha, payload, starts, item.levels, permute).pieces()
            rest = (told.scale * told.flip)[:, None] * values - own
        elif isinstance(item, WideWords):
            whole = np.stack([told, told.astype(object) * wide_key], axis=1)
            rest = halves(whole - numbers(own))
        else:
            rest = told.astype(np.uint64)[:, None] * values - own
        theirs.append(rest.astype("<u8", copy=False).tobytes())
    return both, theirs


def receive(
    stock: RuleStock, now: TwoServerParameters, n: int, seed: bytes, first: bool, raw: memoryview
) -> Stocked:
    """One server's part, from its seed and the dealer's letter.

    Raises:
        Malformed: the letter is of another length.
    """
    items = stock.items(now, n)
    made: dict[str, Corrections] = {}
    for name, item in items.items():
        if isinstance(item, Comparisons):
            size = Corrections.size(item.levels, item.count, 1 + item.keys)
            made[name] = Corrections.from_bytes(raw[:size], item.levels, item.count, 1 + item.keys)
            raw = raw[size:]
    words: dict[str, U64] = {}
    compare: dict[str, Compare] = {}
    for name, item in items.items():
        shape = _shape(item)
        if first:
            own = _drawn(now, seed, name, *shape)
        else:
            size = 8 * int(np.prod(shape))
            if len(raw) < size:
                raise Malformed("it is cut off")
            own = np.frombuffer(raw[:size], dtype="<u8").astype(np.uint64, copy=False)
            own, raw = own.reshape(shape), raw[size:]
        if isinstance(item, Comparisons):
            compare[name] = Compare(_starts(now, seed, name, item), made[name], own)
        else:
            words[name] = own
    if len(raw):
        raise Malformed("it is too long")
    return Stocked(words, compare)
