"""Weights of updates: told to a rule that divides by their sum, or folded into rows under noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from privfl.aggregators import Mean
from privfl.core import BadUpdate, Channel, ClientId, ConfigError, Rule, Vector
from privfl.wrapper.names import Names


@dataclass(frozen=True, slots=True)
class RoundWeights:
    """The weights of a round's updates, at most ``top`` each: what weighs more counts as that.

    Without noise they travel beside the updates, and the mean divides by their sum (McMahan et al.
    2017). ``folded``, under noise, each row is sent as w / top times itself, with a weight of one:
    a row in the ball of the bound stays in it, so one client moves the sum as far as without
    weights, whatever its weight is, and nobody is told the weights. The mean then divides by a
    public number, the total weight that is expected (McMahan, Ramage, Talwar, Zhang 2018, section
    2: weights of min(n / top, 1) and a fixed denominator).
    """

    by_client: Mapping[ClientId, float]
    top: float
    folded: bool

    def row(self, client: ClientId, bounded: Vector) -> Vector:
        """A client's bounded row [d] as it is sent."""
        return bounded * (self.by_client[client] / self.top) if self.folded else bounded

    def beside(self, client: ClientId) -> float:
        """The weight that travels with it."""
        return 1.0 if self.folded else self.by_client[client]

    @property
    def most(self) -> float:
        """The public bound on what travels beside a row."""
        return 1.0 if self.folded else self.top

    def rule(self, mean: Mean) -> Mean:
        """The mean of rows that are weighted so."""
        if self.folded:
            return replace(mean, weighted=False, denominator=(mean.denominator or 0.0) / self.top)
        return replace(mean, weighted=True)


def weights_of(
    given: Mapping[Any, float] | None,
    updates: Mapping[ClientId, Any],
    names: Names,
    *,
    top: float | None,
    folded: bool,
) -> RoundWeights | None:
    """The weights of these updates, None where none are given; ``top`` is the public bound on one.

    Raises:
        BadUpdate: a client without a weight, or one that is no number above 0 (under noise 0 too:
            the client's row is then zero).
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise BadUpdate(
            "weights are numbers by client, as in {'ward 1': 120, 'ward 2': 30}, and these are a"
            f" {type(given).__name__}."
        )
    found = {names.number(name): weight for name, weight in given.items()}
    weights: dict[ClientId, float] = {}
    for client in updates:
        if client not in found:
            raise BadUpdate(f"client {names.name(client)!r} has an update and no weight.")
        weight = found[client]
        if not _weighs(weight) or not (weight > 0 or folded):
            raise BadUpdate(
                f"client {names.name(client)!r}: a weight is a number above 0, and this is"
                f" {weight!r}: leave a client without samples out, or name it in dropped."
            )
        weights[client] = float(weight)
    most = top if top is not None else max(weights.values(), default=1.0)
    return RoundWeights({c: min(w, most) for c, w in weights.items()}, most, folded)


def _weighs(weight: Any) -> bool:
    """Whether it is a number from 0 on."""
    number = isinstance(weight, Real) and not isinstance(weight, bool)
    return number and bool(0 <= weight < math.inf)


def weighable(
    rule: Rule[Any], channel: Channel[Any], top: float | None, *, own: bool, noised: bool
) -> Mean:
    """The mean whose rows can be weighted; ``own``: the caller chose the rule.

    Raises:
        ConfigError: another rule, or a channel that weighs clients itself; under noise, no public
            bound on a weight, or no public number to divide by.
    """
    if not isinstance(rule, Mean) or (own and not rule.weighted and not noised):
        raise ConfigError(
            f"weights go with the weighted mean, and the rule is {rule}: leave rule out, or the"
            " weights."
        )
    if channel.able.groups is not None or channel.able.hosts is not None:
        raise ConfigError(
            f"{type(channel).__name__} counts every client alike, so that nobody pulls harder by"
            " claiming more samples: leave weights out, or use a channel that sums."
        )
    if noised and (top is None or rule.denominator is None):
        raise ConfigError(
            "noise needs to know how far one client's weight goes: give max_weight=..., a public"
            " bound on a weight, and denominator=..., a public number that the weighted sum is"
            " divided by (the total weight that you expect)."
        )
    return rule
