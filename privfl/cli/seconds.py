"""Times as people write them."""

from __future__ import annotations

from privfl.core import ConfigError


def seconds_of(option: str, text: str) -> float:
    """A time as people write it: 90, 90s, 3m.

    >>> seconds_of("--budget", "3m")
    180.0
    """
    unit = {"s": 1, "m": 60}.get(text[-1:], 0)
    try:
        return float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        raise ConfigError(
            f"{option} takes seconds or minutes, as 90s or 3m, not '{text}'."
        ) from None
