"""What the engine asks of a bound beyond core's protocol, where the bound declares it."""

from __future__ import annotations

from typing import Protocol, TypeGuard, runtime_checkable

from privfl.core import Bound, Mechanism


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

    def counting(self, moved: float) -> Mechanism:
        """What noises the sum of the bits, which one client moves by ``moved``."""
        ...

    def step(self, l2: float, bits: float) -> float:
        """The next round's L2 bound, from the sum of the bits as it was released."""
        ...


def adapts(bound: Bound) -> TypeGuard[AdaptiveBound]:
    """Whether a bound declares that it follows the clients' norms."""
    return bound.adaptive
