"""One dealing for a round that is still to come: made by the dealer, one part for each server."""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from privfl.core import KeepsSecrets
from privfl.crypto.mpc import Demand, Preprocessing
from privfl.crypto.mpc.dealt_file import PASSED_BY, Taken
from privfl.crypto.mpc.preprocessing import (
    correct,
    derived_words,
    first_preprocessing,
    second_preprocessing,
)
from privfl.crypto.mpc.words import U64, pack, unpack
from privfl.crypto.primitives import derive
from privfl.hybrid.two_server.parameters import TwoServerParameters
from privfl.hybrid.two_server.recipe import Recipe
from privfl.hybrid.two_server.rows import SeedRows, VeilOfSlots, blinds, dealt, tag_keys
from privfl.hybrid.two_server.sealing import SEED_SIZE

_FACTS = struct.Struct("<QQddQHQQQHHH")


def binding(now: TwoServerParameters, recipe: Recipe) -> bytes:
    """What a dealing is bound to [32 bytes]: all public parameters of a round but its session, its
    number, who its clients are, and the model.
    """
    plan, flags = now.plan, now.weighted | now.gram << 1 | recipe.tagged << 2
    facts = _FACTS.pack(
        plan.n,
        plan.d,
        plan.l2,
        plan.max_weight,
        now.quorum,
        now.ring,
        now.longest,
        now.shortest,
        now.steep,
        now.rows,
        now.code.bits,
        flags,
    )
    words = (
        plan.part.encode(),
        repr((recipe.rule, recipe.least, recipe.colluders, recipe.noisy, recipe.noise)).encode(),
    )
    parts = b"".join(len(word).to_bytes(8, "little") + word for word in words)
    return hashlib.sha256(b"privfl/1/two-server/ahead/" + facts + parts).digest()


def sizes(now: TwoServerParameters, recipe: Recipe) -> tuple[int, int]:
    """Bytes of one dealing for ``server`` and for ``server/1``."""
    n = now.plan.n
    return SEED_SIZE + 8 * n * recipe.tagged, SEED_SIZE + 8 * recipe.demand(now, n).dealt


def deal(now: TwoServerParameters, recipe: Recipe) -> tuple[bytes, bytes]:
    """A new dealing for every place of the cohort: what ``server`` gets, and ``server/1``."""
    n, library = now.plan.n, now.library
    demand = recipe.demand(now, n)
    first, second = secrets.token_bytes(SEED_SIZE), secrets.token_bytes(SEED_SIZE)
    preprocessing = first_preprocessing(first, demand, library)
    theirs = derived_words(second, "weights", demand.weights, library)
    none: U64 = np.zeros(0, dtype=np.uint64)
    inner, vector, tags = dealt(
        now,
        SeedRows(row_seeds(second, range(n))),
        VeilOfSlots(row_seeds(first, range(n))),
        preprocessing.weights,
        theirs,
        tag_keys(now, first)[0] if recipe.tagged else none,
    )
    words = correct(preprocessing, second, demand, library, inner, vector)
    told = pack(tags + blinds(now, second, n)[0], 64) if recipe.tagged else b""
    return first + told, second + words


def row_seeds(seed: bytes, places: Sequence[int]) -> list[bytes]:
    """The seeds of one server's masks for these places."""
    return [derive(seed, b"two-server", f"row {place}") for place in places]


@dataclass(repr=False)
class Part(KeepsSecrets):
    """One server's part of a dealing, and how much there is of it."""

    taken: Taken
    now: TwoServerParameters
    demand: Demand

    @property
    def seed(self) -> bytes:
        """The server's seed in this round."""
        return self.taken.content[:SEED_SIZE]

    @property
    def words(self) -> memoryview:
        """What the seed does not say."""
        return memoryview(self.taken.content)[SEED_SIZE:]

    def rows(self, places: Sequence[int]) -> list[bytes]:
        """The seeds of its masks for these places."""
        return row_seeds(self.seed, places)

    def first(self, places: list[int]) -> tuple[Preprocessing, U64 | None]:
        """The first server's shares for these places, and the tags of the second's masks."""
        shares = first_preprocessing(self.seed, self.demand, self.now.library)
        tags = unpack(self.words, 64, self.now.plan.n)[places] if self.words else None
        return self._of(shares, places), tags

    def second(self, places: list[int]) -> Preprocessing:
        """The second server's shares for these places.

        Raises:
            Malformed: the dealer dealt too much or too little.
        """
        shares = second_preprocessing(self.seed, self.words, self.demand, self.now.library)
        return self._of(shares, places)

    def weights(self, places: list[int]) -> U64:
        """Its part of the dealt weights of these places."""
        words = derived_words(self.seed, "weights", self.demand.weights, self.now.library)
        return words[places]

    def _of(self, shares: Preprocessing, places: list[int]) -> Preprocessing:
        n = self.now.plan.n
        inner, weights, macs = shares.inner, shares.weights, shares.macs
        if len(inner):
            whole = inner.reshape(n, n) if self.now.gram else inner
            inner = (whole[np.ix_(places, places)] if self.now.gram else whole[places]).reshape(-1)
        if len(weights):
            weights, macs = weights[places], macs[..., places]
        return replace(shares, inner=inner, weights=weights, macs=macs)


@dataclass
class Reached:
    """The next dealing that the second server may take: a little more than its own disk says, where
    the other one is further on.
    """

    next: int = field(default=0)

    def other_took(self, theirs: int, own: int) -> None:
        """The other server says that it took this one, where this server took its own."""
        self.next = min(theirs, own + PASSED_BY) + 1
