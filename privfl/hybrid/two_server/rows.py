"""Rows as each party holds them, column block by column block: masked vectors, seeds, and what is
computed in one pass over them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int8
from torch import Tensor

from privfl.core import KeepsSecrets
from privfl.crypto.mpc import Shared
from privfl.crypto.mpc.digits import gram, product, split, times, weighed
from privfl.crypto.mpc.preprocessing import derived_words
from privfl.crypto.mpc.words import I64, U64, draw, stream, stream_from
from privfl.crypto.primitives import derive
from privfl.crypto.primitives.backend import Keystream
from privfl.hybrid.two_server.parameters import TwoServerParameters
from privfl.hybrid.two_server.registers import CLAIMED, DOTS, INNER, TESTS

_TAIL = 16
_FOUR = (np.arange(256)[:, None] >> np.array([0, 2, 4, 6])) & 3
_COINS = ((_FOUR & 1) - (_FOUR >> 1)).astype(np.int8).view(np.uint32).reshape(256)
"""A byte as four coins of {0, 1, -1, 0}."""
DIRECTION_DIGITS = 3
"""Base-256 digits of a direction's entries, which are under 2^22."""


def cuts(now: TwoServerParameters, n: int) -> list[tuple[int, int]]:
    """The column blocks of n rows: of the d values, then each word that comes after them on its
    own.
    """
    width, d = now.width(n), now.plan.d
    blocks = [(start, min(start + width, d)) for start in range(0, d, width)]
    return blocks + [(at, at + 1) for at in range(d, now.words)]


@runtime_checkable
class RowBlocks(Protocol):
    """Rows that are handed out block by block."""

    def blocks(self, now: TwoServerParameters, first: int = 0) -> Iterator[tuple[int, int, U64]]:
        """Start, stop and words [n, width] of each block from the ``first`` on, in one buffer that
        is used again.
        """
        ...


@runtime_checkable
class Covers(Protocol):
    """The mask of the first server's rows, block by block."""

    def blocks(
        self, now: TwoServerParameters, n: int, first: int = 0
    ) -> Iterator[tuple[int, int, U64]]:
        """Start, stop and words [n, width] of each block of values from the ``first`` on."""
        ...


@dataclass(repr=False)
class MaskedRows(KeepsSecrets):
    """The first server's: each client's vector minus its mask, packed as it came."""

    bodies: list[npt.NDArray[np.uint8]]

    def blocks(self, now: TwoServerParameters, first: int = 0) -> Iterator[tuple[int, int, U64]]:
        """Start, stop and words [n, width] of each block from the ``first`` on, in one buffer that
        is used again.
        """
        n, length = len(self.bodies), now.words
        low = (
            [body[: 4 * length].view("<u4") for body in self.bodies]
            if now.ring < 64
            else [body.view("<u8") for body in self.bodies]
        )
        high = [body[4 * length :] for body in self.bodies] if now.ring == 40 else []
        room = np.empty(n * now.width(n), dtype=np.uint64)
        for start, stop in cuts(now, n)[first:]:
            block = room[: n * (stop - start)].reshape(n, stop - start)
            if high:
                halves = block.view(np.uint32).reshape(n, stop - start, 2)
                for half, lower, upper in zip(halves, low, high, strict=True):
                    half[:, 0] = lower[start:stop]
                    half[:, 1] = upper[start:stop]
            else:
                for row, words in zip(block, low, strict=True):
                    row[:] = words[start:stop]
            yield start, stop, block

    def last(self, now: TwoServerParameters) -> U64:
        """The words [words - d, n] that come after the values."""
        whole = [_tail(now, body) for body in self.bodies]
        return np.stack(whole, axis=1)


def _tail(now: TwoServerParameters, body: npt.NDArray[np.uint8]) -> U64:
    """The last words of one packed row."""
    if now.ring == 64:
        return body.view("<u8")[now.plan.d :].astype(np.uint64)
    low = body[: 4 * now.words].view("<u4")[now.plan.d :].astype(np.uint64)
    if now.ring == 32:
        return low
    return low | (body[4 * now.words :][now.plan.d :].astype(np.uint64) << np.uint64(32))


