"""Whether cohorts can have been drawn as their caller says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from privfl.core import ClientId, ConfigError, Sampling
from privfl.wrapper.names import Names

_NEVER = -40 * math.log(2)
"""What has a chance of less than 2^-40 was not drawn."""


def require_drawn(n: int, sampling: Sampling) -> None:
    """Refuse a cohort of n that the sampling does not draw: its claim would be about other rounds.
    Those who were drawn and dropped out are in n.

    Raises:
        ConfigError: another number of clients than a sample holds; of a Poisson sample, so many or
            so few as it has with a chance of 2^-40 at most.
    """
    population, rate = sampling.population, sampling.rate
    each = population * (rate if sampling.scheme == "fixed_size" else 1) * (1 + 1e-9)
    many, few = n > each, n < math.floor(each)
    if sampling.scheme == "poisson":
        from scipy.stats import binom

        many |= binom.logsf(n - 1, population, rate) < _NEVER
        few = binom.logcdf(n, population, rate) < _NEVER
    elif sampling.scheme in ("shuffled", "arrival"):
        few = False
    if many or few:
        raise ConfigError(
            f"{n} clients came, and {sampling.scheme} sampling at rate {rate:g} of {population}"
            f" clients does not draw so {'many' if many else 'few'}: give the sampling that really"
            " chose this round's clients, and name those who were drawn and did not come in"
            " dropped."
        )


@dataclass(slots=True)
class Turns:
    """How often each client was drawn, in so many rounds that were drawn anew."""

    rounds: int = 0
    by_client: Counter[ClientId] = field(default_factory=Counter)

    def require_known(self, cohort: Collection[ClientId], sampling: Sampling) -> None:
        """Refuse more clients, over all rounds, than there are to draw from: a rate of fewer is
        larger.

        Raises:
            ConfigError: there are more.
        """
        known = self.by_client.keys() | set(cohort)
        if len(known) > sampling.population:
            raise ConfigError(
                f"{len(known)} clients have sent updates in all rounds together, and sampling says"
                f" that they are drawn from a population of {sampling.population}: give the"
                " population that they are really drawn from, and the rate at which each of it is."
            )

    def require_chance(
        self, cohort: Collection[ClientId], sampling: Sampling, names: Names
    ) -> None:
        """Refuse a client who comes again and again where coins would not draw it so often: what
        sampling saves is saved for nobody who is always there.

        Raises:
            ConfigError: one came so often as somebody of the population does with a chance of 2^-40
                at most.
        """
        if sampling.scheme not in ("poisson", "fixed_size") or sampling.rate >= 1:
            return
        most = max(cohort, key=lambda client: self.by_client[client], default=None)
        if most is None:
            return
        from scipy.stats import binom

        times, rounds = self.by_client[most] + 1, self.rounds + 1
        chance = binom.logsf(times - 1, rounds, sampling.rate) + math.log(sampling.population)
        if chance < _NEVER:
            raise ConfigError(
                f"client {names.name(most)!r} was drawn in {times} of {rounds} rounds, and"
                f" {sampling.scheme} sampling at rate {sampling.rate:g} does not draw anybody so"
                " often: give the sampling that really chooses the clients."
            )

    def count(self, cohort: Collection[ClientId]) -> None:
        """A round was drawn."""
        self.rounds += 1
        self.by_client.update(cohort)

    def to_json(self) -> list[Any]:
        """As plain data."""
        return [self.rounds, sorted(self.by_client.items())]

    @classmethod
    def from_json(cls, written: Any) -> Turns:
        """From what `to_json` wrote."""
        rounds, by_client = written
        return cls(int(rounds), Counter({int(client): int(n) for client, n in by_client}))
