"""Rows that clients fixed, as each server holds them, and one pass over them: products with public
vectors, tags of the other's, norms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from privfl.core import KeepsSecrets
from privfl.crypto.mpc.authentication import KEYS
from privfl.crypto.mpc.words import I64, U64
from privfl.hybrid.two_server.malicious.dealing import (
    Dealt,
    masks_of_scores,
    pad_blocks,
    tagged,
)
from privfl.hybrid.two_server.parameters import TwoServerParameters
from privfl.hybrid.two_server.registers import DOTS, INNER, TESTS
from privfl.hybrid.two_server.rows import MaskedRows, SeedRows, Survey


@dataclass(repr=False)
class FixedRows(KeepsSecrets):
    """The first server's: Y = E + A0, from what the clients fixed and the seeds of A0."""

    fixed: MaskedRows
    seeds: SeedRows

    def blocks(self, now: TwoServerParameters) -> Iterator[tuple[int, int, U64]]:
        """Start, stop and words [n, width] of each block, in one buffer that is used again."""
        for (start, stop, fixed), (_, _, mask) in zip(
            self.fixed.blocks(now), self.seeds.blocks(now), strict=True
        ):
            np.add(fixed, mask, out=fixed)
            yield start, stop, fixed


@dataclass(frozen=True, slots=True, repr=False)
class Products(KeepsSecrets):
    """What one server computed: products with the public vectors [products, n] of its rows,
    [products, K] of its pads and of the other's tags, its part of squared norms [n], and the words
    of its rows that come after the values [words - d, n].
    """

    rows: U64
    pads: U64
    tags: U64
    norms: U64
    last: U64

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
) -> Products:
    """One pass over a server's rows; ``remembered`` is what came of the direction in an earlier
    one.

    The first server's rows Y hold E, so the second adds R E to the tags of A0; E's products with A1
    are its part of norms.
    """
    n, first = len(fixed.bodies), isinstance(rows, FixedRows)
    survey = Survey(now, n + 2 * KEYS, coin, direction)
    pads, norms, last = pad_blocks(now, dealt.pads, n), dealt.inner.copy(), []
    known = fixed.blocks(now) if not first else None
    wide: U64 = np.empty((n + 2 * KEYS) * now.width(n), dtype=np.uint64)
    for start, stop, block in rows.blocks(now):
        public = None if known is None else next(known)[2]
        if start >= now.plan.d:
            last.append(block[:, 0].copy())
            continue
        room = wide[: (n + 2 * KEYS) * (stop - start)].reshape(-1, stop - start)
        room[:n], room[n : n + KEYS] = block, next(pads)
        room[n + KEYS :] = dealt.tags[:, start:stop]
        if public is not None:
            room[n + KEYS :] += tagged(dealt.row_keys, public)
            norms += np.einsum("nd,nd->n", public, block) << np.uint64(1)
        survey.take(start, stop, room)
    shares = survey.shares()
    dots = shares[DOTS].reshape(-1, n + 2 * KEYS)[: direction is not None]
    if remembered is not None:
        dots = remembered[None]
    found = np.concatenate([shares[TESTS], dots])
    return Products(
        found[:, :n],
        found[:, n : n + KEYS],
        found[:, n + KEYS :],
        norms + shares[INNER][:n],
        np.stack(last),
    )


@dataclass(repr=False)
class Fixed(KeepsSecrets):
    """What a server computes with where rows are fixed: the dealer's part, the own pass over the
    rows, the fixed words ``last`` [words - d, n] that come after the values, and the own shares
    ``scores`` [scores, n, WORDS] of the masks of what is opened.
    """

    dealt: Dealt
    products: Products
    last: U64
    scores: U64


def surveyed(
    now: TwoServerParameters,
    rows: FixedRows | SeedRows,
    fixed: MaskedRows,
    dealt: Dealt,
    coin: bytes,
    direction: I64 | None,
    remembered: U64 | None = None,
) -> Fixed:
    """One server's pass, and what it opens scores with."""
    own = products(now, rows, fixed, dealt, coin, direction, remembered)
    last = fixed.last(now)
    masks = own.last - last if isinstance(rows, FixedRows) else own.last
    scores = masks_of_scores(dealt.announced, masks, dealt.above, now.ring)
    return Fixed(dealt, own, last, np.concatenate([scores[..., None], dealt.score_macs], axis=-1))
