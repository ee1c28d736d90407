"""What is refused of a rule on shares before any round."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from privfl.aggregators import CosineFilter, FLTrust, Krum, Mean
from privfl.aggregators.cosine_filter import median_of_rows
from privfl.core import ConfigError, RingNoise
from privfl.hybrid.two_server.recipe import Recipe


@runtime_checkable
class RuleSetting(Protocol):
    """What a channel says of its rule."""

    @property
    def rule(self) -> Mean | Krum | FLTrust | CosineFilter:
        """The rule."""
        ...

    @property
    def reveal(self) -> str:
        """What is opened on the way."""
        ...

    @property
    def reference(self) -> str:
        """Where a cosine filter's reference comes from."""
        ...

    @property
    def min_selected(self) -> int:
        """The fewest rows of a sum."""
        ...

    @property
    def colluders(self) -> int:
        """How many clients may collude with a server."""
        ...

    @property
    def noise(self) -> RingNoise | None:
        """What each server adds."""
        ...

    @property
    def recipe(self) -> Recipe:
        """The rule as numbers."""
        ...


def check_rule(channel: RuleSetting) -> None:
    """Refuse a rule that nobody can compute on shares, or that opens what it must not.

    Raises:
        ConfigError: it is one.
    """
    rule = channel.rule
    if isinstance(rule, Krum) and rule.m < channel.recipe.least:
        raise ConfigError(
            f"Krum with m={rule.m} opens the sum of {rule.m}, which is fewer than"
            f" {channel.recipe.least} (min_selected={channel.min_selected}, and two more than"
            f" colluders={channel.colluders}): raise m (Multi-Krum)."
        )
    if channel.reference not in ("rule", "previous"):
        raise ConfigError(f"reference is 'rule' or 'previous', and is '{channel.reference}'.")
    if channel.reference == "previous" and not isinstance(rule, CosineFilter):
        raise ConfigError(
            f"reference 'previous' is for cosine_filter, and the rule is {type(rule).__name__}."
        )
    if (
        channel.reference == "rule"
        and isinstance(rule, CosineFilter)
        and rule.reference is median_of_rows
    ):
        raise ConfigError(
            "two_server: cosine_filter's own reference is the median of the rows, which nobody"
            " here can read: set channel.reference to 'previous', or give the filter a"
            " reference trained on the server's own data."
        )
    if isinstance(rule, CosineFilter) and rule.bound is not None:
        raise ConfigError(
            "two_server: cosine_filter's rows are as long as the clip that each is proved to"
            f" keep, and nobody can cut them to bound={rule.bound:g}: leave it out, and set the"
            " run's own bound."
        )
    if channel.noise is not None and not (
        isinstance(rule, Mean) and not rule.weighted and channel.reveal != "scores"
    ):
        raise ConfigError(
            "noise under two_server needs the rule Mean(weighted=False) and a reveal that opens"
            " no norms: what else a rule lets through, and every exact score, has no proved"
            " sensitivity."
        )
