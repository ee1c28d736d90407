"""What mechanisms promise beside epsilon: who sees values without noise, and what it does to leave
noise out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from privfl.core import (
    Coalition,
    DpEvent,
    Guarantee,
    Lie,
    Mechanism,
    NoiseSource,
    RingNoise,
    Sensitivity,
    Vector,
    WithMemory,
)
from privfl.dp.integers import Integers

_OS = "noise from the operating system's randomness (a repeatable source voids every claim)"
_BOUND = "a proved sensitivity, and a bound that clients keep"


@dataclass(frozen=True, slots=True)
class _NoNoise(Mechanism):
    """A mechanism that adds nothing and says nothing of it."""

    @property
    def guarantee(self) -> Guarantee[Mechanism]:
        """None that holds."""
        return Guarantee((Coalition.of("server"),), (), ("everything",), ())

    def share(
        self, values: Vector, sensitivity: Sensitivity, among: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        """The values as they are."""
        return values, None

    def release(
        self, vector: Vector, sensitivity: Sensitivity, survivors: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        """The aggregate as it is."""
        return vector, None


@dataclass(frozen=True, slots=True)
class _NoShare:
    """Distributed noise of a client that adds nothing."""

    @property
    def guarantee(self) -> Guarantee[RingNoise]:
        """None that holds."""
        return Guarantee((), (), ("everything",), ())

    def add(
        self, integers: Integers, unit_l2: int | float, among: int, noise: NoiseSource
    ) -> Integers:
        """The integers as they are."""
        return integers.copy()

    def reach(self, unit_l2: int | float, among: int, contributors: int) -> int:
        """Nowhere."""
        return 0

    def event(self, unit_l2: int | float, d: int, among: int, survivors: int) -> DpEvent:
        """No noise."""
        return DpEvent("gaussian", {"noise_multiplier": 0.0})


def central() -> Guarantee[Mechanism]:
    """Noise that the server adds to what it has already read."""
    return Guarantee(
        reads=(Coalition.of("server"),),
        lies=(Lie(Coalition.of("server"), "read", "adds no noise", _NoNoise),),
        leaks=("the noisy aggregate",),
        assumes=("a server that adds the noise and forgets what it added it to", _BOUND, _OS),
        hidden="aggregates without noise",
    )


def correlated(silent: Callable[[], WithMemory]) -> Guarantee[WithMemory]:
    """Noise that the server adds to what it has already read, and that it must remember; ``silent``
    makes the same without noise.
    """
    said = central()
    return Guarantee(
        reads=said.reads,
        lies=(Lie(Coalition.of("server"), "read", "adds no noise", silent),),
        leaks=("the noisy aggregates",),
        assumes=(
            "a server that adds the noise and forgets what it added it to",
            "that what it remembers of past noise stays secret until the run ends",
            "clients that take part no more often than the run says",
            _BOUND,
            _OS,
        ),
        hidden=said.hidden,
    )


def local() -> Guarantee[Mechanism]:
    """Noise that each client adds to all that it sends."""
    return Guarantee(
        reads=(),
        lies=(
            Lie(
                Coalition.of("client/0"),
                "nothing",
                "adds no noise of its own, which exposes itself alone",
                _NoNoise,
            ),
        ),
        leaks=("each client's values under its own noise",),
        assumes=(_OS,),
        hidden="values without noise",
    )


def distributed() -> Guarantee[RingNoise]:
    """Shares of noise on the integers of a channel that sums: its guarantee comes first, because a
    server that reads one contribution reads it with one share of the noise only.
    """
    return Guarantee(
        reads=(),
        lies=(
            Lie(
                Coalition.of("client/0"),
                "nothing",
                "leaves its share of the noise out, where enough honest shares are planned for",
                _NoShare,
            ),
        ),
        leaks=("the noisy sum",),
        assumes=(
            "a channel that shows nobody a single contribution",
            "as many HONEST survivors as the quorum (clients that collude know their own shares,"
            " and the event counts all survivors)",
            _BOUND,
            _OS,
        ),
        hidden="sums without noise",
    )
