"""Rows that clients fixed, as each server holds them, and one pass over them: products with public
vectors, tags of the other's, norms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int8
from torch import Tensor

from privfl.core import KeepsSecrets
from privfl.crypto.mpc.authentication import KEYS
from privfl.crypto.mpc.digits import gram, product, split
from privfl.crypto.mpc.words import I64, U64
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.fixed_dealing import Dealt, tagged
from privfl.hybrid.two_server.fixed_masks import masks_of_pairs, masks_of_scores, pad_blocks
from privfl.hybrid.two_server.parameters import TwoServerParameters
from privfl.hybrid.two_server.registers import DOTS, INNER, TESTS
from privfl.hybrid.two_server.rows import MaskedRows, SeedRows, Survey

_WIDE = 8
"""Digits of a word of 64 bits."""


@dataclass(repr=False)
class FixedRows(KeepsSecrets):
    """The first server's: Y = E + A0, from what the clients fixed and the seeds of A0."""

    fixed: MaskedRows
    seeds: SeedRows

    def blocks(self, now: TwoServerParameters, first: int = 0) -> Iterator[tuple[int, int, U64]]:
        """Start, stop and words [n, width] of each block from the ``first`` on, in one buffer that
        is used again.
        """
        for (start, stop, fixed), (_, _, mask) in zip(
            self.fixed.blocks(now, first), self.seeds.blocks(now, first), strict=True
        ):
            np.add(fixed, mask, out=fixed)
            yield start, stop, fixed


@dataclass(repr=False)
class AllPairs(KeepsSecrets):
    """Products of n fixed rows with m rows of words modulo 2^64, and with each other modulo the
    ring, block by block. What a fixed row stands for are its signed digits.
    """

    now: TwoServerParameters
    n: int
    m: int

    def __post_init__(self) -> None:
        self._short = self.now.ring // 8
        self._parts = np.zeros((self._short * self.n, _WIDE * self.m), dtype=np.int64)
        self.fixed: U64 = np.zeros((self.n, self.n), dtype=np.uint64)

    def take(self, block: U64, digits: Int8[Tensor, "digits m width"]) -> None:
        """One block of the fixed rows [n, width], and the digits of the others."""
        own = split(block, self._short)
        self.fixed += gram(own)
        width = block.shape[1]
        left, right = own.reshape(-1, width), digits.reshape(-1, width)
        self._parts += product(left.contiguous(), right.contiguous()).numpy()

    def words(self) -> U64:
        """The products [n, m]."""
        parts = self._parts.view(np.uint64).reshape(self._short, self.n, _WIDE, self.m)
        total: U64 = np.zeros((self.n, self.m), dtype=np.uint64)
        for i in range(self._short):
            for j in range(_WIDE - i):
                total += parts[i, :, j] << np.uint64(8 * (i + j))
        return total


@dataclass(frozen=True, slots=True, repr=False)
class FixedProducts(KeepsSecrets):
    """What one server computed: products with the public vectors [products, n] of its rows,
    [products, K] of its pads and of the other's tags, its part of squared norms [n], the words
    of its rows that come after the values [words - d, n], and products of the fixed rows [n, n]
    where these are public vectors, too.
    """

    rows: U64
    pads: U64
    tags: U64
    norms: U64
    last: U64
    fixed: U64

    def last_product(self) -> U64:
        """What came of the last public vector [n + 2 K]: of rows, pads, tags."""
        return np.concatenate([self.rows[-1], self.pads[-1], self.tags[-1]])


def products(
    now: TwoServerParameters,
    rows: FixedRows | SeedRows,
    fixed: MaskedRows,
    dealt: Dealt,
    coin: bytes,
    direction: I64 | None,
    remembered: U64 | None = None,
) -> FixedProducts:
    """One pass over a server's rows; ``remembered`` is what came of the direction in an earlier
    one.

    The first server's rows Y hold E, so the second adds R E to the tags of A0; E's products with A1
    are its part of norms.
    """
    n, first = len(fixed.bodies), isinstance(rows, FixedRows)
    survey = Survey(now, n + 2 * KEYS, coin, direction)
    pads, norms, last = pad_blocks(now, dealt.pads, n), dealt.inner.copy(), []
    pairs = AllPairs(now, n if now.gram else 0, n + 2 * KEYS)
    known = fixed.blocks(now) if now.gram or not first else None
    wide: U64 = np.empty((n + 2 * KEYS) * now.width(n), dtype=np.uint64)
    if dealt.tags is None:
        raise Malformed("its tags of rows are used up")
    tags = dealt.tags.blocks(now, n)
    for start, stop, block in rows.blocks(now):
        public = None if known is None else next(known)[2]
        if start >= now.plan.d:
            last.append(block[:, 0].copy())
            continue
        room = wide[: (n + 2 * KEYS) * (stop - start)].reshape(-1, stop - start)
        room[:n], room[n : n + KEYS] = block, next(pads)
        room[n + KEYS :] = next(tags)
        if public is not None and not first:
            room[n + KEYS :] += tagged(dealt.row_keys, public)
            norms += np.einsum("nd,nd->n", public, block) << np.uint64(1)
        digits = survey.take(start, stop, room)
        if now.gram and public is not None and digits is not None:
            pairs.take(public, digits)
    shares = survey.shares()
    dots = shares[DOTS].reshape(-1, n + 2 * KEYS)[: direction is not None]
    if remembered is not None:
        dots = remembered[None]
    found = np.concatenate([shares[TESTS], dots, pairs.words()])
    return FixedProducts(
        found[:, :n],
        found[:, n : n + KEYS],
        found[:, n + KEYS :],
        norms + shares[INNER][:n],
        np.stack(last),
        pairs.fixed,
    )


@dataclass(repr=False)
class Fixed(KeepsSecrets):
    """What a server computes with where rows are fixed: the dealer's part, the own pass over the
    rows, the fixed words ``last`` [words - d, n] that come after the values, and the own shares
    ``scores`` [scores, n, WORDS] and ``pairs`` [n, n, WORDS] of the masks of what is opened;
    ``rows`` are the fixed rows.
    """

    dealt: Dealt
    products: FixedProducts
    last: U64
    scores: U64
    pairs: U64
    rows: MaskedRows


def surveyed(
    now: TwoServerParameters,
    rows: FixedRows | SeedRows,
    fixed: MaskedRows,
    dealt: Dealt,
    coin: bytes,
    direction: I64 | None,
    remembered: U64 | None = None,
) -> Fixed:
    """One server's pass, and what it opens scores with; the tags of rows are of no use after it."""
    own = products(now, rows, fixed, dealt, coin, direction, remembered)
    last = fixed.last(now)
    masks = own.last - last if isinstance(rows, FixedRows) else own.last
    scores = masks_of_scores(dealt.announced, masks, dealt.above, now.ring)
    pairs = masks_of_pairs(dealt.announced, dealt.pairs, dealt.pairs_above, now.ring)
    return Fixed(
        replace(dealt, tags=None),
        own,
        last,
        np.concatenate([scores[..., None], dealt.score_macs], axis=-1),
        np.concatenate([pairs[..., None], dealt.pair_macs], axis=-1),
        fixed,
    )
