"""zCDP, basic and advanced composition: older, looser accounts of the Gaussian mechanism, for
comparison beside RDP and PLD.

There is no GDP account: its central limit theorem understates epsilon on every subsampled row that
we know, so it is no bound.
"""

from __future__ import annotations

import math

from scipy.special import log_ndtr, ndtr

from privfl.core import ConfigError


def zcdp_epsilon(noise_multiplier: int | float, steps: int, delta: float) -> float:
    """Epsilon of ``steps`` unsampled Gaussians by zCDP (Bun, Steinke 2016, Propositions 1.3, 1.6):
    rho + 2 sqrt(rho log(1 / delta)).

    zCDP has no amplification by sampling, so the rate does not enter.

    >>> round(zcdp_epsilon(5.0, 10, 1e-5), 3)
    3.235
    """
    if noise_multiplier == 0:
        return math.inf
    rho = steps / (2 * noise_multiplier**2)
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


def gaussian_epsilon(noise_multiplier: int | float, delta: float) -> float:
    """The least epsilon of ONE Gaussian at ``delta``, exactly (Balle, Wang 2018, Theorem 8).

    >>> round(gaussian_epsilon(1.0, 1e-5), 3)
    4.377
    """
    if noise_multiplier == 0:
        return math.inf

    def excess(epsilon: float) -> float:
        near, far = (
            1 / (2 * noise_multiplier) - epsilon * noise_multiplier,
            -1 / (2 * noise_multiplier) - epsilon * noise_multiplier,
        )
        return float(ndtr(near) - math.exp(min(epsilon + float(log_ndtr(far)), 700.0))) - delta

    if excess(0.0) <= 0:
        return 0.0
    from scipy.optimize import brentq

    high = 1.0
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0.0, high, xtol=1e-12))


def basic_epsilon(
    noise_multiplier: int | float, rate: int | float, steps: int, delta: float
) -> float:
    """Epsilons added up, each step amplified by its Poisson rate (Dwork et al. 2006; amplification:
    Balle, Barthe, Gaboardi 2018).

    >>> basic_epsilon(1.0, 1.0, 1, 1e-5) == gaussian_epsilon(1.0, 1e-5)
    True
    """
    return steps * _amplified(noise_multiplier, rate, delta / steps)


def advanced_epsilon(
    noise_multiplier: int | float, rate: int | float, steps: int, delta: float
) -> float:
    """Dwork, Rothblum, Vadhan 2010: sqrt(2 k log(1/d')) e + k e (e^e - 1); half of delta pays for
    the composition, half for the steps.

    >>> advanced_epsilon(20.0, 0.1, 1000, 1e-6) < basic_epsilon(20.0, 0.1, 1000, 1e-6)
    True
    """
    one = _amplified(noise_multiplier, rate, delta / (2 * steps))
    if not one < 700:
        return math.inf
    return math.sqrt(2 * steps * math.log(2 / delta)) * one + steps * one * math.expm1(one)


def _amplified(noise_multiplier: int | float, rate: int | float, delta: float) -> float:
    if not delta / rate < 1:
        raise ConfigError(
            f"delta {delta} a step at rate {rate} leaves nothing to amplify: use accountant 'rdp'."
        )
    base = gaussian_epsilon(noise_multiplier, delta / rate)
    return math.log1p(rate * math.expm1(base)) if base < 700 else base
