"""Parts of a layer that do not go together."""

from __future__ import annotations

from typing import Any, get_args

from privfl.core import Bound, Channel, ConfigError, require, unknown
from privfl.wrapper.tree import Float64


def refuse_parts(
    bound: object,
    rule: object,
    denominator: float | None,
    max_weight: float | None,
    float64: str,
) -> None:
    """Refuse what is no bound, a denominator beside a rule, and numbers that bound no weight.

    Raises:
        ConfigError: there is one.
    """
    if max_weight is not None:
        require.positive(max_weight=max_weight)
        require.finite(max_weight=max_weight)
    if float64 not in get_args(Float64):
        raise ConfigError(unknown("float64", str(float64), get_args(Float64)))
    if rule is not None and denominator is not None:
        raise ConfigError(
            "denominator goes with the mean; a rule of your own divides as it says: leave one of"
            " the two out."
        )
    if bound is not None and not isinstance(bound, Bound):
        raise ConfigError(f"bound must be one of privfl.dp, as in Clip(l2=1.0), and is {bound!r}.")


def refuse_unbounded(bound: Bound, channel: Channel[Any], *, noised: bool) -> None:
    """Refuse updates of any length under noise, or over a channel that computes on integers.

    Raises:
        ConfigError: there is no bound.
    """
    if bound.l2 < float("inf"):
        return
    if noised:
        raise ConfigError("noise needs a bound on each update: set bound=Clip(l2=...).")
    if channel.able.encodes is not None:
        raise ConfigError(
            f"{type(channel).__name__} computes on integers, whose scale comes from a clip: set"
            " bound=Clip(l2=...)."
        )