@dataclass(repr=False)
class SeedRows(KeepsSecrets):
    """The second server's and the dealer's: each client's mask, from its seed."""

    seeds: list[bytes]

    def blocks(self, now: TwoServerParameters, first: int = 0) -> Iterator[tuple[int, int, U64]]:
        """Start, stop and words [n, width] of each block from the ``first`` on, in one buffer that
        is used again.
        """
        n = len(self.seeds)
        left = cuts(now, n)[first:]
        streams = [stream(seed, now.library, 8 * left[0][0]) for seed in self.seeds]
        raw = np.empty(8 * n * now.width(n) + _TAIL, dtype=np.uint8)
        for start, stop in left:
            width = 8 * (stop - start)
            for i, source in enumerate(
                streams
            ):  # each writes a little over its end, where the next one writes after it
                source.fill(raw[i * width :], width)
            yield start, stop, raw[: n * width].view("<u8").reshape(n, stop - start)


@dataclass(repr=False)
class Veil(KeepsSecrets):
    """The mask A0 [n, d] of the first server's rows, from its own seed: known to it and to the
    dealer.
    """

    seed: bytes

    def blocks(
        self, now: TwoServerParameters, n: int, first: int = 0
    ) -> Iterator[tuple[int, int, U64]]:
        """Start, stop and words [n, width] of each block of values from the ``first`` on."""
        left = cuts(now, n)[first:]
        source = stream(derive(self.seed, b"two-server", "veil"), now.library, 8 * n * left[0][0])
        for start, stop in left:
            if start < now.plan.d:
                yield start, stop, draw(source, n * (stop - start)).reshape(n, stop - start)


@dataclass(repr=False)
class VeilOfSlots(KeepsSecrets):
    """The same mask where it was dealt ahead: a seed for each slot, so that any of them can be left
    out.
    """

    seeds: list[bytes]

    def blocks(
        self, now: TwoServerParameters, n: int, first: int = 0
    ) -> Iterator[tuple[int, int, U64]]:
        """Start, stop and words [n, width] of each block of values from the ``first`` on."""
        for start, stop, block in SeedRows(self.seeds).blocks(now, first):
            if start < now.plan.d:
                yield start, stop, block


