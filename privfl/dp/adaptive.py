"""Adaptive clipping: the bound follows a quantile of the clients' norms, told by noisy counts that
are paid for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from privfl.core import (
    ConfigError,
    FixedBound,
    require,
)
from privfl.dp.clip import Clip
from privfl.dp.mechanisms import Gaussian


@dataclass(frozen=True, slots=True)
class AdaptiveClip(FixedBound):
    """Geometric updates towards the norm that a fraction ``quantile`` of the clients stays under
    (Andrew et al. 2021, algorithm 1).

    Each client says one bit: whether its norm was under the bound. The server adds Gaussian noise
    of ``count_noise`` to the sum of the bits, divides by the public ``denominator``, and multiplies
    the bound by e^(-rate (fraction - quantile)). A bit shifted to plus or minus one half has the
    sensitivity one half, so the count's noise multiplier is 2 ``count_noise``. `split` takes what
    the count spends out of the update's own noise, and together they cost exactly what the update
    alone would have.

    The bound before the first round is ``initial``; `step` hands out the next. Nothing is
    remembered here. A run fills in what is None: the ``denominator`` is the expected size of a
    cohort, and ``count_noise`` a twentieth of it, as in the paper. The bits travel through the
    run's channel as a sum.

    Raises:
        ConfigError: a setting out of range.

    >>> adaptive = AdaptiveClip(denominator=100, count_noise=5.0)
    >>> round(adaptive.split(1.0), 4)
    1.005
    """

    adaptive: ClassVar[bool] = True

    denominator: int | float | None = None
    count_noise: int | float | None = None
    initial: int | float = 0.1
    quantile: int | float = 0.5
    rate: int | float = 0.2

    def __post_init__(self) -> None:
        require.positive(initial=self.initial, rate=self.rate)
        require.within(0, 1, quantile=self.quantile)
        for name, value in (("denominator", self.denominator), ("count_noise", self.count_noise)):
            if value is not None:
                require.positive(**{name: value})

    def among(self, expected: int | float) -> AdaptiveClip:
        """The same for cohorts of this expected size, where nothing else was said."""
        denominator = expected if self.denominator is None else self.denominator
        return replace(
            self,
            denominator=denominator,
            count_noise=denominator / 20 if self.count_noise is None else self.count_noise,
        )

    @property
    def l2(self) -> float:
        """The bound of the first round."""
        return float(self.initial)

    def __call__(self, delta: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """Refused: a fixed clip in its place would adapt to nothing.

        Raises:
            ConfigError: always; ask `bound` for a round's clip.
        """
        raise ConfigError(
            "an adaptive clip moves from round to round: run it in a Federation, or clip with"
            " bound(l2) and call step()."
        )

    def describe(self) -> str:
        """What a report says."""
        return (
            f"adaptive: from {self.initial:g} towards the norm that {self.quantile:.0%} of the"
            " clients stay under"
        )

    def init(self) -> float:
        """The bound of the first round."""
        return float(self.initial)

    def bound(self, l2: int | float) -> Clip:
        """The round's clip."""
        return Clip(l2)

    def bit(self, length: int | float, l2: int | float) -> float:
        """What a client says: plus one half where its norm is under the bound, else minus one
        half.
        """
        return 0.5 if length <= l2 else -0.5

    def counting(self, moved: float) -> Gaussian:
        """What noises the sum of the bits: N(0, count_noise^2), in units of how far one client
        moves that sum (one half, or 1 where its bit is replaced by another).

        Raises:
            ConfigError: nobody said how many clients there are.
        """
        return Gaussian(self._settled()[1] / moved)

    def step(self, l2: int | float, bits: float) -> float:
        """The next bound, from the sum of the clients' bits as it was released.

        Raises:
            ConfigError: nobody said how many clients there are.
        """
        fraction = bits / self._settled()[0] + 0.5
        return float(l2 * math.exp(-self.rate * (fraction - self.quantile)))

    def _settled(self) -> tuple[float, float]:
        if self.denominator is None or self.count_noise is None:
            raise ConfigError(
                "an adaptive clip divides by the expected size of a cohort: give it a denominator,"
                " or ask among()."
            )
        return self.denominator, self.count_noise

    def split(self, noise_multiplier: int | float) -> float:
        """The update's noise multiplier with which update and count together cost what
        ``noise_multiplier`` alone does.

        Raises:
            ConfigError: the count alone costs more, or nobody said how much noise it has.
        """
        if self.count_noise is None:
            raise ConfigError(
                "an adaptive clip's noise is split by its count_noise: give it one, or ask among()."
            )
        left = noise_multiplier**-2 - (2 * self.count_noise) ** -2 if noise_multiplier else math.inf
        if not left > 0:
            raise ConfigError(
                f"counts with count_noise={self.count_noise} cost more than the whole noise"
                f" multiplier {noise_multiplier}: raise it above {noise_multiplier / 2}."
            )
        return float(left**-0.5)
