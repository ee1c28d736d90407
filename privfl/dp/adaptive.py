"""Adaptive clipping: the bound follows a quantile of the clients' norms, told by noisy counts that are paid for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from privfl.core import ConfigError, DpEvent, NoiseSource, require
from privfl.dp.clip import Clip
from privfl.dp.noise import normals


@dataclass(frozen=True, slots=True)
class AdaptiveClip:
    """Geometric updates towards the norm that a fraction ``quantile`` of the clients stays under (Andrew et al. 2021, algorithm 1).

    Each client says one bit: whether its norm was under the bound. The server adds Gaussian noise of ``count_noise`` to the sum of the
    bits, divides by the public ``denominator``, and multiplies the bound by e^(-rate (fraction - quantile)). A bit shifted to
    plus or minus one half has the sensitivity one half, so the count's noise multiplier is 2 ``count_noise``. `split` takes what the
    count spends out of the update's own noise, and together they cost exactly what the update alone would have.

    The bound before the first round is ``initial``; `step` hands out the next. Nothing is remembered here.

    Raises:
        ConfigError: a setting out of range.

    >>> adaptive = AdaptiveClip(denominator=100, count_noise=5.0)
    >>> round(adaptive.split(1.0), 4)
    1.005
    """

    denominator: int | float
    count_noise: int | float
    initial: int | float = 0.1
    quantile: int | float = 0.5
    rate: int | float = 0.2

    def __post_init__(self) -> None:
        require.positive(denominator=self.denominator, initial=self.initial, rate=self.rate, count_noise=self.count_noise)
        require.within(0, 1, quantile=self.quantile)

    def init(self) -> float:
        """The bound of the first round."""
        return float(self.initial)

    def bound(self, l2: int | float) -> Clip:
        """The round's clip."""
        return Clip(l2)

    def bit(self, length: int | float, l2: int | float) -> float:
        """What a client says: plus one half where its norm is under the bound, else minus one half."""
        return 0.5 if length <= l2 else -0.5

    def step(self, l2: int | float, bits: float, noise: NoiseSource) -> tuple[float, DpEvent]:
        """The next bound, from the sum of the clients' bits, and the event of having looked."""
        noisy = bits + self.count_noise * normals(1, noise).item()
        fraction = noisy / self.denominator + 0.5
        return float(l2 * math.exp(-self.rate * (fraction - self.quantile))), DpEvent(
            "gaussian", {"noise_multiplier": 2 * self.count_noise}
        )

    def split(self, noise_multiplier: int | float) -> float:
        """The update's noise multiplier with which update and count together cost what ``noise_multiplier`` alone does.

        Raises:
            ConfigError: the count alone costs more.
        """
        left = noise_multiplier**-2 - (2 * self.count_noise) ** -2 if noise_multiplier else math.inf
        if not left > 0:
            raise ConfigError(
                f"counts with count_noise={self.count_noise} cost more than the whole noise multiplier {noise_multiplier}: raise it"
                f" above {noise_multiplier / 2}."
            )
        return float(left**-0.5)
