"""What the dealer hands out: correlated randomness for one round, all of the first party's from a
seed of its own choice.

The dealer learns both servers' seeds and the clients' seeds, and no client's data: alone it knows
nothing, with either server all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from privfl.core import KeepsSecrets
from privfl.crypto.mpc.beaver import Triple, UsedUp
from privfl.crypto.mpc.comparison import Ands, DaBits
from privfl.crypto.mpc.words import U64, expand
from privfl.crypto.primitives import Backend, derive
from privfl.crypto.primitives.fields import Malformed

ONE = np.uint64(1)
AND_ROWS = 13
"""Words of ANDs that one comparison takes."""


@dataclass(frozen=True, slots=True)
class Demand:
    """How much a round can take at most: comparisons, bits turned into numbers, products, inner
    products of rows, a hidden sum's length, words that fold bits, keys that authenticate weights.
    """

    signs: int = 0
    bits: int = 0
    triples: int = 0
    inner: int = 0
    weights: int = 0
    vector: int = 0
    folds: int = 0
    keys: int = 0

    def __add__(self, more: Demand) -> Demand:
        """Both together."""
        return Demand(*(a + b for a, b in zip(self._counts, more._counts, strict=True)))

    @property
    def _counts(self) -> tuple[int, ...]:
        rows = (self.signs, self.bits, self.triples, self.inner)
        return (*rows, self.weights, self.vector, self.folds, self.keys)

    @property
    def ands(self) -> int:
        """Words of ANDs: of comparisons, then of what folds many bits into one."""
        return AND_ROWS * self.signs + self.folds

    @property
    def macs(self) -> int:
        """Words of authentication: of each dealt weight and of its square, under each key."""
        return 2 * self.keys * self.weights

    @property
    def dealt(self) -> int:
        """Words that the second server cannot make from its seed."""
        return self.ands + self.bits + self.triples + self.inner + self.vector + self.macs


def derived_words(seed: bytes, purpose: str, length: int, library: Backend) -> U64:
    """Words that belong to one purpose of a seed."""
    return expand(derive(seed, b"two-server", purpose), length, library)


@dataclass(repr=False)
class Preprocessing(KeepsSecrets):
    """One server's share of it all; every word serves once.

    ``keys`` [keys] are shares of the keys that authenticate weights, ``macs`` [2, keys, weights]
    shares of each key's product with the dealt weights and with their squares.
    """

    ands: U64
    bits: U64
    triples: U64
    inner: U64
    weights: U64
    vector: U64
    keys: U64
    macs: U64
    folded: int = 0
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
        stock = self.ands[:, : self.ands.shape[1] - self.folded]
        a, b, c = self._next("comparisons", stock, AND_ROWS * n).reshape(3, AND_ROWS, n)
        return Ands(a, b, c)

    def folds(self, words: int) -> U64:
        """Shares [3, words] of random words a and b and of a & b."""
        return self._next("folds", self.ands[:, self.ands.shape[1] - self.folded :], words)

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
    ands = demand.ands
    return Preprocessing(
        ands=derived_words(seed, "ands", 3 * ands, library).reshape(3, ands),
        bits=derived_words(seed, "bits", 2 * demand.bits, library).reshape(2, demand.bits),
        triples=derived_words(seed, "triples", 3 * demand.triples, library).reshape(
            3, demand.triples
        ),
        inner=derived_words(seed, "inner", demand.inner, library),
        weights=derived_words(seed, "weights", demand.weights, library),
        vector=derived_words(seed, "vector", demand.vector, library),
        keys=derived_words(seed, "keys", demand.keys, library),
        macs=derived_words(seed, "macs", demand.macs, library).reshape(
            2, demand.keys, demand.weights
        ),
        folded=demand.folds,
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
    words, ands = np.frombuffer(dealt, dtype="<u8").astype(np.uint64, copy=False), demand.ands
    cuts = np.cumsum([ands, demand.bits, demand.triples, demand.inner, demand.vector])
    and_c, numbers, triple_c, inner, vector, macs = np.split(words, cuts)
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
        keys=derived_words(seed, "keys", demand.keys, library),
        macs=macs.reshape(2, demand.keys, demand.weights),
        folded=demand.folds,
    )


def correct(
    first: Preprocessing, seed: bytes, demand: Demand, library: Backend, inner: U64, vector: U64
) -> bytes:
    """The dealer's act: the second server's results, from both seeds and from the whole inner
    products and the whole hidden sum.
    """
    ands = demand.ands
    a, b = derived_words(seed, "ands", 2 * ands, library).reshape(2, ands)
    and_c = ((a ^ first.ands[0]) & (b ^ first.ands[1])) ^ first.ands[2]
    bits = (derived_words(seed, "bits", demand.bits, library) ^ first.bits[0]) & ONE
    x, y = derived_words(seed, "triples", 2 * demand.triples, library).reshape(2, demand.triples)
    triple_c = (x + first.triples[0]) * (y + first.triples[1]) - first.triples[2]
    weights = first.weights + derived_words(seed, "weights", demand.weights, library)
    keys = first.keys + derived_words(seed, "keys", demand.keys, library)
    macs = keys[:, None] * np.stack([weights, weights * weights])[:, None] - first.macs
    parts = (
        and_c,
        bits - first.bits[1],
        triple_c,
        inner - first.inner,
        vector - first.vector,
        macs.reshape(-1),
    )
    return b"".join(part.astype("<u8", copy=False).tobytes() for part in parts)
