"""Events of releases that hang together: of a vector that moves farther, of several vectors of one
cohort.
"""

from __future__ import annotations

from collections.abc import Collection

from privfl.core import ConfigError, DpEvent


def farther(event: DpEvent, factor: float) -> DpEvent:
    """The event of the same noise on a vector that moves ``factor`` times as far.

    Raises:
        ConfigError: the event states neither how far its vector moves nor a noise multiplier.

    >>> farther(DpEvent("gaussian", {"noise_multiplier": 3.0}), 2.0).parameters
    {'noise_multiplier': 1.5}
    """
    if factor == 1:
        return event
    numbers = dict(event.parameters)
    if "noise_multiplier" in numbers:
        numbers["noise_multiplier"] /= factor
    elif "l2" in numbers:
        numbers = {key: x * factor if key in ("l1", "l2") else x for key, x in numbers.items()}
    else:
        raise ConfigError(
            f"an event '{event.mechanism}' must state the l2 that it accounts for, or a"
            f" noise_multiplier, and states {sorted(numbers)}."
        )
    return DpEvent(event.mechanism, numbers)


def together(events: Collection[DpEvent]) -> tuple[DpEvent, ...]:
    """What several releases of ONE cohort cost: Gaussians are one Gaussian of all vectors, each in
    units of its own sensitivity; others are charged one by one.

    Sampled releases compose when each draws a sample of its own. These share one, so two charges
    with sampling each would understate epsilon.

    >>> pair = [DpEvent("gaussian", {"noise_multiplier": z}) for z in (3.0, 4.0)]
    >>> round(together(pair)[0].parameters["noise_multiplier"], 9)
    2.4
    """
    if len(events) < 2 or any(event.mechanism != "gaussian" for event in events):
        return tuple(events)
    multipliers = [event.parameters["noise_multiplier"] for event in events]
    silent = any(z == 0 for z in multipliers)
    z = 0.0 if silent else sum(z**-2 for z in multipliers) ** -0.5
    return (DpEvent("gaussian", {"noise_multiplier": z}),)
