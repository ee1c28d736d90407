"""What the dealer hands out: correlated randomness for one round, all of the first server's from a
seed of its own choice.

The dealer learns both servers' seeds and the clients' seeds, and no client's data: alone it knows
nothing, with either server all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from privfl.core import KeepsSecrets
from privfl.crypto.primitives import Backend, derive
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.sharing import Ands, DaBits, Triple, UsedUp
from privfl.hybrid.two_server.ring_codec import U64, expand

ONE = np.uint64(1)
AND_ROWS = 13
"""Words of ANDs that one comparison takes."""


@dataclass(frozen=True, slots=True)
class Demand:
    """How much a round can take at most: comparisons, bits turned into numbers, products, inner
    products of rows, a hidden sum's length.
    """

    signs: int = 0
    bits: int = 0
    triples: int = 0
    inner: int = 0
    weights: int = 0
    vector: int = 0

    @property
    def dealt(self) -> int:
        """Words that the second server cannot make from its seed."""
        return AND_ROWS * self.signs + self.bits + self.triples + self.inner + self.vector


def derived_words(seed: bytes, purpose: str, length: int, library: Backend) -> U64:
    """Words that belong to one purpose of a seed."""
    return expand(derive(seed, b"two-server", purpose), length, library)


@dataclass(repr=False)
class Preprocessing(KeepsSecrets):
    """One server's share of it all; every word serves once."""

    ands: U64
    bits: U64
    triples: U64
    inner: U64
    weights: U64
    vector: U64
    used: dict[str, int] = field(default_factory=dict)

    def _next(self, what: str, stock: U64, length: int) -> U64:
        start = self.used.get(what, 0)
        if start + length > stock.shape[1]:
            raise UsedUp(
                f"the dealer's {what} of this round are used up: {length} more were asked for."
            )
        self.used[what] = start + length
        return stock[:, start : start + length]

    def comparison(self, n: int) -> Ands:
        """ANDs for n comparisons."""
        a, b, c = self._next("comparisons", self.ands, AND_ROWS * n).reshape(3, AND_ROWS, n)
        return Ands(a, b, c)

    def dabits(self, n: int) -> DaBits:
        """N random bits in both sharings."""
        bits, numbers = self._next("bits", self.bits, n)
        return DaBits(bits & ONE, numbers)

    def triple(self, n: int) -> Triple:
        """Triples for n products."""
        a, b, c = self._next("triples", self.triples, n)
        return Triple(a, b, c)


def first_preprocessing(seed: bytes, demand: Demand, library: Backend) -> Preprocessing:
    """The first server's: everything from its seed."""
    ands = AND_ROWS * demand.signs
    return Preprocessing(
        ands=derived_words(seed, "ands", 3 * ands, library).reshape(3, ands),
        bits=derived_words(seed, "bits", 2 * demand.bits, library).reshape(2, demand.bits),
        triples=derived_words(seed, "triples", 3 * demand.triples, library).reshape(
            3, demand.triples
        ),
        inner=derived_words(seed, "inner", demand.inner, library),
        weights=derived_words(seed, "weights", demand.weights, library),
        vector=derived_words(seed, "vector", demand.vector, library),
    )


def second_preprocessing(
    seed: bytes, dealt: memoryview, demand: Demand, library: Backend
) -> Preprocessing:
    """The second server's: operands from its seed, results from the dealer.

    Raises:
        Malformed: the dealer sent too much or too little.
    """
    if len(dealt) != 8 * demand.dealt:
        raise Malformed(f"{len(dealt)} bytes where {8 * demand.dealt} were to be dealt")
    words, ands = (
        np.frombuffer(dealt, dtype="<u8").astype(np.uint64, copy=False),
        AND_ROWS * demand.signs,
    )
    cuts = np.cumsum([ands, demand.bits, demand.triples, demand.inner])
    and_c, numbers, triple_c, inner, vector = np.split(words, cuts)
    return Preprocessing(
        ands=np.vstack([derived_words(seed, "ands", 2 * ands, library).reshape(2, ands), and_c]),
        bits=np.vstack([derived_words(seed, "bits", demand.bits, library), numbers]),
        triples=np.vstack(
            [
                derived_words(seed, "triples", 2 * demand.triples, library).reshape(
                    2, demand.triples
                ),
                triple_c,
            ]
        ),
        inner=inner,
        weights=derived_words(seed, "weights", demand.weights, library),
        vector=vector,
    )


def tag_key(seed: bytes, length: int, library: Backend) -> U64:
    """The key, from the first server's seed, under which the dealer tags the masks."""
    return derived_words(seed, "tag key", length, library)


def blinds(seed: bytes, n: int, library: Backend) -> U64:
    """What hides the tags of n rows from the first server, from the second's seed."""
    return derived_words(seed, "tag blinds", n, library)


def correct(
    first: Preprocessing, seed: bytes, demand: Demand, library: Backend, inner: U64, vector: U64
) -> bytes:
    """The dealer's act: the second server's results, from both seeds and from the whole inner
    products and the whole hidden sum.
    """
    ands = AND_ROWS * demand.signs
    a, b = derived_words(seed, "ands", 2 * ands, library).reshape(2, ands)
    and_c = ((a ^ first.ands[0]) & (b ^ first.ands[1])) ^ first.ands[2]
    bits = (derived_words(seed, "bits", demand.bits, library) ^ first.bits[0]) & ONE
    x, y = derived_words(seed, "triples", 2 * demand.triples, library).reshape(2, demand.triples)
    triple_c = (x + first.triples[0]) * (y + first.triples[1]) - first.triples[2]
    parts = (and_c, bits - first.bits[1], triple_c, inner - first.inner, vector - first.vector)
    return b"".join(part.astype("<u8", copy=False).tobytes() for part in parts)
