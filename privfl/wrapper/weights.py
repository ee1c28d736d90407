"""Weights of updates: told to a rule that divides by their sum, or folded into rows under noise."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from privfl.aggregators import Mean
from privfl.core import BadUpdate, Channel, ClientId, ConfigError, RoundPlan, Rule, Vector
from privfl.dp import PrivacyWarning
from privfl.wrapper.given import Given
from privfl.wrapper.names import Names

_FINE = 16
_LIGHT, _HEAVY = 2.0**-60, 2.0**60
"""Weights whose sums and products float32 holds."""


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

    def refuse_coarse(self, channel: Channel[Any], plan: RoundPlan, names: Names) -> None:
        """Refuse weights of which a channel that computes on integers would leave too little: it
        rounds a row as finely as one of the largest weight. Under noise nobody may be told.

        Raises:
            ConfigError: clients with over a hundredth of all weight would be rounded by a 16th of
                the bound, or more.
        """
        rounds_off = channel.able.rounds_off
        if self.folded or rounds_off is None or not plan.l2 < math.inf:
            return
        coarse = [
            client
            for client, weight in self.by_client.items()
            if rounds_off(plan, weight) > plan.l2 / _FINE
        ]
        if sum(self.by_client[client] for client in coarse) * 100 > sum(self.by_client.values()):
            raise ConfigError(
                f"client {names.name(coarse[0])!r} weighs {self.by_client[coarse[0]]:g} of"
                f" max_weight {self.top:g}, and {type(channel).__name__} would round such rows off"
                " to little or nothing: give a max_weight near the largest weight, weights that"
                " are closer to each other, or a channel of more bits."
            )

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
    sent: Given[Any],
    names: Names,
    *,
    top: float | None,
    folded: bool,
) -> RoundWeights | None:
    """The weights of the updates that were sent, None where none are given; ``top`` is the public
    bound on one. Clients that were drawn and sent nothing may have one, too.

    Raises:
        BadUpdate: a weight of nobody in the cohort; a client without one, or with one that is no
            number above 0. Under noise a number that weighs nothing (0, below it, NaN) makes the
            client's row zero: were it refused, that no round is released would tell of this client.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise BadUpdate(
            "weights are numbers by client, as in {'ward 1': 120, 'ward 2': 30}, and these are a"
            f" {type(given).__name__}."
        )
    drawn = {names.name(client) for client in sent.cohort}
    for name in given:
        if name not in drawn:
            raise BadUpdate(
                f"client {name!r} has a weight and sent no update: give weights under the names of"
                " the updates, and name who was drawn and sent nothing in dropped."
            )
    found = {names.number(name): weight for name, weight in given.items()}
    weights: dict[ClientId, float] = {}
    for client in sent.rows:
        if client not in found:
            raise BadUpdate(f"client {names.name(client)!r} has an update and no weight.")
        weight: Any = found[client]
        whose = f"client {names.name(client)!r}: a weight is a number"
        number = isinstance(weight, Real) and not isinstance(weight, bool)
        if not number or not (folded or 0 < weight < math.inf):
            raise BadUpdate(
                f"{whose} above 0, and this is {weight!r}: leave a client without samples out, or"
                " name it in dropped."
            )
        if not folded and not _LIGHT <= weight <= _HEAVY:
            raise BadUpdate(
                f"{whose} from 2^-60 to 2^60, and this is {weight!r}: give weights in another unit."
            )
        if not weight >= 0:
            warnings.warn(f"{whose}, and this is {weight!r}: it counts as 0.", PrivacyWarning, 4)
        weights[client] = float(weight) if weight > 0 else 0.0
    most = top if top is not None else max(weights.values(), default=1.0)
    return RoundWeights({c: min(w, most) for c, w in weights.items()}, most, folded)


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
