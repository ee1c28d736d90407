"""Schedules: how the noise multiplier, or the clip, changes from round to round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from privfl.core import (
    ConfigError,
    DpEvent,
    Examples,
    Guarantee,
    Mechanism,
    Needs,
    NoiseSource,
    Sensitivity,
    Vector,
    require,
    unknown,
)
from privfl.dp.accounting import calibrate
from privfl.dp.clip import Clip
from privfl.dp.guarantee import central
from privfl.dp.mechanisms import Gaussian


@runtime_checkable
class Schedule(Protocol):
    """A factor for the noise multiplier, or the clip, of every round."""

    def factor(self, round: int) -> float:
        """What this round's is multiplied by."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """The same every round.

    >>> Constant().factor(7)
    1.0
    """

    def factor(self, round: int) -> float:
        """One."""
        return 1.0


@dataclass(frozen=True, slots=True)
class Decaying:
    """Noise that falls over the rounds (Yu et al. 2019, section 4.2), for late rounds have small
    updates.

    ``"time"``: 1 / (1 + k t); ``"exponential"``: e^(-k t); ``"step"``: k^floor(t / period);
    ``"polynomial"``: from 1 down to ``end`` in ``period`` rounds, (1 - end) (1 - t / period)^k +
    end. It depends on the round alone, never on data, so each round is accounted for with its own
    noise.

    Raises:
        ConfigError: a setting out of range.

    >>> [Decaying("step", k=0.5, period=10).factor(t) for t in (0, 9, 10, 25)]
    [1.0, 1.0, 0.5, 0.25]
    """

    kind: Literal["time", "exponential", "step", "polynomial"] = "exponential"
    k: int | float = 0.01
    period: int = 10
    end: int | float = 0.3

    def __post_init__(self) -> None:
        if self.kind not in ("time", "exponential", "step", "polynomial"):
            raise ConfigError(
                unknown("schedule", self.kind, ("time", "exponential", "step", "polynomial"))
            )
        require.positive(k=self.k, end=self.end)
        require.at_least(1, period=self.period)

    def factor(self, round: int) -> float:
        """The round's factor."""
        if self.kind == "time":
            return float(1 / (1 + self.k * round))
        if self.kind == "exponential":
            return math.exp(-self.k * round)
        if self.kind == "step":
            return float(self.k ** (round // self.period))
        return float((1 - self.end) * (1 - min(round / self.period, 1)) ** self.k + self.end)


@dataclass(frozen=True, slots=True)
class PerRound:
    """A factor for each round by hand.

    Raises:
        ConfigError: no factors, or one that is not above 0.

    >>> PerRound((1.0, 0.5)).factor(1)
    0.5
    """

    factors: Sequence[int | float]

    def __post_init__(self) -> None:
        require.at_least(1, **{"the number of factors": len(self.factors)})
        require.positive(**{"every factor": min(self.factors)})

    @classmethod
    def from_budgets(
        cls, epsilons: Sequence[int | float], *, delta: int | float, sample_rate: int | float
    ) -> tuple[PerRound, float]:
        """Factors and the noise multiplier with which round t alone spends ``epsilons[t]`` at
        ``delta``.

        The run as a whole spends less than their sum: ask `epsilon` or a ledger, not the sum.
        """
        noise = [
            calibrate(epsilon=e, delta=delta, sample_rate=sample_rate, steps=1) for e in epsilons
        ]
        return cls(tuple(z / noise[0] for z in noise)), noise[0]

    def factor(self, round: int) -> float:
        """The round's factor.

        Raises:
            ConfigError: a round beyond the last.
        """
        if not 0 <= round < len(self.factors):
            raise ConfigError(
                f"the schedule has {len(self.factors)} rounds, and round {round} was asked for."
            )
        return float(self.factors[round])


@dataclass(frozen=True, slots=True)
class Scheduled(Mechanism):
    """Gaussian noise that follows a schedule: ``at`` makes each round's mechanism, which accounts
    for itself.

    >>> Scheduled(noise_multiplier=2.0, schedule=Decaying("exponential", k=0.1)).at(0)
    Gaussian(noise_multiplier=2.0)
    """

    examples: ClassVar[Examples] = {"": {"noise_multiplier": 1.0, "schedule": Constant()}}

    noise_multiplier: int | float
    schedule: Schedule

    @classmethod
    def for_budget(
        cls,
        schedule: Schedule,
        *,
        epsilon: int | float,
        delta: int | float,
        sample_rate: int | float,
        rounds: int,
    ) -> Scheduled:
        """The least noise with which all rounds together spend at most ``epsilon``."""
        factors = [schedule.factor(t) for t in range(rounds)]
        return cls(
            calibrate(
                epsilon=epsilon,
                delta=delta,
                sample_rate=sample_rate,
                steps=rounds,
                schedule=factors,
            ),
            schedule,
        )

    def __post_init__(self) -> None:
        require.multiplier(noise_multiplier=self.noise_multiplier)

    @property
    def guarantee(self) -> Guarantee[Mechanism]:
        """Who sees what without noise, and what leaving noise out does."""
        return central()

    def at(self, round: int) -> Gaussian:
        """The round's mechanism."""
        return Gaussian(self.noise_multiplier * self.schedule.factor(round))

    def event(self, d: int) -> DpEvent:
        """Refused, as `release`."""
        raise self._without_a_round()

    def share(
        self, values: Vector, sensitivity: Sensitivity, among: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        """Nothing at the clients."""
        return values, None

    def release(
        self, vector: Vector, sensitivity: Sensitivity, survivors: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        """Refused: the noise depends on the round, which only `at` is told.

        Raises:
            ConfigError: always.
        """
        raise self._without_a_round()

    def _without_a_round(self) -> ConfigError:
        return ConfigError(
            "this noise follows a schedule by rounds: run it in a Federation, or release with"
            " at(round)."
        )


@dataclass(frozen=True, slots=True)
class ScheduledClip:
    """A clip that follows a schedule: ``l2`` times the round's factor; the noise follows the clip,
    so the privacy stays the same.

    Raises:
        ConfigError: ``l2`` is not above 0.

    >>> ScheduledClip(l2=2.0, schedule=Decaying("step", k=0.5, period=10)).at(10)
    Clip(l2=1.0)
    """

    adaptive: ClassVar[bool] = False
    needs: ClassVar[Needs] = {}

    l2: int | float
    schedule: Schedule

    def __post_init__(self) -> None:
        require.positive(l2=self.l2)

    @property
    def parts(self) -> None:
        """None: the whole vector."""
        return

    def at(self, round: int) -> Clip:
        """The round's clip."""
        return Clip(self.l2 * self.schedule.factor(round))

    def describe(self) -> str:
        """What a report says."""
        return (
            f"every update's L2 norm at most {self.l2:g} times the round's factor by"
            f" {self.schedule!r}"
        )

    def __call__(self, delta: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """Refused: the clip depends on the round, which only `at` is told.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "this clip follows a schedule by rounds: run it in a Federation, or clip with"
            " at(round)."
        )