@dataclass(repr=False)
class Survey(KeepsSecrets):
    """What one server computes of its own n rows in one pass: the joint coins' projections,
    products with a direction, inner products.
    """

    now: TwoServerParameters
    n: int
    coin: bytes
    direction: I64 | None

    def __post_init__(self) -> None:
        now, n = self.now, self.n
        self._coins: Keystream | None = None
        more = 0 if self.direction is None else DIRECTION_DIGITS
        self._parts = np.zeros((now.rows + more, now.digits * n), dtype=np.int64)
        self.inner: U64 = np.zeros((n, n) if self.all_pairs else n, dtype=np.uint64)
        self.weight: U64 = np.zeros(n, dtype=np.uint64)

    @property
    def all_pairs(self) -> bool:
        """Whether rows are multiplied with all others here: fixed rows are not."""
        return self.now.gram and not self.now.malicious

    def take(self, start: int, stop: int, block: U64) -> Int8[Tensor, "digits n width"] | None:
        """One block of the rows; its digits, or None where it is the weights."""
        now = self.now
        if start >= now.plan.d:
            self.weight = block[:, 0].copy()
            return None
        digits, left = split(block, now.digits), self._left(start, stop)
        self._parts += product(left, digits.reshape(now.digits * self.n, stop - start)).numpy()
        if self.all_pairs:
            self.inner += gram(digits)
        else:
            self.inner += np.einsum("nd,nd->n", block, block)
        return digits

    def _left(self, start: int, stop: int) -> Int8[Tensor, "rows width"]:
        rows, width = self.now.rows, stop - start
        size = -(-rows * width // 4)
        raw = np.empty(size + _TAIL, dtype=np.uint8)
        if self._coins is None:  # coins of whole blocks came before, four to a byte
            self._coins = stream(self.coin, self.now.library, rows * start // 4)
        self._coins.fill(raw, size)
        coins = torch.from_numpy(
            _COINS[raw[:size]].view(np.int8)[: rows * width].reshape(rows, width)
        )
        if self.direction is None:
            return coins
        words = self.direction[None, start:stop].view(np.uint64)
        return torch.cat([coins, split(words, DIRECTION_DIGITS)[:, 0]])

    def rest(self) -> None:
        """Forget where the coins are read: a stream does not sleep between two letters."""
        self._coins = None

    def shares(self) -> dict[Shared, U64]:
        """The own shares of every projection [rows, n], of the products with the direction [n]
        (none where there is none), of inner products and of weights.
        """
        products = weighed(self._parts.reshape(-1, self.now.digits, self.n))
        shifts = np.arange(len(products) - self.now.rows, dtype=np.uint64) * np.uint64(8)
        dots: U64 = (products[self.now.rows :] << shifts[:, None]).sum(axis=0, dtype=np.uint64)
        return {
            TESTS: products[: self.now.rows],
            DOTS: dots,
            INNER: self.inner,
            CLAIMED: self.weight,
        }


def twice(
    left: U64, right: U64, digits: Int8[Tensor, "digits n width"], now: TwoServerParameters
) -> U64:
    """Left right^T and its transpose, or twice the products row by row."""
    if now.gram:
        cross = times(split(left, now.digits), digits)
        return cross + cross.T
    own: U64 = np.einsum("nd,nd->n", left, right) << np.uint64(1)
    return own


def dealt(
    now: TwoServerParameters, rows: SeedRows, veil: Covers, v0: U64, v1: U64, key: U64
) -> tuple[U64, U64, U64]:
    """The dealer's pass: what A0 and A make of inner products, v1^T A0 + v0^T A where weights are
    hidden, A's products with a key.

    The last two have no entries where there are no weights or no key.
    """
    n = len(rows.seeds)
    inner: U64 = np.zeros((n, n) if now.gram else n, dtype=np.uint64)
    vector: U64 = np.zeros(now.plan.d if len(v0) else 0, dtype=np.uint64)
    tags: U64 = np.zeros(n if len(key) else 0, dtype=np.uint64)
    covers = veil.blocks(now, n)
    for start, stop, block in rows.blocks(now):
        if start < now.plan.d:
            _, _, cover = next(covers)
            inner += twice(
                cover,
                block,
                split(block, now.digits) if now.gram else torch.empty(0, 0, 0, dtype=torch.int8),
                now,
            )
            if len(v0):
                vector[start:stop] = combined(v1, cover) + combined(v0, block)
        if len(key):
            tags += np.einsum("nd,d->n", block, key[start:stop])
    return inner.reshape(-1), vector, tags


def tag_keys(now: TwoServerParameters, seed: bytes) -> U64:
    """The keys [sum_tags, length], from the first server's seed, under which the dealer tags the
    masks.
    """
    shape = (now.sum_tags, now.length)
    return derived_words(seed, "tag key", shape[0] * shape[1], now.library).reshape(shape)


def tag_key_blocks(now: TwoServerParameters, seed: bytes, n: int) -> Iterator[U64]:
    """The same keys [sum_tags, width], block by block of n rows: of their values, then of each word
    that comes after them and is summed.
    """
    own = derive(seed, b"two-server", "tag key")
    sources = [stream_from(own, now.library, k * now.length) for k in range(now.sum_tags)]
    for start, stop in cuts(now, n):
        if start < now.length:
            yield np.stack([draw(source, stop - start) for source in sources])


def blinds(now: TwoServerParameters, seed: bytes, n: int) -> U64:
    """What hides the tags of n rows [sum_tags, n] from the first server, from the second's seed."""
    words = derived_words(seed, "tag blinds", now.sum_tags * n, now.library)
    return words.reshape(now.sum_tags, n)


def combined(weights: U64, block: U64) -> U64:
    """weights^T block."""
    out: U64 = np.einsum("n,nd->d", weights, block)
    return out


def row_sum(now: TwoServerParameters, rows: RowBlocks, weights: U64) -> U64:
    """The products weights^T rows over all words that are summed, modulo 2^64 whatever the
    ring.
    """
    total: U64 = np.empty(now.length, dtype=np.uint64)
    for start, stop, block in rows.blocks(now):
        if start < now.length:
            total[start:stop] = combined(weights, block)
    return total
