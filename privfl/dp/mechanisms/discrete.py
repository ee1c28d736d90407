"""Central noise on a grid: discrete Gaussian and Skellam, whose low-order bits tell nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from privfl.core import (
    ConfigError,
    DpEvent,
    Examples,
    Guarantee,
    Mechanism,
    NoiseSource,
    Sensitivity,
    Vector,
    require,
)
from privfl.dp.guarantee import central
from privfl.dp.integers import Integers, discrete_gaussian, skellam

_FINE = 32
"""Noise deviations are at least this many times what rounding can add to the sensitivity."""
_LEAST = 1 << 12


@dataclass(frozen=True, slots=True)
class _Grid:
    """A grid on which the noise's deviation is a power of two: that deviation, and the sensitivity,
    rounding included, in steps of it.
    """

    deviation: int
    l2: float
    d: int

    @classmethod
    def of(cls, noise_multiplier: float, d: int) -> _Grid:
        deviation = max(_LEAST, 1 << math.ceil(math.log2(_FINE * noise_multiplier * math.sqrt(d))))
        return cls(deviation, deviation / noise_multiplier, d)

    @property
    def numbers(self) -> dict[str, float]:
        """What events state."""
        return {
            "l2": self.l2,
            "l1": self.l2 * math.sqrt(self.d),
            "variance": float(self.deviation) ** 2,
        }

    def step(self, l2: float) -> float:
        """How wide a step is for a vector that moves so far, less sqrt(d) steps for rounding two
        neighbours.
        """
        if not math.isfinite(l2) or l2 <= 0:
            raise ConfigError(
                f"noise needs a finite L2 sensitivity above 0, and it is {l2}: set a clip and a"
                " rule that has one."
            )
        return l2 / (self.l2 - math.sqrt(self.d))

    def noisy(
        self,
        vector: Vector,
        l2: float,
        draw: Callable[[int, float, NoiseSource], Integers],
        noise: NoiseSource,
    ) -> Vector:
        values = vector.detach().cpu().double().numpy().reshape(-1)
        step = self.step(l2)
        whole = np.rint(values / step).astype(np.int64) + draw(
            values.size, float(self.deviation) ** 2, noise
        )
        return torch.from_numpy(whole * step).to(vector.device, vector.dtype).view_as(vector)


@dataclass(frozen=True, slots=True)
class DiscreteGaussian(Mechanism):
    """Central discrete Gaussian noise (Canonne, Kamath, Steinke 2020): the aggregate is rounded to
    a grid and noised on it, exactly.

    Guarantee: that of `Gaussian` with the same noise multiplier, rounding accounted for in the
    sensitivity, and none of the attacks on floating-point noise. Costs at most 3 % more deviation
    than the ideal Gaussian.

    Raises:
        ConfigError: the noise multiplier is not above 0.

    >>> from privfl.core import OsNoise
    >>> DiscreteGaussian(noise_multiplier=1.0).release(
    ...     torch.zeros(3), Sensitivity(l2=0.5), 10, OsNoise()
    ... )[1].mechanism
    'discrete_gaussian'
    """

    examples: ClassVar[Examples] = {"": {"noise_multiplier": 1.0}}

    noise_multiplier: int | float

    def __post_init__(self) -> None:
        require.positive(noise_multiplier=self.noise_multiplier)
        require.multiplier(noise_multiplier=self.noise_multiplier)

    def event(self, d: int) -> DpEvent:
        """What accounts for the noise on one vector [d], its rounding included."""
        numbers = _Grid.of(self.noise_multiplier, d).numbers
        return DpEvent("discrete_gaussian", {**numbers, "shares": 1, "d": d})

    @property
    def guarantee(self) -> Guarantee[Mechanism]:
        """Who sees what without noise, and what leaving noise out does."""
        return central()

    def share(
        self, values: Vector, sensitivity: Sensitivity, among: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        """Nothing at the clients."""
        return values, None

    def release(
        self, vector: Vector, sensitivity: Sensitivity, survivors: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        """The aggregate on its grid with noise, and the event."""
        grid = _Grid.of(self.noise_multiplier, vector.numel())
        noisy = grid.noisy(vector, float(sensitivity.l2), discrete_gaussian, noise)
        return noisy, self.event(vector.numel())


@dataclass(frozen=True, slots=True)
class Skellam(Mechanism):
    """Central Skellam noise (Agarwal, Kairouz, Liu 2021): as `DiscreteGaussian`, with the
    difference of two Poisson draws.

    >>> Skellam(noise_multiplier=1.0).noise_multiplier
    1.0
    """

    examples: ClassVar[Examples] = {"": {"noise_multiplier": 1.0}}

    noise_multiplier: int | float

    def __post_init__(self) -> None:
        require.positive(noise_multiplier=self.noise_multiplier)
        require.multiplier(noise_multiplier=self.noise_multiplier)

    def event(self, d: int) -> DpEvent:
        """What accounts for the noise on one vector [d], its rounding included."""
        return DpEvent("skellam", _Grid.of(self.noise_multiplier, d).numbers)

    @property
    def guarantee(self) -> Guarantee[Mechanism]:
        """Who sees what without noise, and what leaving noise out does."""
        return central()

    def share(
        self, values: Vector, sensitivity: Sensitivity, among: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        """Nothing at the clients."""
        return values, None

    def release(
        self, vector: Vector, sensitivity: Sensitivity, survivors: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        """The aggregate on its grid with noise, and the event."""
        grid = _Grid.of(self.noise_multiplier, vector.numel())
        noisy = grid.noisy(vector, float(sensitivity.l2), skellam, noise)
        return noisy, self.event(vector.numel())
