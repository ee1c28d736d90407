"""The Laplace mechanism: pure epsilon, calibrated to the L1 sensitivity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

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
from privfl.dp.noise import exponentials, uniforms


def laplaces(n: int, noise: NoiseSource) -> Vector:
    """N draws of density e^(-|x|) / 2, in float64.

    >>> from privfl.core import SeededNoise
    >>> abs(float(laplaces(100_000, SeededNoise(0)).abs().mean()) - 1) < 0.02
    True
    """
    signs = torch.from_numpy(uniforms(n, noise)).sub_(0.5).sign_()
    return exponentials(n, noise).mul_(signs)


@dataclass(frozen=True, slots=True)
class Laplace(Mechanism):
    """Central Laplace noise of scale (L1 sensitivity / epsilon) on every entry (Dwork et al. 2006,
    Proposition 1).

    Guarantee: pure ``epsilon``-DP of one release, with a server that is trusted to add the noise.
    Where only the L2 sensitivity is known, L1 is bounded by sqrt(d) L2: for long vectors Gaussian
    noise is far smaller. In floating point, as `Gaussian`.

    Raises:
        ConfigError: epsilon is not above 0.

    >>> Laplace(epsilon=0.5).event(d=3)
    DpEvent(mechanism='laplace', parameters={'scale': 2.0})
    """

    examples: ClassVar[Examples] = {"": {"epsilon": 1.0}}

    epsilon: int | float

    def __post_init__(self) -> None:
        require.positive(epsilon=self.epsilon)

    def event(self, d: int) -> DpEvent:
        """One release: the scale over the L1 sensitivity."""
        return DpEvent("laplace", {"scale": 1 / self.epsilon})

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
        """The aggregate with noise, and its event.

        Raises:
            ConfigError: neither the L1 nor the L2 sensitivity is finite.
        """
        n = vector.numel()
        l1 = min(float(sensitivity.l1), math.sqrt(n) * sensitivity.l2)
        if not math.isfinite(l1):
            raise ConfigError(
                "Laplace noise needs a finite L1 or L2 sensitivity: set a clip and a rule that has"
                " one."
            )
        drawn = laplaces(n, noise).mul_(l1 / self.epsilon)
        return vector + drawn.to(vector.device, vector.dtype).view_as(vector), self.event(n)
