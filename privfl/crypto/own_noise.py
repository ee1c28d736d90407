"""Where one party's noise on integers comes from, in one part of one round."""

from __future__ import annotations

import hashlib

from privfl.core import NoiseSource, PartyId, RoundPlan


def own_noise(source: NoiseSource, plan: RoundPlan, who: PartyId) -> NoiseSource:
    """A party's own stream of a source that a seed repeats, so that neither the order of parties
    nor rounds that a resumed run does not play again change what it draws; the operating system's
    is itself. Two parties, parts or rounds never share a stream: shares that are equal would not
    add up to the noise that is charged for.

    >>> from privfl.core import SeededNoise
    >>> plan, seeded = RoundPlan(0, (1, 2), 3, 1.0), SeededNoise(5)
    >>> one, other, again = (own_noise(seeded, plan, f"client/{i}") for i in (1, 2, 1))
    >>> drawn = one.random_bytes(8)
    >>> drawn == other.random_bytes(8), drawn == again.random_bytes(8)
    (False, True)
    """
    named = hashlib.sha256(f"{plan.part}/{who}".encode()).digest()
    return source.at(plan.number).at(int.from_bytes(named[:7], "big"))
