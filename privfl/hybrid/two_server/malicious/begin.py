"""How either server begins to compute, once the dealer has spoken."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from privfl.core import Buffer
from privfl.crypto.mpc import Demand
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
from privfl.hybrid.two_server.sealing import unseal_dealt

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
        _, content = now.read(body, DEALT)
        plain = memoryview(unseal_dealt(now, seed, content))
        members, words = fields.read_bit_set(plain, now.plan.n)
        if not members <= set(listed):
            raise Malformed("it names clients that this server did not")
        left = sorted(members)
        now.enough("deal", left)
        own = Own(seed, now, recipe.extent(now, len(left)))
        dealt, tags = received(own, first, words)
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
    )
