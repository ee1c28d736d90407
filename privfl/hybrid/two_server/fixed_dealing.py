"""What the dealer hands out where rows are fixed, and what each server makes of it with its seed:
keys that authenticate, tags of rows, comparisons.

Of the masks A_b [n, d] of server b the other one holds a_b = R_b A_b + z_b for keys R_b [K, n] of
its own, padded by z_b [K, d] of server b's. For a public vector e server b announces

    h = <e, A_b> - mu [n]    and    g = <e, z_b> - nu [K],

and the other tests R_b h + g + omega = <e, a_b>, where omega = R_b mu + nu is dealt. A server that
announces anything else must know R_b times the difference; the pad hides all else (`fixed_checks`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from privfl.core import Buffer, KeepsSecrets
from privfl.crypto.mpc.authentication import KEYS, WORDS
from privfl.crypto.mpc.dcf import Corrections, generate
from privfl.crypto.mpc.digits import gram, split
from privfl.crypto.mpc.words import U64, ring_mask
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.fixed_masks import (
    Extent,
    Own,
    masks_of_compared,
    masks_of_pairs,
    masks_of_scores,
    pad_blocks,
)
from privfl.hybrid.two_server.fixed_stock import (
    Compared,
    Joint,
    Masks,
    Stocked,
    comparison_key,
    deal,
    outcome_of,
    receive,
    stock_size,
)
from privfl.hybrid.two_server.parameters import TwoServerParameters
from privfl.hybrid.two_server.rows import SeedRows, blinds, combined, cuts, tag_key_blocks
from privfl.hybrid.two_server.sealing import SealedWords, dealt_room, words_in

_ONE, _TWO = np.uint64(1), np.uint64(2)


@dataclass(frozen=True, slots=True, repr=False)
class Tags(KeepsSecrets):
    """The tags [K, d] that begin what the dealer sealed, opened block by block: there is one pass
    over them.
    """

    words: SealedWords

    def blocks(self, now: TwoServerParameters, n: int) -> Iterator[U64]:
        """The words [K, width] of each block of n rows."""
        sizes = [8 * (stop - start) for start, stop in cuts(now, n) if start < now.plan.d]
        of_keys = (self.words.after(8 * now.plan.d * k).pieces(sizes) for k in range(KEYS))
        for parts in zip(*of_keys, strict=True):
            yield np.stack([part.view("<u8") for part in parts]).astype(np.uint64, copy=False)


@dataclass(repr=False)
class Dealt(KeepsSecrets):
    """One server's part of it all.

    ``announced`` [products, n + K] are mu and nu of what it announces itself; ``row_keys`` [K, n],
    ``tags`` [K, d], until they are used, and ``offsets`` [products, K] check the other's; ``pads``
    is the seed of its z. ``keys`` [K] are its shares of what authenticates. ``score_macs`` [scores,
    n, K] and ``above`` [scores, n] belong to the masks of what is opened; so do, for products of
    rows where these are opened, ``pairs`` [n, n], ``pairs_above`` and ``pair_macs``. ``starts`` [m,
    2], ``corrections`` and ``constants`` [m, WORDS] are of m comparisons; ``inner`` [n] is of 2
    <A0, A1>. ``weights`` [n, WORDS] are v, authenticated, and ``vector`` [d] of v (A0 + A1), where
    weights stay shared. ``wide_key`` is a share of what authenticates wide words.
    """

    announced: U64
    row_keys: U64
    tags: Tags | None
    offsets: U64
    pads: bytes
    keys: U64
    above: U64
    score_macs: U64
    pairs: U64
    pairs_above: U64
    pair_macs: U64
    starts: U64
    corrections: Corrections
    constants: U64
    inner: U64
    weights: U64
    vector: U64
    decided: bool
    wide_key: int


@dataclass(repr=False)
class FixedDealing(KeepsSecrets):
    """The dealer's act: from both servers' seeds and the clients', what each server gets."""

    now: TwoServerParameters
    extent: Extent
    first: bytes
    second: bytes
    seeds: tuple[list[bytes], list[bytes]]
    rooms: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] = field(init=False)

    def __post_init__(self) -> None:
        own = Own(self.first, self.now, self.extent)
        of_first, of_second = (
            dealt_room(self.now, 8 * sum(map(math.prod, shapes(own, first))) + _stocked(own))
            for first in (True, False)
        )
        self.rooms = (of_first, of_second)

    def letters(self) -> tuple[list[Buffer], list[Buffer]]:
        """What goes to the first server and to the second, piece by piece."""
        now, extent = self.now, self.extent
        one, two = Own(self.first, now, extent), Own(self.second, now, extent)
        alpha = one.keys + two.keys
        weights = one.weights() + two.weights()
        a0, a1, inner, sums, lasts, pairs, vector = self._tags(one, two, weights)
        compared = sum(
            masks_of_compared(own, last) for own, last in zip((one, two), lasts, strict=True)
        )
        corrections, constants = self._comparisons(np.asarray(compared), alpha, one, two)
        scores = sum(
            masks_of_scores(own.announced, last, own.above(), now.ring)
            for own, last in zip((one, two), lasts, strict=True)
        )
        macs = np.asarray(scores)[..., None] * alpha - one.score_macs()
        nobody = np.zeros_like(pairs)
        products = [
            masks_of_pairs(own.announced, share, own.pairs_above(), now.ring)
            for own, share in ((one, pairs), (two, nobody))
        ]
        pair_macs = (products[0] + products[1])[..., None] * alpha - one.pair_macs()
        to_first = (a1, _offsets(one.row_keys, two.announced), sums)
        to_second = (
            a0,
            _offsets(two.row_keys, one.announced),
            macs,
            constants - one.constants(),
            inner - one.inner(),
            pairs - one.pairs(),
            pair_macs,
            weights[:, None] * alpha - one.weight_macs(),
            vector - one.vector(),
        )
        told = corrections.pieces()
        masks = Masks(
            (one.announced + two.announced)[-1, : extent.n],
            lasts[0][-1] + lasts[1][-1],
            (products[0] + products[1]) & ring_mask(now.ring),
            weights,
        )
        joint = Joint((self.first, self.second), now)
        both, theirs = deal(extent.stock, now, masks, alpha, one.wide_key + two.wide_key, joint)
        one_letter = [*_buffers(*to_first), *told, *both]
        return one_letter, [*_buffers(*to_second), *told, *both, *theirs]

    def _compared(self, masks: U64) -> Compared:
        """A value x is public as P = x - mask: it is compared as P with r = -mask."""
        return outcome_of((np.uint64(0) - masks).reshape(-1), self.now.ring)

    def _comparisons(self, masks: U64, alpha: U64, one: Own, two: Own) -> tuple[Corrections, U64]:
        told = self._compared(masks)
        values = np.concatenate([[_ONE], alpha])
        payload = (told.scale * (_ONE - _TWO * told.flip))[:, None] * values
        starts = np.stack([one.starts, two.starts])
        permute = self.now.library.permutation(comparison_key(self.now))
        return (
            generate(told.alpha, payload, starts, self.now.ring - 1, permute),
            (told.scale * told.flip)[:, None] * values,
        )

    def _tags(
        self, first: Own, second: Own, weights: U64
    ) -> tuple[U64, U64, U64, U64, tuple[U64, U64], U64, U64]:
        """One pass over the masks: a_0 for the second server, a_1 for the first, 2 <A0, A1>, what
        tags the sum of the A1, the masks [words - d, n] of what comes after a row's values,
        <A_i, A_j> of all pairs where they are asked for, and the sum of A0 + A1 under weights.
        """
        of_second, of_first = first.row_keys, second.row_keys
        now, n = self.now, self.extent.n
        keys = tag_key_blocks(now, self.first, n) if self.extent.tagged else None
        of_rows = (words_in(now, room, KEYS * now.plan.d) for room in self.rooms)
        a1, a0 = (words.reshape(KEYS, now.plan.d) for words in of_rows)
        inner: U64 = np.zeros(n, dtype=np.uint64)
        tags: U64 = np.zeros((now.sum_tags * self.extent.tagged, n), dtype=np.uint64)
        pads = zip(pad_blocks(now, first.pads, n), pad_blocks(now, second.pads, n), strict=True)
        lasts: tuple[list[U64], list[U64]] = ([], [])
        pairs: U64 = np.zeros((first.side, first.side), dtype=np.uint64)
        vector: U64 = np.zeros(first.hidden[1], dtype=np.uint64)
        ours, theirs = (SeedRows(seeds).blocks(now) for seeds in self.seeds)
        for (start, stop, one), (_, _, two) in zip(ours, theirs, strict=True):
            if start < now.plan.d:
                z0, z1 = next(pads)
                a0[:, start:stop] = tagged(of_first, one) + z0
                a1[:, start:stop] = tagged(of_second, two) + z1
                inner += np.einsum("nd,nd->n", one, two) << _ONE
                if len(vector):
                    vector[start:stop] = combined(weights, one + two)
                if len(pairs):
                    pairs += gram(split(one + two, now.ring // 8))
            else:
                lasts[0].append(one[:, 0].copy())
                lasts[1].append(two[:, 0].copy())
            if start < now.length and keys is not None:
                for k, key in enumerate(next(keys)):
                    tags[k] += np.einsum("nd,d->n", two, key)
        hidden = tags + blinds(now, self.second, n)[: len(tags)]
        return a0, a1, inner, hidden, (np.stack(lasts[0]), np.stack(lasts[1])), pairs, vector


def tagged(keys: U64, block: U64) -> U64:
    """The products keys [K, n] block [n, width]."""
    return np.stack([combined(key, block) for key in keys])


def _offsets(row_keys: U64, announced: U64) -> U64:
    n = row_keys.shape[1]
    of_rows = np.stack([combined(key, announced[:, :n].T) for key in row_keys], axis=1)
    return of_rows + announced[:, n:]


def _buffers(*parts: U64) -> list[Buffer]:
    """The words where they lie: tags of rows are as long as rows, and one sealed copy is enough."""
    whole = (np.ascontiguousarray(part, dtype="<u8") for part in parts if part.size)
    return [part.reshape(-1).data.cast("B") for part in whole]


def shapes(own: Own, first: bool) -> list[tuple[int, ...]]:
    """The shapes of what a server is dealt in words before comparisons."""
    now, extent = own.now, own.extent
    n, m, side = extent.n, extent.comparisons, own.side
    found: list[tuple[int, ...]] = [(KEYS, now.plan.d), (extent.products, KEYS)]
    of_second = [(extent.scores, n, KEYS), (m, WORDS), (n,), (side, side), (side, side, KEYS)]
    of_second += [(own.hidden[0], KEYS), (own.hidden[1],)]
    return found + ([(now.sum_tags * n * extent.tagged,)] if first else of_second)


def _stocked(own: Own) -> int:
    """Bytes of comparisons and of what the rule has, at most."""
    extent, now = own.extent, own.now
    size = Corrections.size(now.ring - 1, extent.comparisons, WORDS)
    return size + stock_size(extent.stock, now, extent.n)


def received(own: Own, first: bool, raw: SealedWords) -> tuple[Dealt, Stocked, U64]:
    """One server's part, from its seed and the dealer's letter; the rule's; and, for the first
    server, the tags [n] of the sum.

    Raises:
        Malformed: the letter is of another length.
    """
    now, extent = own.now, own.extent
    n, m, bulk = extent.n, extent.comparisons, 8 * KEYS * own.now.plan.d
    if len(raw) < bulk:
        raise Malformed("it is cut off")
    rest = raw.after(bulk)
    view, found = memoryview(rest.read(len(rest))), list[U64]()
    for shape in shapes(own, first)[1:]:
        size = 8 * math.prod(shape)
        if len(view) < size:
            raise Malformed("it is cut off")
        found.append(np.frombuffer(view[:size], dtype="<u8").astype(np.uint64).reshape(shape))
        view = view[size:]
    drawn = (own.score_macs, own.constants, own.inner, own.pairs, own.pair_macs)
    summed = (own.weight_macs, own.vector)
    own_words = [draw_it() for draw_it in (*drawn, *summed)] if first else found[1:]
    macs, constants, inner, pairs, pair_macs, weight_macs, vector = own_words
    size = Corrections.size(now.ring - 1, m, WORDS)
    dealt = Dealt(
        announced=own.announced,
        row_keys=own.row_keys,
        tags=Tags(raw),
        offsets=found[0],
        pads=own.pads,
        keys=own.keys,
        above=own.above(),
        score_macs=macs,
        pairs=pairs,
        pairs_above=own.pairs_above(),
        pair_macs=pair_macs,
        starts=own.starts,
        corrections=Corrections.from_bytes(view[:size], now.ring - 1, m, WORDS),
        constants=constants,
        inner=inner,
        weights=np.concatenate([own.weights()[:, None], weight_macs], axis=1),
        vector=vector,
        decided=extent.decided,
        wide_key=own.wide_key,
    )
    stock = receive(extent.stock, now, n, own.seed, first, view[size:])
    return dealt, stock, found[1] if first else np.zeros(0, dtype=np.uint64)
