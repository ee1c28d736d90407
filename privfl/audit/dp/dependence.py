"""Samplers played again: whether members are drawn for themselves, and anew in every round.

A sample amplifies because nobody else's being drawn, now or before, tells whether a member was.
Rates that are right one by one do not show that.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence

import numpy as np
import numpy.typing as npt

from privfl.audit.dp.evidence import Least, Test
from privfl.audit.dp.residual import SEEN
from privfl.core import Sampling

MOST_MEMBERS = 500
"""Members who are watched pair by pair."""
LAGS = 4
"""Rounds that are compared lie so far apart at most."""
Drawn = npt.NDArray[np.int64]


def dependence_tests(
    runs: Sequence[Sequence[Collection[Hashable]]], sampling: Sampling, about: str
) -> list[Test]:
    """Whether any two members are drawn together, and any one again after 1 to 4 rounds, as often
    as independent draws are; under Poisson sampling also how often cohorts are of usual size, and
    how often anybody at all is drawn again. Counts are exactly binomial. Nothing where everybody
    always pays.

    >>> rng = np.random.default_rng(0)
    >>> once = [[i for i in range(12) if rng.random() < 0.5] for _ in range(200)]
    >>> twice = [[cohort, cohort] for cohort in once]
    >>> honest = [once[at : at + 2] for at in range(0, 200, 2)]
    >>> poisson = Sampling("poisson", 0.5, 12)
    >>> min(test.p for test in dependence_tests(honest, poisson, "")) > 1e-6
    True
    >>> min(test.p for test in dependence_tests(twice, poisson, "")) < 1e-60
    True
    """
    if sampling.rate >= 1 or sampling.scheme not in ("poisson", "fixed_size"):
        return []
    n, q = sampling.population, float(sampling.rate)
    poisson = sampling.scheme == "poisson"
    drawn = _tables(runs, n)
    beside = q if poisson else (round(q * n) - 1) / max(n - 1, 1)
    tests = [_pairs(drawn, q * beside, about)] if n > 1 and beside > 0 else []
    if poisson:
        tests.append(_sizes(runs, n, q, about))
    for lag in range(1, LAGS + 1):
        again = [_again(one, lag) for one in drawn if len(one) > lag]
        if again and sum(map(len, again)):
            tests.append(_returns(np.concatenate(again), lag, q, n, poisson, about))
    return tests


def _tables(runs: Sequence[Sequence[Collection[Hashable]]], n: int) -> list[Drawn]:
    """Of each run who was drawn [rounds, members]: members whom nobody ever saw are zeros."""
    seen = dict.fromkeys(member for run in runs for cohort in run for member in cohort)
    at = {member: i for i, member in enumerate(seen)}
    tables = []
    for run in runs:
        table = np.zeros((len(run), max(n, len(at))), dtype=np.int64)
        for number, cohort in enumerate(run):
            table[number, [at[member] for member in cohort]] = 1
        tables.append(table)
    return tables


def _again(table: Drawn, lag: int) -> Drawn:
    """Who was in both of two rounds [pairs, members], no round in two pairs."""
    first = np.arange(len(table) - lag)
    first = first[first // lag % 2 == 0]
    both: Drawn = table[first] * table[first + lag]
    return both


def _pairs(drawn: Sequence[Drawn], p: float, about: str) -> Test:
    whole = np.concatenate(drawn)[:, :MOST_MEMBERS].astype(np.float64)
    each = np.rint((whole.T @ whole)[np.triu_indices(whole.shape[1], 1)]).astype(np.int64)
    odd = _oddest(each, len(whole), p)
    seen = f"two members together: {odd[0]} of {len(whole)} draws, at chance {p:.4g}"
    words = "two of them together at "
    return Test("drawn together", about, seen, odd[1], _least(len(whole), p, len(each), words))


def _sizes(runs: Sequence[Sequence[Collection[Hashable]]], n: int, q: float, about: str) -> Test:
    """How often a cohort's size is within two thirds of a deviation of what is expected: always
    where it is fixed, and never where all are drawn or nobody.
    """
    from scipy.stats import binom

    middle, wide = n * q, max(0.67 * (n * q * (1 - q)) ** 0.5, 0.5)
    low, high = np.ceil(middle - wide), np.floor(middle + wide)
    p = float(binom.cdf(high, n, q) - binom.cdf(low - 1, n, q))
    sizes = [len(set(cohort)) for run in runs for cohort in run]
    usual = np.array([sum(low <= size <= high for size in sizes)])
    count, chance = _oddest(usual, len(sizes), p)
    seen = f"{count} of {len(sizes)} cohorts have {low:g} to {high:g} members, at chance {p:.4g}"
    words = "cohorts of usual size at "
    return Test("cohort sizes", about, seen, chance, _least(len(sizes), p, 1, words))


def _returns(again: Drawn, lag: int, q: float, n: int, poisson: bool, about: str) -> Test:
    trials, each = len(again), again.sum(axis=0)
    number, p = len(each), q * q
    count, chance = _oddest(each, trials, p)
    seen = f"one member again {lag} rounds later: {count} of {trials}, at chance {p:.4g}"
    if poisson:
        everybody, all_chance = _oddest(np.array([int(each.sum())]), trials * number, p)
        seen = f"{seen}; anybody: {everybody} of {trials * number}"
        chance = min(1.0, 2 * min(chance, all_chance))
        least = _least(trials * number, p, 2, f"all of them again {lag} rounds later at ")
    else:
        least = _least(trials, p, number, f"one of them again {lag} rounds later at ")
    return Test("drawn again", about, seen, chance, least)


def _oddest(counts: Drawn, trials: int, p: float) -> tuple[int, float]:
    """The oddest of binomial counts, and the chance that any of them is so odd, either way."""
    from scipy.stats import binom

    if not len(counts):
        return 0, 1.0
    most, fewest = int(counts.max()), int(counts.min())
    high = float(binom.sf(most - 1, trials, p))
    low = float(binom.cdf(fewest, trials, p))
    return (most if high <= low else fewest), min(1.0, 2 * len(counts) * min(high, low))


def _least(trials: int, p: float, among: int, words: str) -> Least:
    from scipy.stats import binom

    def least(level: float) -> str:
        needed = float(binom.isf(level / 2 / among, trials, p)) + 1
        chances = np.linspace(p, 1, 2001)[1:]
        seen = chances[binom.sf(needed - 1, trials, chances) >= SEEN]
        return f"{words}{seen[0]:.3f} for {p:.3g}" if len(seen) else f"{words}no chance"

    return least
