"""Whether a cohort can have been drawn as its caller says."""

from __future__ import annotations

import math
from collections.abc import Collection

from scipy.stats import binom

from privfl.core import ClientId, ConfigError, Sampling


def require_drawn(n: int, sampling: Sampling) -> None:
    """Refuse a cohort of n that the sampling does not draw: its claim would be about other rounds.

    Raises:
        ConfigError: more clients than a sample holds, or, of a Poisson sample, more than it has but
            with chance 2^-40.
    """
    most = sampling.population * (sampling.rate if sampling.scheme == "fixed_size" else 1)
    unlikely = sampling.scheme == "poisson" and (
        binom.logsf(n - 1, sampling.population, sampling.rate) < -40 * math.log(2)
    )
    if n > most * (1 + 1e-9) or unlikely:
        raise ConfigError(
            f"{n} updates came, and {sampling.scheme} sampling at rate {sampling.rate:g} of"
            f" {sampling.population} clients does not draw so many: give the sampling that really"
            " chose this round's clients."
        )


def require_known(clients: Collection[ClientId], sampling: Sampling) -> None:
    """Refuse more clients, over all rounds, than there are to draw from: a rate of fewer is larger.

    Raises:
        ConfigError: there are more.
    """
    if len(clients) > sampling.population:
        raise ConfigError(
            f"{len(clients)} clients have sent updates in all rounds together, and sampling says"
            f" that they are drawn from a population of {sampling.population}: give the population"
            " that they are really drawn from, and the rate at which each of it is."
        )
