"""A dealer that lies where clients fix their rows: what it authenticates is not what it should be,
so a row of its choice weighs nearly everything in what is published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from privfl.core import Cast, ConfigError, Liars, RoundPlan
from privfl.core.field_values import field_values
from privfl.hybrid.two_server.fixed_masks import Extent
from privfl.hybrid.two_server.fixed_stock import (
    Compared,
    Item,
    Joint,
    Known,
    Masks,
    RuleStock,
)
from privfl.hybrid.two_server.malicious.dealer import FixedDealer
from privfl.hybrid.two_server.parameters import TwoServerParameters
from privfl.hybrid.two_server.recipe import Recipe
from privfl.hybrid.two_server.rules.proved_signs import DISTANCE_MASKS

Change = Callable[[TwoServerParameters, Known], Known]


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


@dataclass(frozen=True, slots=True)
class FalseDealing(Recipe):
    """A recipe whose holder deals other words than it says."""

    change: Change = lambda now, known: known

    def extent(self, now: TwoServerParameters, n: int) -> Extent:
        """The honest one, with another stock."""
        honest = Recipe.extent(self, now, n)
        return replace(honest, stock=FalseStock(honest.stock, self.change))


def favours_a_trusted_row() -> Liars:
    """A dealer that deals another mask of the first row's weight than it counts with: by the
    difference that row weighs more than all others together.

    Raises:
        ConfigError: when the round begins, a party that is no such dealer, or a rule without such
            weights.
    """

    def change(now: TwoServerParameters, known: Known) -> Known:
        words = known["products"]
        if isinstance(words, Compared):
            raise ConfigError("there are no weights to be masked.")
        told = words.astype(object)
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


def _deals(change: Change) -> Liars:
    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        dealer = honest["dealer"]
        if not isinstance(dealer, FixedDealer):
            raise ConfigError(f"{type(dealer).__name__} deals nothing to rows that are fixed.")
        dealer.recipe = FalseDealing(**field_values(dealer.recipe), change=change)
        return honest

    return Liars(enter=enter)
