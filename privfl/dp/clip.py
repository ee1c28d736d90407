"""Bounds: what makes an update's norm at most l2."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from privfl.core import norm, require
from privfl.core.update import SLACK


@dataclass(frozen=True, slots=True)
class NoBound:
    """No bound at all: over the plain channel only, and without any privacy claim.

    >>> NoBound().l2
    inf
    """

    @property
    def l2(self) -> float:
        """Infinite."""
        return float("inf")

    def __call__(self, delta: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """The vector itself."""
        return delta


@dataclass(frozen=True, slots=True)
class Clip:
    """Scale a vector down to L2 norm ``l2`` where it is longer (Abadi et al. 2016, section 3.1: flat clipping).

    Zero vectors stay zero; NaN and infinities pass through, to be refused by name where a `Bounded` is made.

    Raises:
        ConfigError: ``l2`` is not above 0.

    >>> import torch
    >>> Clip(l2=1.0)(torch.tensor([3.0, 4.0]))
    tensor([0.6000, 0.8000])
    """

    l2: int | float

    def __post_init__(self) -> None:
        require.positive(l2=self.l2)

    def __call__(self, delta: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """A vector of norm at most ``l2`` (1e-6 less where it was cut, so that float32 rounding cannot lift it above)."""
        length = norm(delta)
        return delta * (self.l2 * (1 - SLACK) / length) if self.l2 < length < float("inf") else delta
