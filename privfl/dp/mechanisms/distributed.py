"""Distributed DP: each client adds a share of the noise to its ring integers, so that nobody ever
sees a sum without noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from privfl.core import DpEvent, Examples, Guarantee, NoiseSource, RingNoise, require
from privfl.dp.guarantee import distributed
from privfl.dp.integers import Integers, discrete_gaussian, skellam

_LOG = 73 * math.log(2)
"""Tails are bounded at 2^-72 an integer, both sides: 2^-40 in any of 2^32 integers."""


def _reach(variance: float) -> int:
    """Bernstein's bound for sums of unit jumps, which discrete Gaussians obey as well."""
    return math.ceil(_LOG / 3 + math.sqrt((_LOG / 3) ** 2 + 2 * variance * _LOG))


def _l1(unit_l2: float, d: int) -> float:
    """Of an integer vector: at most sqrt(d) times its L2 norm, and at most that norm squared."""
    return unit_l2 * min(math.sqrt(d), max(unit_l2, 1.0))


@dataclass(frozen=True, slots=True)
class DistributedSkellam:
    """Skellam shares under a summing channel (Agarwal, Kairouz, Liu 2021): they add up to Skellam
    noise exactly.

    Guarantee: central DP against the server and everybody else, as long as the channel shows nobody
    a single contribution (a server that lies to semi-honest secure aggregation reads one under one
    share of the noise) and ``among`` honest contributions survive; with fewer the event says what
    is left. ``noise_multiplier`` is the whole noise's deviation over the contribution's norm.
    Colluding clients know their own shares: plan ``among`` as the fewest HONEST survivors.

    Raises:
        ConfigError: the noise multiplier is negative.

    >>> event = DistributedSkellam(1.0).event(unit_l2=100.0, d=64, among=10, survivors=10)
    >>> event.parameters["variance"]
    10000.0
    """

    examples: ClassVar[Examples] = {"": {"noise_multiplier": 1.0}}

    noise_multiplier: int | float

    def __post_init__(self) -> None:
        require.multiplier(noise_multiplier=self.noise_multiplier)

    @property
    def guarantee(self) -> Guarantee[RingNoise]:
        """Who sees what without noise, and what leaving noise out does."""
        return distributed()

    def _variance(self, unit_l2: int | float, among: int, contributors: int) -> float:
        require.at_least(1, among=among)
        return (self.noise_multiplier * unit_l2) ** 2 * contributors / among

    def add(
        self, integers: Integers, unit_l2: int | float, among: int, noise: NoiseSource
    ) -> Integers:
        """New integers [d]: the contribution with one share of the noise in it."""
        variance = self._variance(unit_l2, among, 1)
        return integers + skellam(integers.size, variance, noise) if variance else integers.copy()

    def reach(self, unit_l2: int | float, among: int, contributors: int) -> int:
        """How far the noise of so many contributors moves any of up to 2^32 integers, but with
        chance 2^-40.
        """
        return _reach(self._variance(unit_l2, among, contributors))

    def event(self, unit_l2: int | float, d: int, among: int, survivors: int) -> DpEvent:
        """What accounts for the noise of the shares that did arrive."""
        variance = self._variance(unit_l2, among, survivors)
        return DpEvent("skellam", {"l2": unit_l2, "l1": _l1(unit_l2, d), "variance": variance})


@dataclass(frozen=True, slots=True)
class DistributedDiscreteGaussian:
    """Discrete Gaussian shares under a summing channel (Kairouz, Liu, Steinke 2021): their sum is
    nearly a discrete Gaussian.

    Guarantee: as `DistributedSkellam`; what "nearly" costs is in the event, and explodes where a
    share's deviation is near one.

    >>> noise = DistributedDiscreteGaussian(1.0)
    >>> noise.event(unit_l2=100.0, d=64, among=10, survivors=8).parameters["shares"]
    8
    """

    examples: ClassVar[Examples] = {"": {"noise_multiplier": 1.0}}

    noise_multiplier: int | float

    def __post_init__(self) -> None:
        require.multiplier(noise_multiplier=self.noise_multiplier)

    @property
    def guarantee(self) -> Guarantee[RingNoise]:
        """Who sees what without noise, and what leaving noise out does."""
        return distributed()

    def _variance(self, unit_l2: int | float, among: int, contributors: int) -> float:
        require.at_least(1, among=among)
        return (self.noise_multiplier * unit_l2) ** 2 * contributors / among

    def add(
        self, integers: Integers, unit_l2: int | float, among: int, noise: NoiseSource
    ) -> Integers:
        """New integers [d]: the contribution with one share of the noise in it."""
        variance = self._variance(unit_l2, among, 1)
        return (
            integers + discrete_gaussian(integers.size, variance, noise)
            if variance
            else integers.copy()
        )

    def reach(self, unit_l2: int | float, among: int, contributors: int) -> int:
        """How far the noise of so many contributors moves any of up to 2^32 integers, but with
        chance 2^-40.
        """
        return _reach(self._variance(unit_l2, among, contributors))

    def event(self, unit_l2: int | float, d: int, among: int, survivors: int) -> DpEvent:
        """What accounts for the noise of the shares that did arrive."""
        variance = self._variance(unit_l2, among, survivors)
        parameters = {
            "l2": unit_l2,
            "l1": _l1(unit_l2, d),
            "variance": variance,
            "shares": survivors,
            "d": d,
        }
        return DpEvent("discrete_gaussian", parameters)
