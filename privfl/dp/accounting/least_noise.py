"""The noise that some epsilon asks of all charges of a run, by the accountant that the run's own
claim is printed with.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from privfl.core import ConfigError, Ledger, require
from privfl.dp.accounting.ledger import spend
from privfl.dp.accounting.statement import printed

_MOST, _LEAST = 1e6, 1e-4
_CLOSE = 0.995
"""How near to what was asked the claim must come, before the search ends."""


def least_noise(epsilon: int | float, delta: float, charged: Callable[[float], Ledger]) -> float:
    """The noise multiplier with which a run's claim is at most ``epsilon`` at ``delta``, and less
    by half a percent at most. ``charged`` are all charges of the run under a noise multiplier.

    The claim is the one that a statement prints: the loss distribution's where that is computed,
    else that of Rényi DP, which the search begins with because it is fast. Where the claim jumps
    (where a statement leaves the loss distribution out) it may lie farther below.

    Raises:
        ConfigError: a number out of range; charges that support no claim; an epsilon that no noise
            up to 1e6 reaches.

    >>> from privfl.core import Charge, DpEvent, Sampling
    >>> def charged(z):
    ...     noise = DpEvent("gaussian", {"noise_multiplier": z})
    ...     drawn = Sampling("poisson", 0.1, 1000)
    ...     return Ledger((Charge(0, noise, drawn, "client", "add_remove"),) * 10)
    >>> z = least_noise(1.0, 1e-5, charged)
    >>> 0.99 < printed(charged(z), 1e-5) <= 1.0
    True
    """
    require.positive(**{"epsilon": epsilon})
    require.finite(**{"epsilon": epsilon})

    def by_rdp(z: float) -> float:
        spent = spend(charged(z), delta, pld=False)
        return max((one.claim() for one in spent), default=math.inf)

    low, high = _LEAST, 1.0
    while by_rdp(high) > epsilon:
        low, high = high, 2 * high
        if high > _MOST:
            raise ConfigError(
                f"epsilon {epsilon} at delta {delta:g} is out of reach in this run: no noise up to"
                f" {_MOST:g} gives it. Take fewer rounds, or raise it."
            )
    while high > low * 1.01:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if by_rdp(middle) > epsilon else (low, middle)
    return _by_claim(lambda z: printed(charged(z), delta), epsilon, high)


def _by_claim(claimed: Callable[[float], float], epsilon: float, high: float) -> float:
    """False position on log scales from a noise that is enough, which by the claim is too much."""
    at_high = claimed(high)
    low, at_low = high, at_high
    while at_low <= epsilon:
        if at_low >= _CLOSE * epsilon or low < _LEAST:
            return low
        high, at_high = low, at_low
        low *= max(0.5, (at_low / epsilon) ** 1.5 * 0.995)
        at_low = claimed(low)
    while high > low * (1 + 1e-5) and at_high < _CLOSE * epsilon:
        middle = math.sqrt(low * high)
        if math.isfinite(at_low) and 0 < at_high < at_low:
            target = epsilon * (1 + _CLOSE) / 2
            share = math.log(at_low / target) / math.log(at_low / at_high)
            middle = low * (high / low) ** min(max(share, 0.02), 0.98)
        value = claimed(middle)
        if value <= epsilon:
            high, at_high = middle, value
        else:
            low, at_low = middle, value
    return high
