"""The Gaussian mechanism, at the server or at each client."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

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
from privfl.dp.guarantee import central, local
from privfl.dp.noise import normals


def _noisy(vector: Vector, deviation: int | float, noise: NoiseSource) -> Vector:
    """The vector plus N(0, deviation^2) in each entry, in the vector's own type."""
    if deviation == 0:
        return vector.clone()
    return vector + normals(vector.numel(), noise).mul_(deviation).to(
        vector.device, vector.dtype
    ).view_as(vector)


def _bounded(sensitivity: int | float, norm: str) -> float:
    if not math.isfinite(sensitivity) or sensitivity < 0:
        raise ConfigError(
            f"noise needs a finite {norm} sensitivity, and it is {sensitivity}: set a clip and a"
            " rule that has one."
        )
    return sensitivity


@dataclass(frozen=True, slots=True)
class Gaussian(Mechanism):
    """Central Gaussian noise: the server adds N(0, (z sensitivity)^2) to every entry of the
    aggregate (Abadi et al. 2016; McMahan 2018).

    Guarantee: central DP against whoever sees the released models, with a server that is trusted to
    add the noise; epsilon by `privfl.dp.epsilon`. ``noise_multiplier=0`` adds nothing, and every
    account of it says that epsilon is infinite. The noise is from the source it is given (the
    operating system's CSPRNG unless a run says otherwise), in floating point.

    Raises:
        ConfigError: the noise multiplier is negative, or not finite.

    >>> import torch
    >>> from privfl.core import OsNoise
    >>> vector, event = Gaussian(noise_multiplier=1.0).release(
    ...     torch.zeros(3), Sensitivity(l2=0.5), survivors=10, noise=OsNoise()
    ... )
    >>> vector.shape, event
    (torch.Size([3]), DpEvent(mechanism='gaussian', parameters={'noise_multiplier': 1.0}))
    """

    examples: ClassVar[Examples] = {"": {"noise_multiplier": 1.0}}

    noise_multiplier: int | float

    def __post_init__(self) -> None:
        require.multiplier(noise_multiplier=self.noise_multiplier)

    def event(self, d: int) -> DpEvent:
        """What accounts for the noise on one vector [d]."""
        return DpEvent("gaussian", {"noise_multiplier": self.noise_multiplier})

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
        """The aggregate with noise, and its event; the vector that went in stays as it was.

        The noise follows the sensitivity, not the number of survivors, so a dropout cannot thin it.

        Raises:
            ConfigError: the sensitivity is not finite.
        """
        deviation = self.noise_multiplier * _bounded(sensitivity.l2, "L2")
        return _noisy(vector, deviation, noise), self.event(vector.numel())


@dataclass(frozen=True, slots=True)
class LocalGaussian(Mechanism):
    """Local DP: each client adds N(0, (z sensitivity)^2) to its own update, so nobody need be
    trusted, and utility pays for it.

    Guarantee: each client's update is private against everybody, the server included, whatever the
    others do. The sensitivity is how far two updates of one client can lie apart: twice the clip.
    No sampling or shuffling amplifies it.

    >>> LocalGaussian(noise_multiplier=2.0).noise_multiplier
    2.0
    """

    examples: ClassVar[Examples] = {"": {"noise_multiplier": 1.0}}
    local: ClassVar[bool] = True

    noise_multiplier: int | float

    def __post_init__(self) -> None:
        require.multiplier(noise_multiplier=self.noise_multiplier)

    def event(self, d: int) -> DpEvent:
        """What accounts for the noise on one client's vector [d]."""
        return DpEvent("gaussian", {"noise_multiplier": self.noise_multiplier})

    @property
    def guarantee(self) -> Guarantee[Mechanism]:
        """Who sees what without noise, and what leaving noise out does."""
        return local()

    def share(
        self, values: Vector, sensitivity: Sensitivity, among: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        """The client's vector with all of its noise, and the event.

        Raises:
            ConfigError: the sensitivity is not finite.
        """
        deviation = self.local_deviation(sensitivity)
        return _noisy(values, deviation, noise), self.event(values.numel())

    def local_deviation(self, sensitivity: Sensitivity) -> float:
        """Z times the L2 sensitivity.

        Raises:
            ConfigError: the sensitivity is not finite.
        """
        return self.noise_multiplier * _bounded(sensitivity.l2, "L2")

    def release(
        self, vector: Vector, sensitivity: Sensitivity, survivors: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        """Nothing more at the server."""
        return vector, None
