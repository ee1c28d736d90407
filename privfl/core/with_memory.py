"""Noise whose rounds hang together: the seam of mechanisms that remember, and how often clients
take part in the run that they are made for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from privfl.core import require
from privfl.core.errors import ConfigError
from privfl.core.guarantee import Guarantee
from privfl.core.privacy import DpEvent, Sensitivity
from privfl.core.randomness import NoiseSource
from privfl.core.types import Vector

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Participation:
    """How often one client takes part in a run of so many ``rounds``: ``most`` times at most, any
    two of them at least ``apart`` rounds from each other (Choquette-Choo et al. 2023,
    "(k, b)-participation").

    ``rate`` is the chance with which a client is drawn, in secret and by a coin of its own, in each
    round in which its turn is, where there are turns: every ``apart`` rounds. 1: nobody draws.

    Raises:
        ConfigError: a number under 1, a rate outside of (0, 1].

    >>> Participation(rounds=10, most=100, apart=3).most
    4
    """

    rounds: int
    most: int
    apart: int = 1
    rate: float = 1.0

    def __post_init__(self) -> None:
        require.at_least(1, rounds=self.rounds, most=self.most, apart=self.apart)
        if not 0 < self.rate <= 1:
            raise ConfigError(f"a rate must lie in (0, 1], and is {self.rate}.")
        possible = math.ceil(self.rounds / self.apart)
        object.__setattr__(self, "most", min(self.most, possible))
        if self.most == 1:
            object.__setattr__(self, "apart", self.rounds)


@runtime_checkable
class RunNoise(Protocol[S]):
    """Central noise over one run, whose rounds hang together: what `WithMemory` makes of it.

    Row t of the noise goes with the t-th round since the noise began, whether that round released
    anything or not, and all rows together are ONE event. The state is secret: with it, who reads
    the releases subtracts the noise of one from another. It is used up by the release that it goes
    into, and never written down; who lost it begins anew, and pays for both.
    """

    @property
    def participation(self) -> Participation:
        """How often a client takes part at most: nothing is claimed of one who comes more often."""
        ...

    def event(self, rows: int) -> DpEvent:
        """What accounts for all of the first ``rows`` rows together, to whoever sees who takes
        part.
        """
        ...

    def sampled(self, rows: int) -> tuple[DpEvent, int] | None:
        """The same to whoever does not see who was drawn: an event of one Poisson sample at
        ``participation.rate``, and how many such samples the first ``rows`` rows are; None where
        that is not known to hold.
        """
        ...

    def init(self, d: int) -> S:
        """The state before the first row, of vectors [d]."""
        ...

    def release(
        self, vector: Vector, sensitivity: Sensitivity, state: S, noise: NoiseSource
    ) -> tuple[Vector, DpEvent, S]:
        """The aggregate [d] with the next row of the noise, the event of all rows so far, and the
        state after it.
        """
        ...


@runtime_checkable
class WithMemory(Protocol):
    """A mechanism whose noise hangs together over a run, which it must know before the first round:
    `over` makes the run's own noise. It declares that it ``remembers``.
    """

    __slots__ = ()
    remembers: ClassVar[Literal[True]] = True
    local: ClassVar[bool] = False

    @property
    def guarantee(self) -> Guarantee[WithMemory]:
        """Who sees what without noise, and what leaving noise out does."""
        ...

    def over(self, participation: Participation) -> RunNoise[Any]:
        """The noise of a run in which nobody takes part more often than this."""
        ...
