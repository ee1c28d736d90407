"""How either server begins to compute, once the dealer has spoken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from privfl.core import Buffer
from privfl.crypto.mpc import Demand, Shared
from privfl.crypto.mpc.preprocessing import first_preprocessing
from privfl.crypto.mpc.words import U64
from privfl.crypto.primitives import fields
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.between_servers import unusable
from privfl.hybrid.two_server.fixed_dealing import received
from privfl.hybrid.two_server.fixed_masks import Own
from privfl.hybrid.two_server.fixed_rows import FixedRows, surveyed
from privfl.hybrid.two_server.machine import Machine
from privfl.hybrid.two_server.parameters import (
    DEALT,
    SERVERS,
    Direction,
    TwoServerParameters,
)
from privfl.hybrid.two_server.recipe import Recipe
from privfl.hybrid.two_server.rows import MaskedRows, SeedRows
from privfl.hybrid.two_server.sealing import SealedWords, open_dealt
from privfl.hybrid.two_server.sign_dealing import received_signs

LEFT_OUT = "what it told both servers and the dealer is not the same, or one of the three says so"
Rows = Callable[[list[int]], tuple[FixedRows | SeedRows, MaskedRows]]
"""A server's rows, and what clients fixed of them, of those places of the cohort that are left."""


def begin(
    now: TwoServerParameters,
    recipe: Recipe,
    seed: bytes,
    body: Buffer,
    listed: Sequence[int],
    first: bool,
    rows: Rows,
    coin: bytes,
    direction: Direction | None,
    unknown: bool,
    remembered: U64 | None = None,
) -> Machine:
    """A server's machine, from the dealer's letter and its own seed.

    Raises:
        StageAbort: the letter is none, or too few clients are left.
    """
    try:
        left, words = _opened(now, seed, body, listed)
        own = Own(seed, now, recipe.extent(now, len(left)))
        dealt, stocked, tags = received(own, first, words)
    except Malformed as malformed:
        raise unusable("deal", "dealer", malformed) from None
    values = None
    if recipe.traits.directed:
        known = direction is not None and len(direction.values)
        values = (
            direction.values
            if direction is not None and known
            else np.zeros(now.plan.d, dtype=np.int64)
        )
    mine, fixed = rows(left)
    return Machine(
        first=first,
        names=SERVERS,
        ring=now.ring,
        tag=now.tag,
        keys=dealt.keys,
        wide_key=dealt.wide_key,
        now=now,
        positions=tuple(left),
        program=recipe.program(now, unknown),
        rows=mine,
        preprocessing=first_preprocessing(seed, Demand(), now.library),
        direction=direction,
        seed=seed,
        tags=tags,
        fixed=surveyed(now, mine, fixed, dealt, coin, values, remembered),
        stocked=stocked,
    )


def _opened(
    now: TwoServerParameters, seed: bytes, body: Buffer, listed: Sequence[int]
) -> tuple[list[int], SealedWords]:
    """Of the dealer's letter: who takes part, and its words.

    Raises:
        Malformed: it is no such letter.
        StageAbort: too few clients are left.
    """
    _, content = now.read(body, DEALT)
    words, size = open_dealt(now, seed, content), -(-now.plan.n // 8)
    members, _ = fields.read_bit_set(memoryview(words.read(size)), now.plan.n)
    if not members <= set(listed):
        raise Malformed("it names clients that this server did not")
    left = sorted(members)
    now.enough("deal", left)
    return left, words.after(size)


def begin_signs(
    now: TwoServerParameters,
    recipe: Recipe,
    seed: bytes,
    body: Buffer,
    rows: Mapping[int, Buffer],
    first: bool,
    direction: Direction | None,
    memory: dict[Shared, U64],
) -> Machine:
    """A server's machine where rows are of signs: ``rows`` are the packed bits that clients fixed,
    by place, ``memory`` is what is known of the direction from before.

    Raises:
        StageAbort: as `begin`.
    """
    try:
        left, words = _opened(now, seed, body, list(rows))
        own = Own(seed, now, recipe.extent(now, len(left)))
        flips, stocked = received_signs(own, first, memoryview(words.read(len(words))))
    except Malformed as malformed:
        raise unusable("deal", "dealer", malformed) from None
    weights = Demand(weights=len(own.weights()))
    return Machine(
        first=first,
        names=SERVERS,
        ring=now.ring,
        tag=now.tag,
        keys=own.keys,
        wide_key=own.wide_key,
        now=now,
        positions=tuple(left),
        program=recipe.program(now, everyone=False),
        rows=MaskedRows([]),
        preprocessing=first_preprocessing(seed, weights, now.library),
        direction=direction,
        seed=seed,
        memory=memory,
        flips=flips,
        flipped=np.stack([np.frombuffer(rows[i], dtype=np.uint8) for i in left]),
        stocked=stocked,
    )
