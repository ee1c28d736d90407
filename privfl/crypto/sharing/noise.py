"""Noise that each server adds to its share of the sum: as long as one of them adds its own and
keeps it to itself, the sum has the whole noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from privfl.core import DpEvent, Guarantee, Liars, NoiseSource, RingNoise

ONE_ADDS = (
    "one server that adds its noise to its share of the sum and tells nobody which (each adds the"
    " whole noise, and that of one alone is counted)"
)


@dataclass(frozen=True, slots=True)
class ServerNoise:
    """One server's noise on integers: the whole of what is charged for, and never a part of it,
    because the others may be the adversary.

    ``unit_l2`` is the largest norm of one contribution, in integer units.
    """

    noise: RingNoise
    unit_l2: float

    def draw(self, d: int, source: NoiseSource) -> npt.NDArray[np.int64]:
        """Fresh noise [d]."""
        return self.noise.add(np.zeros(d, dtype=np.int64), self.unit_l2, 1, source)

    def reach(self, servers: int) -> int:
        """How far the noise of so many servers moves any integer, but with chance 2^-40."""
        return self.noise.reach(self.unit_l2, 1, servers)

    def event(self, d: int) -> DpEvent:
        """What accounts for the noise of one server, where one contribution becomes zero."""
        return self.noise.event(self.unit_l2, d, 1, 1)


def noised(said: Guarantee[Liars], noise: RingNoise | None, *, proved: bool) -> Guarantee[Liars]:
    """What a channel promises whose servers add this noise; ``proved``: that it proves norms, so
    that the noise need not assume them.
    """
    if noise is None:
        return said
    bound = "norms that the servers verify" if proved else "a bound that clients keep"
    return replace(said, assumes=(*said.assumes, ONE_ADDS, f"a sensitivity that rests on {bound}"))
