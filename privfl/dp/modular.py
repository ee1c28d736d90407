"""Distributed DP from end to end in a small ring: clip, rotate, scale, round, noise, wrap, sum,
unwrap.

(Kairouz, Liu, Steinke 2021, algorithms 1 and 2; Agarwal, Kairouz, Liu 2021, with Skellam noise.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from privfl.core import BadUpdate, ConfigError, DpEvent, NoiseSource, require
from privfl.dp.integers import Integers
from privfl.dp.mechanisms.distributed import DistributedDiscreteGaussian, DistributedSkellam
from privfl.dp.noise import uniforms
from privfl.dp.rotation import Floats, padded, rotate, unrotate

_LOG_BETA = 0.5
"""log(1 / beta) of conditional rounding: a draw is kept with probability of at least 1 -
e^(-1/2).
"""
_DEVIATIONS = 4.5
"""How many deviations of the sum the ring holds: a wrap costs its size times its rarity, 5e-4 of
the error here.
"""


@dataclass(frozen=True, slots=True)
class ModularCode:
    """How ``among`` clients with vectors [d] of norm at most ``l2`` sum in a ring of ``bits`` bits,
    noise included.

    The scale is the finest at which the sum fits, were all vectors alike; rounding is random, and
    repeated until the rounded norm is under `unit_l2`, which the noise follows.

    Raises:
        ConfigError: the ring cannot hold the sum at any scale.

    >>> ModularCode(bits=12, l2=1.0, d=1 << 14, among=100).overhead < 1.03
    True
    """

    bits: int
    l2: int | float
    d: int
    among: int
    noise: DistributedSkellam | DistributedDiscreteGaussian = DistributedSkellam(1.0)
    scale: float = field(init=False)

    def __post_init__(self) -> None:
        require.within(4, 48, bits=self.bits)
        require.positive(l2=self.l2)
        require.at_least(1, d=self.d, among=self.among)
        low, high = 0.0, float(1 << self.bits) / self.l2
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if self._fits(middle) else (low, middle)
        if not low * self.l2 > 1e-3:
            raise ConfigError(
                f"{self.bits} bits cannot hold the noisy sum of {self.among} vectors of {self.d}"
                " values: use more bits."
            )
        object.__setattr__(self, "scale", low)

    def _unit(self, scale: float) -> float:
        """The norm of a rounded vector (Kairouz, Liu, Steinke 2021, Proposition 22)."""
        n, length = padded(self.d), scale * self.l2
        return min(
            length + math.sqrt(n),
            math.sqrt(length**2 + n / 4 + math.sqrt(2 * _LOG_BETA) * (length + math.sqrt(n) / 2)),
        )

    def _fits(self, scale: float) -> bool:
        signal = (self.among * scale * self.l2) ** 2 / padded(self.d)
        variance = signal + self.among / 4 + (self.noise.noise_multiplier * self._unit(scale)) ** 2
        return _DEVIATIONS * math.sqrt(variance) <= 1 << (self.bits - 1)

    @property
    def unit_l2(self) -> float:
        """The norm of one contribution in integer units, rounding included."""
        return self._unit(self.scale)

    @property
    def overhead(self) -> float:
        """The noise's deviation over that of central Gaussian noise at the same noise
        multiplier.
        """
        return self.unit_l2 / (self.scale * self.l2)

    def encode(self, vector: Floats, seed: bytes, source: NoiseSource) -> Integers:
        """A client's ring integers [padded d] in [0, 2^bits): nothing but noise to whoever sees
        fewer than all.

        Raises:
            BadUpdate: the vector has another length, or a norm over the bound.
        """
        if vector.shape != (self.d,) or not np.linalg.norm(vector) <= self.l2 * (1 + 1e-6):
            raise BadUpdate(f"a vector of {self.d} values of norm at most {self.l2} was expected.")
        exact = rotate(vector, seed) * self.scale
        while True:
            whole = np.floor(exact + 1 - uniforms(len(exact), source))
            if np.linalg.norm(whole) <= self.unit_l2:
                break
        noised = self.noise.add(whole.astype(np.int64), self.unit_l2, self.among, source)
        return noised & ((1 << self.bits) - 1)

    def decode(self, total: Integers, seed: bytes) -> Floats:
        """The noisy sum [d] from the ring's sum of contributions."""
        half = 1 << (self.bits - 1)
        centred = ((total + half) & ((1 << self.bits) - 1)) - half
        return unrotate(centred / self.scale, seed, self.d)

    def event(self, survivors: int) -> DpEvent:
        """What accounts for the noise of the shares that did arrive."""
        return self.noise.event(self.unit_l2, padded(self.d), self.among, survivors)
