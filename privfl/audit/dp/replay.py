"""Samplers played again: how often each member was in, against what is charged for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Sequence

import numpy as np

from privfl.audit.dp.evidence import Least, Test
from privfl.audit.dp.residual import SEEN
from privfl.core import Coins, Participation, Sampling

FEWEST, MOST = 40, 2000
"""Draws that are watched at least and at most."""


def draws_for(population: int, inclusions: int) -> int:
    """How many draws from a population show so many inclusions."""
    return min(MOST, max(FEWEST, -(-inclusions // max(population, 1))))


def inclusion_tests(
    drawn: Sequence[Collection[Hashable]], sampling: Sampling, about: str
) -> list[Test]:
    """Whether more members were drawn than the charged rate says, all together and each for
    itself, and whether a cohort of fixed size has another; nothing where everybody always pays.

    >>> always = [range(10)] * 100
    >>> together, each = inclusion_tests(always, Sampling("poisson", 0.1, 10), "")
    >>> together.p < 1e-200, each.p < 1e-90
    (True, True)
    """
    from scipy.stats import binom

    if sampling.rate >= 1 or sampling.scheme not in ("poisson", "fixed_size"):
        return []
    rounds, n, q = len(drawn), sampling.population, float(sampling.rate)
    counts = Counter(member for cohort in drawn for member in cohort)
    most, total = max(counts.values(), default=0), sum(counts.values())
    each = Test(
        "each one's rate",
        about,
        f"the one drawn most often: {most} of {rounds}, charged for {q:g}",
        min(1.0, n * float(binom.sf(most - 1, rounds, q))),
        _least_rate(rounds, q, n, "one of them at "),
    )
    if sampling.scheme == "fixed_size":
        size = round(q * n)
        other = sum(len(cohort) > size for cohort in drawn)
        seen = f"{other} of {rounds} cohorts are larger than {size}"
        return [Test("size", about, seen, 0.0 if other else None), each]
    trials = rounds * n
    together = Test(
        "sampling rate",
        about,
        f"{total / trials:.4f} in {trials:,} inclusions, charged for {q:g}",
        float(binom.sf(total - 1, trials, q)),
        _least_rate(trials, q, 1, ""),
    )
    return [together, each]


def participation_test(
    drawn: Sequence[Sequence[Collection[Hashable]]], allowed: Participation, about: str
) -> Test:
    """Whether in any run of cohorts a member comes sooner again, or more often, than the noise of
    the run allows.

    >>> often = Participation(rounds=4, most=2, apart=2)
    >>> participation_test([[{1}, {2}, {1}, {2}]], often, "").p is None
    True
    >>> participation_test([[{1}, {1}, {2}, {2}]], often, "").p
    0.0
    """
    soonest, most = allowed.rounds, 0
    for run in drawn:
        last: dict[Hashable, int] = {}
        counts = Counter[Hashable]()
        for number, cohort in enumerate(run):
            for member in cohort:
                soonest = min(soonest, number - last.get(member, number - soonest))
                last[member] = number
            counts.update(cohort)
        most = max([most, *counts.values()])
    broken = most > allowed.most or (most > 1 and soonest < allowed.apart)
    again = f", {soonest} rounds apart or more" if most > 1 else ""
    seen = f"at most {most} times{again}; allowed are {allowed.most}, {allowed.apart} apart"
    return Test("participation", about, seen, 0.0 if broken else None)


def in_turns(
    drawn: Sequence[Sequence[Collection[Hashable]]], turns: int
) -> list[Collection[Hashable]]:
    """Who was drawn in so many rounds in a row, in which everybody has one turn.

    >>> in_turns([[{1}, {2}, {3}, set(), {5}]], 2) == [{1, 2}, {3}]
    True
    """
    return [
        set().union(*run[start : start + turns])
        for run in drawn
        for start in range(0, len(run) - turns + 1, turns)
    ]


def source_test(sampled: bool, coins: Coins, asked: int, about: str) -> list[Test]:
    """Whether samples that are charged as drawn from secret coins asked the noise source for
    any.
    """
    if not sampled or coins != "secret":
        return []
    seen = f"{asked:,} bytes were asked of the noise source"
    return [Test("secret coins", about, seen, None if asked else 0.0)]


def _least_rate(trials: int, q: float, among: int, words: str) -> Least:
    from scipy.stats import binom

    def least(level: float) -> str:
        needed = float(binom.isf(level / among, trials, q)) + 1
        rates = np.linspace(q, 1, 2001)[1:]
        seen = rates[binom.sf(needed - 1, trials, rates) >= SEEN]
        return f"{words}rate {seen[0]:.3f} for {q:g}" if len(seen) else f"{words}no rate"

    return least
