"""One list of charges that costs at least what each of several does, whatever is charged beside it.

Who pays most alone need not pay most together with what a later run adds: a few steps at a high
rate and many at a low one cross.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from privfl.core import Charge, DpEvent


def dominating(payers: Sequence[Sequence[Charge]]) -> list[Charge]:
    """Charges under which none of these payers is worse off, in whatever composition; in rounds of
    whoever pays for most releases.

    Releases that differ in their sampling rate alone (or, of unsampled Gaussians, in their noise
    alone) are laid side by side, each payer's dearest first, and of each place the dearest is
    taken.

    Proof: a release at a lower rate is the one at the higher rate of which a further coin leaves
    out whoever is protected, and a Gaussian of more noise is one of less with noise added. So each
    is no farther from its neighbour in hockey-stick divergence, nor is a composition, place by
    place, or one with places left out.

    >>> dominating([])
    []
    """
    alike: dict[Any, list[_Line]] = {}
    for charges in payers:
        own: dict[Any, list[Charge]] = {}
        for charge in charges:
            own.setdefault(_kind(charge), []).append(charge)
        for kind, mine in own.items():
            alike.setdefault(kind, []).append(_Line.of(mine))
    found = [charge for lines in alike.values() for charge in _dearest_of_each_place(lines)]
    return sorted(found, key=lambda charge: charge.round)


@dataclass(frozen=True)
class _Line:
    """One payer's charges of a kind, the dearest first, and the place after the last release of
    each.
    """

    charges: tuple[Charge, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, charges: Sequence[Charge]) -> _Line:
        ordered = tuple(sorted(charges, key=_cheapness))
        ends, end = [], 0
        for charge in ordered:
            end += charge.count
            ends.append(end)
        return cls(ordered, tuple(ends))

    def at(self, place: int) -> Charge | None:
        """The charge of a release, if there are so many."""
        found = bisect_right(self.ends, place)
        return self.charges[found] if found < len(self.charges) else None

    def steps(self) -> set[int]:
        """The places where it becomes cheaper, or ends."""
        after = (*self.charges[1:], None)
        return {
            end
            for end, one, other in zip(self.ends, self.charges, after, strict=True)
            if other is None or _cheapness(one) != _cheapness(other)
        }


def _kind(charge: Charge) -> Any:
    """What charges have in common that may be laid side by side."""
    drawn = charge.sampling
    plain = charge.event.mechanism == "gaussian" and drawn.scheme == "all"
    # a sample of fixed size that is everybody has another sensitivity than a smaller one
    whole = drawn.scheme == "fixed_size" and drawn.rate == 1
    rest = replace(
        charge,
        round=0,
        last=None,
        count=1,
        subject="",
        event=DpEvent("gaussian"),
        sampling=replace(drawn, rate=1.0, population=1, people=None),
    )
    return "" if plain else repr(charge.event), whole, repr(rest)


def _cheapness(charge: Charge) -> tuple[float, float]:
    noise = charge.event.parameters.get("noise_multiplier", 0.0)
    return -charge.sampling.rate, float(noise)


def _dearest_of_each_place(lines: Sequence[_Line]) -> list[Charge]:
    """The longest of the lines, with the dearest that any of them has at each place."""
    longest = max(lines, key=lambda line: line.ends[-1])
    all_drawn = [charge.sampling for line in lines for charge in line.charges]
    most = max(drawn.population for drawn in all_drawn)
    people = max(drawn.people or 0 for drawn in all_drawn) or None
    found, begun = list[Charge](), 0
    for end in sorted(set(longest.ends).union(*(line.steps() for line in lines))):
        there = [charge for line in lines if (charge := line.at(begun)) is not None]
        own = longest.at(begun)
        if own is None or end == begun:  # charges of nothing
            continue
        dearest = min(there, key=_cheapness)
        drawn = replace(own.sampling, rate=dearest.sampling.rate, population=most, people=people)
        found.append(replace(own, event=dearest.event, sampling=drawn, count=end - begun))
        begun = end
    return found
