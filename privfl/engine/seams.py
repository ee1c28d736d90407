"""What the engine asks of channels, bounds and mechanisms beyond core's protocols, where they offer
it.
"""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

from privfl.core import Bound, DpEvent, NoiseSource, RoundPlan

P_co = TypeVar("P_co", covariant=True)


@runtime_checkable
class Described(Protocol):
    """A channel that says for people who can read what."""

    def describe(self) -> str:
        """One sentence."""
        ...


@runtime_checkable
class CarriesNoise(Protocol):
    """A summing channel whose clients can add their shares of the noise to their integers."""

    def noise_event(self, plan: RoundPlan, survivors: int) -> DpEvent | None:
        """What accounts for the noise in a sum of so many survivors; None where there is none."""
        ...


@runtime_checkable
class Grouped(Protocol):
    """A channel whose rows are not single clients: what a rule sees are fewer rows than
    contributions.
    """

    def rows(self, contributions: int) -> int:
        """How many rows so many contributions make."""
        ...


@runtime_checkable
class AdaptiveBound(Protocol):
    """A bound that follows the clients' norms: every client says one bit, the channel sums the
    bits, and the sum moves the bound.
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


@runtime_checkable
class ByRound(Protocol[P_co]):
    """A part that is another one in every round: it follows a schedule."""

    def at(self, round: int) -> P_co:
        """The round's own."""
        ...


@runtime_checkable
class CountsItself(Protocol):
    """An attack that works for some numbers of attackers only."""

    def among(self, n: int, f: int) -> None:
        """Refuse f attackers among n."""
        ...
