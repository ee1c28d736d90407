"""Where noise is weakest: a lie about one vector, one round, one coordinate or one block of them is
drowned in a test of all values together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from privfl.audit.dp.evidence import Test
from privfl.audit.dp.residual import SEEN, Noise

_FINE = 0.5
"""The share of values that must differ from each other: sums of a few values on a coarse grid are
not chi-squared.
"""


@dataclass(frozen=True, slots=True)
class _Group:
    """Sums of one kind: their words, and each with its degrees of freedom."""

    words: str
    totals: Noise
    degrees: int


def weakest_test(runs: Sequence[Sequence[Noise]], shape: str, about: str) -> Test:
    """Whether noise, in units of its claimed scale, varies less than is claimed in any one vector
    [d], in any one round of all plays together, or over all vectors in any one coordinate or block
    of 2, 4, 8, ... of them, blocks that begin at multiples of half their size. Bonferroni over all
    of these.

    >>> rng = np.random.default_rng(0)
    >>> weak = rng.normal(size=(1, 60, 128))
    >>> weakest_test([list(weak[0])], "gaussian", "").p > 1e-6
    True
    >>> weak[:, :, 3] = 0
    >>> weakest_test([list(weak[0])], "gaussian", "").p < 1e-6
    True
    """
    from scipy.stats import chi2

    vectors = [vector for run in runs for vector in run]
    values = np.concatenate(vectors)
    if len(np.unique(values)) < _FINE * len(values):
        return Test("weakest noise", about, "values on too coarse a grid: not looked at")
    power, unit = (1.0, 2) if shape == "laplace" else (2.0, 1)
    d = min(map(len, vectors))
    spread = [[unit * np.abs(vector[:d]) ** power for vector in run] for run in runs]
    groups = _groups(spread, d, unit)
    found = [chi2.cdf(group.totals, group.degrees) for group in groups]
    number = sum(map(len, found))
    group, low = min(zip(groups, found, strict=True), key=lambda pair: float(pair[1].min()))
    at = int(low.argmin())
    factor = float(group.totals[at] / group.degrees) ** (1 / power)

    def least(level: float) -> str:
        said = []
        for one in groups:
            bar = chi2.ppf(level / number, one.degrees)
            seen = float((bar / chi2.ppf(SEEN, one.degrees)) ** (1 / power))
            said.append(f"x {seen:.3f} in {one.words}")
        return f"noise {', '.join(said)}"

    seen = f"{factor:.4f} of the claimed deviation in {group.words}, number {at}"
    return Test("weakest noise", about, seen, min(1.0, number * float(low.min())), least)


def _groups(spread: Sequence[Sequence[Noise]], d: int, unit: int) -> list[_Group]:
    vectors = np.stack([vector for run in spread for vector in run])
    n = len(vectors)
    groups = [_Group(f"one vector of {d:,}", vectors.sum(axis=1), unit * d)]
    longest = min(map(len, spread))
    if longest > 1 and len(spread) > 1:
        rounds = np.array([sum(float(run[t].sum()) for run in spread) for t in range(longest)])
        groups.append(_Group("one round of all plays", rounds, unit * d * len(spread)))
    columns = vectors.sum(axis=0)
    groups.append(_Group("one coordinate", columns, unit * n))
    upto = np.concatenate([[0.0], np.cumsum(columns)])
    size = 2
    while size <= d // 2:
        starts = np.arange(0, d - size + 1, size // 2)
        totals = np.maximum(upto[starts + size] - upto[starts], 0.0)
        groups.append(_Group(f"{size:,} coordinates", totals, unit * n * size))
        size *= 2
    return groups
