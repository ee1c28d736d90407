"""An epsilon in place of a noise multiplier: the noise of a layer that will play so many rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from privfl.core import (
    BudgetSpent,
    Channel,
    Charge,
    ConfigError,
    Ledger,
    Mechanism,
    RingNoise,
    Sampling,
    require,
)
from privfl.dp import least_noise, printed
from privfl.engine.compatibility import check_declared
from privfl.engine.journal import Journal

Noises: TypeAlias = Callable[[float], Mechanism | RingNoise]
"""Noise of each multiplier: the class of a mechanism, or a function."""
Noised: TypeAlias = tuple[Mechanism | None, Channel[Any]]
"""The noise on the aggregate, and the channel, which carries noise in shares."""
Costs: TypeAlias = Callable[[Mechanism | None, Channel[Any]], tuple[Charge, ...]]
"""What a round costs."""


@dataclass(slots=True)
class Asked:
    """What is asked of the noise that ``make`` makes: that ``rounds`` of a layer claim at most
    ``epsilon``. It is found once, when the first round says how long updates are.
    """

    make: Noises
    channel: Channel[Any]
    epsilon: float
    rounds: int
    found: Noised | None = field(default=None, init=False)
    multiplier: float | None = field(default=None, init=False)
    planned: tuple[Charge, ...] = field(default=(), init=False)

    def noised(self, noise_multiplier: float) -> Noised:
        """With this noise.

        Raises:
            ConfigError: noise in shares that the channel does not carry.
        """
        made = self.make(noise_multiplier)
        if isinstance(made, Mechanism):
            return made, self.channel
        if not isinstance(made, RingNoise) or not self.channel.kind.takes_noise:
            raise ConfigError(
                f"{type(made).__name__} is no noise on an aggregate, and"
                f" {type(self.channel).__name__} carries no noise in shares: give the class of one"
                " that fits, as Gaussian is."
            )
        noise: dict[str, Any] = {self.channel.kind.noise_field: made}
        return None, replace(self.channel, **noise)  # type: ignore[type-var]

    def settled(self, costs: Costs, delta: float) -> Noised:
        """With the noise that was found.

        Raises:
            ConfigError: no noise reaches it, or no claim can be made.
        """
        if self.found is None:

            def charged(noise_multiplier: float) -> Ledger:
                once = costs(*self.noised(noise_multiplier))
                return Ledger(tuple(replace(one, count=self.rounds * one.count) for one in once))

            self.multiplier = least_noise(self.epsilon, delta, charged)
            self.found = self.noised(self.multiplier)
            self.planned = tuple(replace(one, cohort=None) for one in costs(*self.found))
        return self.found

    def restored(self, multiplier: float, planned: tuple[Charge, ...]) -> Noised:
        """With the noise that was found before, and what a round was planned to cost."""
        self.multiplier, self.planned = multiplier, planned
        self.found = self.noised(multiplier)
        return self.found

    def refuse_beyond(
        self, journal: Journal, charged: Sequence[Charge], again: str, delta: float
    ) -> None:
        """Refuse a round that would bring the layer's claim beyond what was asked: one too many, or
        one after another that cost more than was planned (it failed, and was tried again).

        Raises:
            BudgetSpent: it would.
        """
        entries = {**journal.entries(), again or "this round": tuple(charged)}
        planned = [
            tuple(replace(one, round=0, cohort=None) for one in one_round) == self.planned
            for one_round in entries.values()
        ]
        if all(planned) and len(planned) <= self.rounds:
            return
        whole = printed(Ledger(tuple(one for each in entries.values() for one in each)), delta)
        if whole > self.epsilon:
            raise BudgetSpent(
                f"epsilon={self.epsilon:g} was asked of {self.rounds} rounds, and this one would"
                f" bring it to {whole:.3g} at delta {delta:g}: nothing of it was sent. End here, or"
                " ask for more rounds."
            )


def asked_of(
    mechanism: object, channel: Channel[Any], epsilon: float | None, rounds: int | None
) -> Asked | None:
    """What is asked in place of a noise multiplier; None where a multiplier is given.

    Raises:
        ConfigError: one of epsilon and rounds without the other; a mechanism that has its noise.
    """
    if epsilon is None and rounds is None:
        return None
    if epsilon is None or rounds is None:
        raise ConfigError(
            "epsilon and rounds go together: the noise follows from what all rounds may claim. Give"
            " both, or a mechanism with its noise multiplier and neither."
        )
    require.positive(epsilon=epsilon)
    require.finite(epsilon=epsilon)
    require.at_least(1, rounds=rounds)
    if not callable(mechanism):
        raise ConfigError(
            f"epsilon stands in place of a noise multiplier, and mechanism is {mechanism!r}: give"
            " its class, as in mechanism=Gaussian, epsilon=3.0, rounds=100."
        )
    return Asked(mechanism, channel, epsilon, rounds)


def require_mechanism(mechanism: object) -> Mechanism | None:
    """The noise on aggregates, if there is one.

    Raises:
        ConfigError: it is none.
    """
    if mechanism is None:
        return None
    if isinstance(mechanism, type) or not isinstance(mechanism, Mechanism):
        raise ConfigError(
            f"mechanism {mechanism!r} is no noise on an aggregate, as"
            " Gaussian(noise_multiplier=1.0) is: noise in shares goes into the channel that"
            " carries them, as in SecAgg(noise=...), and correlated noise into a"
            " Federation, which knows all rounds of the run."
        )
    check_declared(mechanism, "mechanism", "local", "event", "guarantee")
    return mechanism


def expected(sampling: Sampling) -> int:
    """How many clients a round has on average; two at least, as a channel may need them."""
    return max(2, round(sampling.rate * sampling.population))
