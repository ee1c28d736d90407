"""The first server's masked rows on their way to the second: E = Y - A0, sealed block by block, in
one letter or, where that would be a second copy of all rows, in several. Each server looks at its
own rows in the same pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from privfl.core import KeepsSecrets
from privfl.crypto.mpc.words import U64, pack, packed_size, unpack
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.parameters import TwoServerParameters
from privfl.hybrid.two_server.rows import Covers, MaskedRows, SeedRows, Survey, cuts, twice

LETTER = 1 << 25
"""Bytes of masked rows that travel in one letter; more travel in letters of a quarter of that, or
in 64 where that would be more of them, so that no server needs room for them beside its own rows.
"""
_MOST = 64
_SEAL = 16


def letters(now: TwoServerParameters, n: int) -> list[int]:
    """How many blocks of n masked rows travel in each letter."""
    sizes, found = _sealed_sizes(now, n), [0]
    if sum(sizes) <= LETTER:
        return [len(sizes)]
    each = max(LETTER // 4, sum(sizes) // _MOST)
    room = each
    for size in sizes:
        if found[-1] and size > room:
            found.append(0)
            room = each
        found[-1] += 1
        room -= size
    return found


def first_letter(now: TwoServerParameters, n: int) -> int:
    """How many bytes of n masked rows travel in the first letter."""
    return sum(_sealed_sizes(now, n)[: letters(now, n)[0]])


def _sealed_sizes(now: TwoServerParameters, n: int) -> list[int]:
    """Bytes of each sealed block; rows of signs have none."""
    if now.signs:
        return []
    blocks = [stop - start for start, stop in cuts(now, n) if start < now.plan.d]
    return [packed_size(now.ring, n * width) + _SEAL for width in blocks]


@dataclass(repr=False)
class Veiling(KeepsSecrets):
    """The first server's pass: letters of E, and its own half of the survey. ``left`` is how many
    blocks go into each letter that is to come.
    """

    now: TwoServerParameters
    rows: MaskedRows
    veil: Covers
    survey: Survey
    key: bytes
    done: int = 0

    def __post_init__(self) -> None:
        self.left = letters(self.now, self.survey.n)

    def next_letter(self) -> list[bytes]:
        """The sealed blocks of the next letter; with the last one the survey is whole."""
        now, survey, sealed = self.now, self.survey, list[bytes]()
        count, *self.left = self.left
        covers = self.veil.blocks(now, survey.n, self.done)
        blocks = self.rows.blocks(now, self.done)
        for start, stop, block in islice(blocks, count if self.left else None):
            survey.take(start, stop, block)
            if start < now.plan.d:
                _, _, cover = next(covers)
                np.subtract(block, cover, out=cover)
                body, nonce = pack(cover.reshape(-1), now.ring), _nonce(self.done)
                sealed.append(now.library.seal(self.key, nonce, body, now.bound_to("masked")))
                self.done += 1
        survey.rest()
        return sealed


@dataclass(repr=False)
class Crossing(KeepsSecrets):
    """The second server's pass: its own half of the survey, with the products of E and its masks A
    added to the inner products, letter by letter.
    """

    now: TwoServerParameters
    rows: SeedRows
    survey: Survey
    key: bytes
    done: int = 0

    def __post_init__(self) -> None:
        self.left = letters(self.now, self.survey.n)

    def take(self, sealed: memoryview) -> None:
        """The blocks of the next letter; with the last one the survey is whole.

        Raises:
            Malformed: as `unveiled`.
        """
        now, survey = self.now, self.survey
        count, *self.left = self.left
        veils = unveiled(now, sealed, survey.n, self.key, self.done, count)
        blocks = self.rows.blocks(now, self.done)
        for start, stop, block in islice(blocks, count if self.left else None):
            digits = survey.take(start, stop, block)
            if digits is not None:
                survey.inner += twice(next(veils), block, digits, now)
        self.done += count
        survey.rest()


def unveiled(
    now: TwoServerParameters,
    sealed: memoryview,
    n: int,
    key: bytes,
    first: int = 0,
    count: int | None = None,
) -> Iterator[U64]:
    """The blocks [n, width] of E = Y - A0, as `Veiling` sealed them, in one buffer that is used
    again: all of them, or ``count`` from the ``first`` on.

    Raises:
        Malformed: a block is not what was sealed, or there is more than these.
    """
    sizes = _sealed_sizes(now, n)
    last = len(sizes) if count is None else first + count
    if len(sealed) != sum(sizes[first:last]):
        raise Malformed("its masked rows are of another length")
    blocks, at, room = cuts(now, n), 0, np.empty(n * now.width(n), dtype=np.uint64)
    for i in range(first, last):
        start, stop = blocks[i]
        part, length = bytes(sealed[at : at + sizes[i]]), n * (stop - start)
        plain = now.library.unseal(key, _nonce(i), part, now.bound_to("masked"))
        if plain is None:
            raise Malformed("its masked rows are not what the server sealed")
        yield unpack(plain, now.ring, length, room[:length]).reshape(n, stop - start)
        at += sizes[i]


def _nonce(block: int) -> bytes:
    return b"E" + block.to_bytes(11, "little")
