"""Checks of arguments that name the argument, its value and what would be right."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from privfl.core.errors import ConfigError, TooManyByzantine


def positive(**named: int | float) -> None:
    """Refuse numbers that are not above zero.

    Raises:
        ConfigError: one is not, with its name.

    >>> positive(l2=1.0)
    >>> positive(l2=0.0)
    Traceback (most recent call last):
    privfl.core.errors.ConfigError: l2 must be above 0, and is 0.0.
    """
    for name, value in named.items():
        if not _holds(name, value, lambda it: it > 0):
            raise ConfigError(f"{name} must be above 0, and is {value}.")


def at_least(low: int | float, **named: int | float) -> None:
    """Refuse numbers under ``low``, and NaN.

    Raises:
        ConfigError: one is, with its name.
    """
    for name, value in named.items():
        if not _holds(name, value, lambda it: it >= low):
            raise ConfigError(f"{name} must be at least {low}, and is {value}.")


def within(low: int | float, high: int | float, **named: int | float) -> None:
    """Refuse numbers outside of [low, high], and NaN.

    Raises:
        ConfigError: one is, with its name.
    """
    for name, value in named.items():
        if not _holds(name, value, lambda it: low <= it <= high):
            raise ConfigError(f"{name} must lie in [{low}, {high}], and is {value}.")


def finite(**named: int | float) -> None:
    """Refuse NaN and infinities.

    Raises:
        ConfigError: one is, with its name.
    """
    for name, value in named.items():
        if not _holds(name, value, math.isfinite):
            raise ConfigError(f"{name} must be a finite number, and is {value}.")


def multiplier(**named: int | float) -> None:
    """Refuse noise multipliers that are neither 0 nor in [1e-30, 1e30]: their squares, and their
    products with a bound, are numbers.

    Raises:
        ConfigError: one is, with its name.

    >>> multiplier(noise_multiplier=0), multiplier(noise_multiplier=1.1)
    (None, None)
    """
    at_least(0, **named)
    finite(**named)
    for name, value in named.items():
        if value and not 1e-30 <= value <= 1e30:
            raise ConfigError(f"{name} must be 0, or lie in [1e-30, 1e+30], and is {value}.")


def _holds(name: str, value: Any, test: Callable[[Any], bool]) -> bool:
    """Whether a number passes a test; what is none is refused in words, for a caller's types are
    not checked when it runs.
    """
    try:
        return bool(test(value))
    except TypeError:
        raise ConfigError(f"{name} must be a number, and is {value!r}.") from None


def honest_majority(*, rule: str, n: int, f: int, at_least: int) -> None:
    """Refuse more Byzantine clients than a rule's proof allows.

    Raises:
        TooManyByzantine: n < at_least.
    """
    if f < 0:
        raise ConfigError(
            f"{rule}: f is the number of Byzantine clients and cannot be negative ({f})."
        )
    if n < at_least:
        raise TooManyByzantine(
            f"{rule} with f={f} needs at least {at_least} updates, and got {n}: lower f or ask more"
            " clients."
        )
