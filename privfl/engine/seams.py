"""What the engine asks of a bound beyond core's protocol, where the bound declares it."""

from __future__ import annotations

from typing import Protocol, TypeGuard, runtime_checkable

from privfl.core import Bound, DpEvent, NoiseSource


@runtime_checkable
class AdaptiveBound(Protocol):
    """A bound that declares itself adaptive, following the clients' norms: every client says one
    bit, the channel sums the bits, and the sum moves the bound.
    """

    def among(self, expected: float) -> AdaptiveBound:
        """The same for cohorts of this expected size."""
        ...

    def init(self) -> float:
        """The L2 bound of the first round."""
        ...

    def bound(self, l2: float) -> Bound:
        """A round's bound."""
        ...

    def bit(self, length: float, l2: float) -> float:
        """What a client says whose update has this norm: plus or minus one half."""
        ...

    def step(
        self, l2: float, bits: float, noise: NoiseSource | None, sensitivity: float
    ) -> tuple[float, DpEvent | None]:
        """The next round's L2 bound, and the event of having looked at the bits; exact and without
        an event where there is no noise.
        """
        ...

    def together(self, update: DpEvent, count: DpEvent) -> DpEvent:
        """One event for the noisy update and the noisy count of one cohort."""
        ...


def adapts(bound: Bound) -> TypeGuard[AdaptiveBound]:
    """Whether a bound declares that it follows the clients' norms."""
    return bound.adaptive
