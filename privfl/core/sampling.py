"""How the contributions to a release were drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from privfl.core import require
from privfl.core.errors import ConfigError

Scheme: TypeAlias = Literal["poisson", "fixed_size", "all", "shuffled", "arrival"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the contributions to one release were drawn: the scheme, the rate in (0, 1], the
    population it draws from. ``"arrival"``: nobody draws, who is ready is there, so that nothing is
    amplified.

    ``group`` is how many of these contributions belong to one of those whose privacy is charged, at
    most: a user's samples, or a user's clients. ``people`` is how many of those there are, where
    that is not the population.

    ``classes`` are given where those who are drawn have rates of their own: each class's name, rate
    and number. ``rate`` is then the largest of them, at which nobody pays too little.
    ``membership`` is a digest of who is in which: classes of two runs are the same where it is.

    Raises:
        ConfigError: a rate is outside of (0, 1], or a class's over ``rate``; a number under 1.

    >>> Sampling("poisson", rate=0.1, population=100).rate
    0.1
    """

    scheme: Scheme
    rate: int | float
    population: int
    group: int = 1
    people: int | None = None
    classes: tuple[tuple[str, float, int], ...] = ()
    membership: str = ""

    def __post_init__(self) -> None:
        for name, rate, _ in self.classes:
            if not 0 < rate <= self.rate:
                raise ConfigError(
                    f"class '{name}' is drawn at {rate}, which must lie in (0, {self.rate}]."
                )
        if not 0 < self.rate <= 1:
            raise ConfigError(f"a sampling rate must lie in (0, 1], and is {self.rate}.")
        require.at_least(1, group=self.group, people=self.people or 1)

    @property
    def least_rate(self) -> float:
        """At which some client is drawn at least."""
        return min((rate for _, rate, _ in self.classes), default=self.rate)

    @property
    def expected(self) -> float:
        """How many are drawn on average."""
        if not self.classes:
            return self.rate * self.population
        return sum(rate * number for _, rate, number in self.classes)
