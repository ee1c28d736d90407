"""Central noise on a grid: discrete Gaussian and Skellam, whose low-order bits tell nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from privfl.core import (
    ConfigError,
    DpEvent,
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
    """Steps of a grid on which the noise's deviation is a power of two, and the sensitivity in
    steps, rounding included.
    """

    step: float
    l2: float
    deviation: int

    @classmethod
    def of(cls, noise_multiplier: float, l2: float, d: int) -> _Grid:
        if not math.isfinite(l2) or l2 <= 0:
            raise ConfigError(
                f"noise needs a finite L2 sensitivity above 0, and it is {l2}: set a clip and a"
                " rule that has one."
            )
        deviation = max(_LEAST, 1 << math.ceil(math.log2(_FINE * noise_multiplier * math.sqrt(d))))
        steps = (
            deviation / noise_multiplier
        )  # the whole sensitivity: the vector's own, and sqrt(d) for rounding two neighbours
        return cls(l2 / (steps - math.sqrt(d)), steps, deviation)

    def noisy(
        self,
        vector: Vector,
        draw: Callable[[int, float, NoiseSource], Integers],
        noise: NoiseSource,
    ) -> Vector:
        values = vector.detach().cpu().double().numpy().reshape(-1)
        whole = np.rint(values / self.step).astype(np.int64) + draw(
            values.size, float(self.deviation) ** 2, noise
        )
        return torch.from_numpy(whole * self.step).to(vector.device, vector.dtype).view_as(vector)


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

    noise_multiplier: int | float

    def __post_init__(self) -> None:
        require.positive(noise_multiplier=self.noise_multiplier)

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
        d = vector.numel()
        grid = _Grid.of(self.noise_multiplier, float(sensitivity.l2), d)
        event = DpEvent(
            "discrete_gaussian",
            {
                "l2": grid.l2,
                "l1": grid.l2 * math.sqrt(d),
                "variance": float(grid.deviation) ** 2,
                "shares": 1,
                "d": d,
            },
        )
        return grid.noisy(vector, discrete_gaussian, noise), event


@dataclass(frozen=True, slots=True)
class Skellam(Mechanism):
    """Central Skellam noise (Agarwal, Kairouz, Liu 2021): as `DiscreteGaussian`, with the
    difference of two Poisson draws.

    >>> Skellam(noise_multiplier=1.0).noise_multiplier
    1.0
    """

    noise_multiplier: int | float

    def __post_init__(self) -> None:
        require.positive(noise_multiplier=self.noise_multiplier)

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
        d = vector.numel()
        grid = _Grid.of(self.noise_multiplier, float(sensitivity.l2), d)
        event = DpEvent(
            "skellam",
            {"l2": grid.l2, "l1": grid.l2 * math.sqrt(d), "variance": float(grid.deviation) ** 2},
        )
        return grid.noisy(vector, skellam, noise), event
