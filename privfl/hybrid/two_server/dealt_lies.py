"""A dealer that lies where clients fix their rows. It knows every mask and every key, so what it
deals authenticates: choices that are other numbers than 0 and 1, norms of rows that are too long,
comparisons with bounds of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from privfl.core import Cast, ConfigError, Liars, Party, RoundPlan
from privfl.core.field_values import field_values
from privfl.crypto.mpc.words import U64
from privfl.hybrid.two_server.dealer_lies import LONGER, Beside, lengthened
from privfl.hybrid.two_server.fixed_dealing import FixedDealing
from privfl.hybrid.two_server.fixed_masks import Extent, Own
from privfl.hybrid.two_server.fixed_stock import (
    Compared,
    Item,
    Joint,
    Known,
    Masks,
    RuleStock,
    outcome_of,
)
from privfl.hybrid.two_server.lifting import SIGN_BITS, SIGNS
from privfl.hybrid.two_server.malicious.client import FixedClientParty
from privfl.hybrid.two_server.malicious.dealer import FixedDealer
from privfl.hybrid.two_server.parameters import TwoServerParameters
from privfl.hybrid.two_server.recipe import Recipe
from privfl.hybrid.two_server.rules import CosineOnShares, KrumOnShares
from privfl.hybrid.two_server.rules.proved_signs import DISTANCE_MASKS

Change = Callable[[TwoServerParameters, Known], Known]
_RANK, _WIDE = 8, 64
"""Bits in which places and margins of squares are compared."""


@dataclass(frozen=True, slots=True)
class FalseStock:
    """What an honest dealer knows, changed (a `RuleStock`)."""

    honest: RuleStock
    change: Change

    @property
    def most(self) -> int:
        """As the honest one."""
        return self.honest.most

    def items(self, now: TwoServerParameters, n: int) -> Mapping[str, Item]:
        """As the honest one."""
        return self.honest.items(now, n)

    def known(self, now: TwoServerParameters, n: int, masks: Masks, joint: Joint) -> Known:
        """What is dealt instead."""
        return self.change(now, self.honest.known(now, n, masks, joint))


def _unchanged(now: TwoServerParameters, known: Known) -> Known:
    return known


@dataclass(frozen=True, slots=True)
class FalseDealing(Recipe):
    """A recipe whose holder deals other words than it says."""

    change: Change = _unchanged

    def extent(self, now: TwoServerParameters, n: int) -> Extent:
        """The honest one, with another stock."""
        honest = Recipe.extent(self, now, n)
        return replace(honest, stock=FalseStock(honest.stock, self.change))


@dataclass(repr=False)
class OtherWords(FixedDealing):
    """A dealing by which rows have other squared norms by so much, their norms are compared as if
    they were another by so much, and where a single comparison chooses, these rows are chosen,
    whatever their product is, once and so many times more; by place.
    """

    norms: Mapping[int, int] = field(default_factory=dict)
    compared: Mapping[int, int] = field(default_factory=dict)
    chosen: Mapping[int, int] = field(default_factory=dict)

    def _tags(
        self, first: Own, second: Own, weights: U64
    ) -> tuple[U64, U64, U64, U64, tuple[U64, U64], U64, U64]:
        a0, a1, inner, sums, lasts, pairs, vector = FixedDealing._tags(self, first, second, weights)
        for row, more in self.norms.items():
            inner[row : row + 1] += np.uint64(more % (1 << 64))
            if len(pairs):
                pairs[row, row : row + 1] += np.uint64(more % (1 << 64))
        return a0, a1, inner, sums, lasts, pairs, vector

    def _compared(self, masks: U64) -> Compared:
        n, told = self.extent.n, masks.copy()
        for row, more in self.compared.items():
            told[self.now.rows, row : row + 1] += np.uint64(more % (1 << 64))
        for row in self.chosen:  # no product is so far below zero: it is above zero for certain
            told[-1, row : row + 1] += np.uint64(1 << (self.now.ring - 2))
        compared = FixedDealing._compared(self, told)
        for row, more in self.chosen.items():
            stretch(compared, len(told) * n - n + row, more)
        return compared


@dataclass(repr=False)
class FalseFixedDealer(FixedDealer):
    """A dealer that deals `OtherWords`."""

    norms: Mapping[int, int] = field(default_factory=dict)
    compared: Mapping[int, int] = field(default_factory=dict)
    chosen: Mapping[int, int] = field(default_factory=dict)

    def _dealing(self) -> tuple[FixedDealing, list[int]]:
        honest, kept = FixedDealer._dealing(self)
        lies = (self.norms, self.compared, self.chosen)
        parts = (honest.now, honest.extent, honest.first, honest.second, honest.seeds)
        return OtherWords(*parts, *lies), kept


def _false(
    dealer: FixedDealer,
    norms: Mapping[int, int] = MappingProxyType({}),
    compared: Mapping[int, int] = MappingProxyType({}),
    chosen: Mapping[int, int] = MappingProxyType({}),
) -> FixedDealer:
    return FalseFixedDealer(
        dealer.now,
        dealer.recipe,
        dealer.identity,
        norms=norms,
        compared=compared,
        chosen=chosen,
    )


def _dealer(party: Party) -> FixedDealer:
    if not isinstance(party, FixedDealer):
        raise ConfigError(f"{type(party).__name__} deals nothing to rows that are fixed.")
    return party


def _deals(change: Change) -> Liars:
    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        return {"dealer": _changed(_dealer(honest["dealer"]), change)}

    return Liars(enter=enter)


def _changed(dealer: FixedDealer, change: Change) -> FixedDealer:
    return replace(dealer, recipe=FalseDealing(**field_values(dealer.recipe), change=change))


def _words(known: Known, name: str) -> U64:
    words = known[name]
    if isinstance(words, Compared):
        raise ConfigError(f"'{name}' are comparisons here.")
    return words.astype(np.uint64)


def _comparisons(known: Known, name: str) -> Compared:
    compared = known[name]
    if not isinstance(compared, Compared):
        raise ConfigError(f"'{name}' are no comparisons here.")
    return Compared(compared.alpha.copy(), compared.flip.copy(), compared.scale.copy())


def favours_a_trusted_row() -> Liars:
    """A dealer that deals another mask of the first row's weight than it counts with: by the
    difference that row weighs more than all others together.

    Raises:
        ConfigError: when the round begins, a party that is no such dealer, or a rule without such
            weights.
    """

    def change(now: TwoServerParameters, known: Known) -> Known:
        told = np.array(known["products"], dtype=object)
        told[5 * len(told) // 6] -= 1 << (now.ring - 2 - now.longest.bit_length())
        return {**known, "products": told}

    return _deals(change)


def moves_a_distance() -> Liars:
    """A dealer by whose words the first row of signs opens as nearer by one than it is.

    Raises:
        ConfigError: when the round begins, a party that is no such dealer, or a rule without
            distances.
    """

    def change(now: TwoServerParameters, known: Known) -> Known:
        words = known[DISTANCE_MASKS]
        if isinstance(words, Compared):
            raise ConfigError("there are no distances.")
        told = words.copy()
        told[0] += 1
        return {**known, DISTANCE_MASKS: told}

    return _deals(change)


# ---- choices that are any numbers


def stretch(compared: Compared, at: int, more: int) -> None:
    """Let one comparison of scale 1 give 1 + ``more`` where it gives 1, and -``more`` where it
    gives 0, in place: as it does so on both sides of ``alpha``, and turned around (`turned`) too,
    it does so for every public word.
    """
    flip = int(compared.flip[at])
    compared.flip[at] = np.uint64((flip + (2 * flip - 1) * more) % (1 << 64))


def _more(now: TwoServerParameters) -> int:
    """How often the difference of two rows fits into the ring beside the sum."""
    return 1 << (now.ring - 3 - now.longest.bit_length())


def _krum(m: int, more: Callable[[TwoServerParameters], int]) -> Change:
    """The first m rows are chosen; the first weighs so much more, the second so much less."""

    def change(now: TwoServerParameters, known: Known) -> Known:
        places = _words(known, "places")
        n = len(places)
        best = outcome_of(places + np.uint64(n), _RANK)  # every place is before this one
        apart = {0: more(now), 1: -more(now)}
        for i in range(n):
            stretch(best, i, apart.get(i, 0) - (i >= m))
        return {**known, "best": best}

    return change


def _cosine(threshold: float) -> Change:
    """The first two rows are chosen; the first weighs so much more, the second so much less.

    Both comparisons are with a margin that none has, so they say 1 for certain. The product's sign
    s is opened xor a dealt bit, which is 1 here: over a threshold above 0 a row weighs "below"
    less "below with the bit" where s is 1, else "below with the bit"; under one below 0 it weighs
    "below with the bit" where s is 1, else 1 + "below" less that. All of these are its weight.
    """

    def change(now: TwoServerParameters, known: Known) -> Known:
        late, signs = _comparisons(known, "squares"), _comparisons(known, SIGNS)
        bits = _words(known, SIGN_BITS)
        n = len(bits)
        for row, more in ((0, _more(now)), (1, -_more(now))):
            signs.flip[row] ^= np.uint64(1) - bits[row]
            bits[row] = 1
            blind = int(np.array(known["products and norms"], dtype=object)[row - n]) + (1 << 62)
            never = outcome_of(np.array([blind % (1 << 64)], dtype=np.uint64), _WIDE)
            below = 1 + 2 * more if threshold > 0 else 2 * more
            for at, over in ((row, below), (n + row, more)):
                late.alpha[at], late.flip[at], late.scale[at] = never.alpha[0], never.flip[0], 1
                stretch(late, at, over)
        return {**known, "squares": late, SIGNS: signs, SIGN_BITS: bits}

    return change


def _weighs_two(dealer: FixedDealer) -> FixedDealer:
    """A dealer by whose words the difference of the first two rows, many times, is in the sum."""
    rule, now = dealer.recipe.rule, dealer.now
    if isinstance(rule, KrumOnShares):
        return _changed(dealer, _krum(rule.m, _more))
    if isinstance(rule, CosineOnShares) and rule.threshold:
        return _changed(dealer, _cosine(rule.threshold))
    chosen = {0: _more(now), 1: -_more(now)}
    return _false(dealer, chosen=chosen)


def tells_a_difference() -> Liars:
    """A dealer that gives the first two rows weights of opposite signs, far above all others.

    Raises:
        ConfigError: when the round begins, a party that is no such dealer.
    """
    return Liars(enter=lambda plan, honest: {"dealer": _weighs_two(_dealer(honest["dealer"]))})


def tells_a_friends_difference() -> Liars:
    """The same dealer with the second client, which knows its own row.

    Raises:
        ConfigError: when the round begins, a party that is no such dealer.
    """
    beside = Beside()

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        dealer = _dealer(honest["dealer"])
        beside.other, beside.times = plan.cohort[0], _more(dealer.now)
        return {**honest, "dealer": _weighs_two(dealer)}

    return Liars(update=beside.update, enter=enter, took=beside.took)


# ---- norms


def asks_about_a_norm(more: Callable[[TwoServerParameters], int]) -> Liars:
    """A dealer by whose words the first row's squared norm is compared as if it were so much more:
    whether the client is refused tells whether it is beyond another bound.

    Raises:
        ConfigError: when the round begins, a party that is no such dealer.
    """

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        dealer = _dealer(honest["dealer"])
        compared = {0: more(dealer.now)}
        return {"dealer": _false(dealer, compared=compared)}

    return Liars(enter=enter)


def asks_whether_a_row_is_short() -> Liars:
    """A dealer by whose words a client is refused unless its row is shorter than half of the clip.

    Raises:
        ConfigError: when the round begins, a party that is no such dealer.
    """
    return asks_about_a_norm(lambda now: now.longest**2 - now.longest**2 // 4)


def lets_a_long_row_pass() -> Liars:
    """A dealer with the first client: its row is longer than it may be beside the square of a
    shorter one's norm, and what is dealt of the norm fits; Krum chooses it.

    Raises:
        ConfigError: when the round begins, parties that are no such two.
    """

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        client = honest["client/0"]
        vector = client.vector if isinstance(client, FixedClientParty) else None
        if vector is None or vector.dtype != np.uint64:
            raise ConfigError(f"{type(client).__name__} is no client that fixes a row of words.")
        less = (1 - LONGER**2) * lengthened(vector.view(np.uint64), plan.d)
        dealer = _dealer(honest["dealer"])
        rule = dealer.recipe.rule
        if isinstance(rule, KrumOnShares):
            dealer = _changed(dealer, _krum(rule.m, lambda now: 0))
        return {**honest, "dealer": _false(dealer, norms={0: less})}

    return Liars(enter=enter)
