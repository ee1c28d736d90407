"""Lies of the dealer where clients do not fix their rows, told by the real party: it deals other
words than it should.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from privfl.core import (
    Bounded,
    Cast,
    ClientId,
    ConfigError,
    KeepsSecrets,
    Liars,
    Mail,
    Opened,
    Party,
    PartyId,
    RoundPlan,
    Rows,
    Total,
    Vector,
)
from privfl.crypto.mpc.preprocessing import ONE, Demand, derived_words
from privfl.crypto.mpc.words import U64
from privfl.hybrid.two_server.client import TwoServerClientParty
from privfl.hybrid.two_server.dealer import Dealer
from privfl.hybrid.two_server.lies import exponent_of
from privfl.hybrid.two_server.parameters import DEALT, SERVERS, TwoServerParameters
from privfl.hybrid.two_server.recipe import Recipe
from privfl.hybrid.two_server.sealing import SEED_SIZE, seal_dealt, unseal_dealt
from privfl.hybrid.two_server.tampering import Took

LONGER = 2
"""How many times longer a client's row is, for which the dealer deals the norm of a shorter one."""


@dataclass(frozen=True, slots=True)
class Added:
    """A number of so many bytes that is added to what the second server gets, from byte ``at``."""

    at: int
    size: int
    amount: int


@dataclass(frozen=True, slots=True, repr=False)
class DealtWords(KeepsSecrets):
    """What a dealer knows of one dealing: its round, for how many rows, both servers' seeds."""

    now: TwoServerParameters
    recipe: Recipe
    n: int
    seeds: tuple[bytes, bytes]

    @property
    def demand(self) -> Demand:
        """How much is dealt."""
        return self.recipe.demand(self.now, self.n)

    @property
    def inner(self) -> int:
        """Where the inner products begin, in bytes."""
        demand = self.demand
        return 8 * (demand.ands + demand.bits + demand.triples)

    def norm(self, row: int, amount: int) -> Added:
        """A number on the squared norm of a row."""
        at = row * (self.n + 1) if self.now.gram else row
        return Added(self.inner + 8 * at, 8, amount)

    def in_sum(self, amount: int) -> Added:
        """A number on the first value of a hidden sum."""
        return Added(self.inner + 8 * self.demand.inner, 8, amount)

    def near(self) -> list[Added]:
        """The first two rows seem near to each other, and Krum chooses them; where products are
        opened, by so little that two rows can have such a one, and all others seem further apart.
        """
        if not self.now.gram:
            return []
        pairs = [(i, j) for i in range(self.n) for j in range(self.n) if i != j]
        close, square = {(0, 1), (1, 0)}, self.now.longest**2
        if self.recipe.rule.reveal == "scores":
            amounts = {
                pair: 2 * square // 5 if pair in close else -2 * square // 7 for pair in pairs
            }
        else:
            amounts = dict.fromkeys(close, square)
        return [Added(self.inner + 8 * (i * self.n + j), 8, x) for (i, j), x in amounts.items()]

    def heavy(self, row: int, more: int) -> list[Added]:
        """What makes a chosen row weigh 1 + ``more``, and its authentication fit, for which the
        dealer knows the keys.

        The total counts the weight once, so its share takes off ``more``; that enters the row's own
        share 2 h - 1 times, which the square's makes good, and takes off w^2 - w. A number is added
        where the dealt bit is the choice, else subtracted.
        """
        demand = self.demand
        keys = self._both("keys", demand.keys, demand.keys).tolist()
        weights = self._both("weights", demand.weights, demand.weights).tolist()
        first, second = (
            self._words(i, "bits", (2 - i) * demand.bits)[: demand.bits] for i in range(2)
        )
        at, n = demand.bits - self.n if self.now.gram else 0, demand.weights
        dealt = int((first[at + row] ^ second[at + row]) & ONE)
        w, start = 1 + more, 8 * (demand.dealt - demand.macs)
        twice = 2 * (w - weights[row]) - 1
        macs = [
            Added(start + 8 * ((half * demand.keys + k) * n + row), 8, key * amount)
            for k, key in enumerate(keys)
            for half, amount in ((0, -more), (1, more * twice - (w * w - w)))
        ]
        return [Added(8 * (demand.ands + at + row), 8, more if dealt else -more), *macs]

    def _both(self, what: str, *counts: int) -> U64:
        whole: U64 = self._words(0, what, counts[0]) + self._words(1, what, counts[1])
        return whole

    def _words(self, server: int, what: str, count: int) -> U64:
        return derived_words(self.seeds[server], what, count, self.now.library)


Change = Callable[[DealtWords], Sequence[Added]]


def falsified(words: bytes, added: Sequence[Added]) -> bytes:
    """The second server's words, changed."""
    changed = bytearray(words)
    for one in added:
        number = int.from_bytes(changed[one.at : one.at + one.size], "little") + one.amount
        told = (number % (1 << 8 * one.size)).to_bytes(one.size, "little")
        changed[one.at : one.at + one.size] = told
    return bytes(changed)


@dataclass(repr=False)
class DealsFalsely(KeepsSecrets):
    """A dealer that adds to words that it deals."""

    honest: Dealer
    change: Change
    seeds: dict[PartyId, bytes] = field(default_factory=dict)
    n: int = 0

    def step(self, mail: Mail) -> Mail:
        """What the honest dealer says, some words changed."""
        honest, now = self.honest, self.honest.now
        for who in SERVERS:
            if who in mail and who not in self.seeds:
                members, seeds = honest.read_seeds(who, mail[who])
                self.seeds[who], self.n = seeds[:SEED_SIZE], len(members)
        out = dict(honest.step(mail))
        if "server/1" in out:
            first, own = (self.seeds[who] for who in SERVERS)
            sealed = bytes(now.read(out["server/1"], DEALT)[1])
            added = self.change(DealtWords(now, honest.recipe, self.n, (first, own)))
            words = falsified(unseal_dealt(now, own, sealed), added)
            out["server/1"] = now.write(DEALT, 0, seal_dealt(now, own, words))
        return out


def favours(dealing: DealtWords) -> list[Added]:
    """What makes one row count most, or not at all.

    A hidden choice is a bit turned into a number by a dealt word, hidden trust a product by one.
    Krum opens no count, so one row can weigh any number; where a count is opened one weighs so much
    more, another so much less. The norm of a row makes it seem long; the first bits of rows of
    signs move their distances.
    """
    now, demand, recipe = dealing.now, dealing.demand, dealing.recipe
    near, most = dealing.near(), 1 << exponent_of(now)
    if recipe.traits.proved and now.gram:
        return [*near, *dealing.heavy(0, most)]
    if recipe.traits.proved:
        return [*dealing.heavy(0, most // 2), *dealing.heavy(1, -most // 2)]
    if recipe.traits.hidden and recipe.rule.reveal == "aggregate":
        return [Added(8 * (demand.ands + demand.bits), 8, most)]
    if now.signs:
        return [Added(8 * demand.dealt + 4 * now.plan.d * i, 4, 1) for i in range(dealing.n)]
    return near or [dealing.norm(dealing.n - 1, 1 << (now.ring - 2))]


def deals(change: Change) -> Liars:
    """The dealer as `DealsFalsely`; under open weights of signs it reads what is published, but for
    the entry that its own words have spoilt.

    Raises:
        ConfigError: when the round begins, the party is no dealer.
    """

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        return {**honest, "dealer": _false(honest["dealer"], change)}

    def took(published: Opened[Rows | Total] | None) -> Took:
        if published is None or not isinstance(published.what, Total):
            return {}
        if not published.what.weight > 0:
            return {}
        seen = published.what.mean().clone()
        seen[0] = 0.0
        return dict.fromkeys(published.survivors, seen)

    return Liars(enter=enter, took=took)


def _false(party: Party, change: Change) -> DealsFalsely:
    if not isinstance(party, Dealer):
        raise ConfigError(f"{type(party).__name__} is no dealer.")
    return DealsFalsely(party, change)


def deals_falsely() -> Liars:
    """A dealer that does what `favours` says."""
    return deals(favours)


def moves_a_hidden_sum() -> Liars:
    """A dealer that adds to the first value of the sum under hidden weights."""
    return deals(lambda dealing: [dealing.in_sum(1 << (dealing.now.ring - 3))])


@dataclass
class Beside:
    """What a client that colludes with the dealer knows of the difference of its row and another
    one, so many times of which the dealer put into the result.
    """

    own: Vector | None = None
    other: ClientId | None = None
    times: float = 1.0

    def update(self, honest: Bounded) -> Bounded:
        """Remember the own row."""
        self.own = honest.delta.clone()
        return honest

    def took(self, published: Opened[Rows | Total] | None) -> Took:
        """The other's row."""
        if published is None or not isinstance(published.what, Total):
            return {}
        if self.own is None or self.other is None:
            return {}
        return {self.other: published.what.value / self.times + self.own}


def reads_beside_a_friend() -> Liars:
    """A dealer as of `favours` with the client of the second row: of the difference of two rows it
    knows one.

    Raises:
        ConfigError: when the round begins, the party is no dealer.
    """
    beside = Beside()

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        false = _false(honest["dealer"], favours)
        beside.other, beside.times = plan.cohort[0], (1 << exponent_of(false.honest.now)) / 2
        return {**honest, "dealer": false}

    return Liars(update=beside.update, enter=enter, took=beside.took)


def deals_a_shorter_norm() -> Liars:
    """A dealer with the first client: its row is longer than it may be, and what is dealt of its
    norm makes it seem as long as it should.

    Raises:
        ConfigError: when the round begins, parties that are no such two.
    """

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        client = honest["client/0"]
        if not isinstance(client, TwoServerClientParty) or client.vector is None:
            raise ConfigError(f"{type(client).__name__} is no client with a row of words.")
        less = (LONGER**2 - 1) * lengthened(client.vector.view(np.uint64), plan.d)

        def change(dealing: DealtWords) -> list[Added]:
            return [dealing.norm(0, -less), *dealing.near()]

        return {**honest, "dealer": _false(honest["dealer"], change)}

    return Liars(enter=enter)


def lengthened(vector: U64, d: int) -> int:
    """Make the first d words so many times longer, in place; the square of their norm before."""
    before = int((vector[:d] * vector[:d]).sum(dtype=np.uint64))
    vector[:d] *= np.uint64(LONGER)
    return before
