"""The accountant, held against privacy losses that are drawn: for the worst known pair of
neighbours, (epsilon, delta) says that E max(0, 1 - e^(epsilon - L)) is at most delta (Balle, Wang
2018, Theorem 5).

A pair that two worlds really attain refutes a claim; the accountant's own bound may lie above it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from privfl.audit.dp.evidence import Test
from privfl.core import Charge, Ledger
from privfl.dp import spend
from privfl.dp.accounting.release import Release

DELTAS = (0.1, 0.01, 0.001)
DRAWS = 400_000
MOST_SAMPLED = 16
"""Sampled releases that one play of the losses adds up: those of the first rounds."""
FINE = 10.0
"""Noise on a grid with a deviation of so many steps is taken for a Gaussian."""
Losses = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two worlds of one release: Gaussians of deviation ``z`` about ``one`` or ``two`` with chance
    ``rate``, about zero else.
    """

    z: float
    rate: float
    one: float
    two: float

    def losses(self, n: int, rng: np.random.Generator) -> tuple[Losses, Losses]:
        """Privacy losses of the first world against the second, and of the second against the
        first.
        """
        drawn = []
        for mean, other in ((self.one, self.two), (self.two, self.one)):
            x = rng.normal(0, self.z, n) + mean * (rng.random(n) < self.rate)
            drawn.append(self._log_ratio(x, mean) - self._log_ratio(x, other))
        return drawn[0], drawn[1]

    def _log_ratio(self, x: Losses, mean: float) -> Losses:
        """Log of a world's density over that of N(0, z^2)."""
        if mean == 0:
            return np.zeros_like(x)
        shift = (mean * x - mean * mean / 2) / self.z**2
        if self.rate >= 1:
            return shift
        top = np.maximum(shift, 0.0)  # a tenth of what np.logaddexp takes
        out: Losses = top + np.log((1 - self.rate) * np.exp(-top) + self.rate * np.exp(shift - top))
        return out


def pair_of(release: Release) -> Pair | None:
    """The worst pair of worlds of one release that is known to be attained; None where none is.

    Distances are in units of the sensitivity under the relation, as noise multipliers are. A sample
    of fixed size has somebody else in the place of one that is not drawn, who may lie opposite.

    >>> pair_of(Release.gaussian(2.0, "poisson", 0.5))
    Pair(z=2.0, rate=0.5, one=1.0, two=0.0)
    """
    if release.mechanism == "gaussian":
        z = release.parameter("noise_multiplier")
    elif release.mechanism in ("discrete_gaussian", "skellam") and not release.amplified:
        deviation = math.sqrt(release.parameter("variance"))
        if deviation < FINE:
            return None
        z = deviation / release.parameter("l2")
    else:
        return None
    if not z > 0:
        return None
    if not release.amplified:
        return Pair(z, 1.0, 1.0, 0.0)
    if release.scheme == "poisson":
        ends = (0.5, -0.5) if release.relation == "replace_one" else (1.0, 0.0)
    else:
        ends = (1.0, 0.0) if release.relation == "replace_one" else (2.0, 1.0)
    return Pair(z, float(release.rate), *ends)


def loss_tests(ledger: Ledger, unit: str, seed: int, delta: float) -> list[Test]:
    """The epsilon of a ledger's first releases at three deltas and at its own, against losses that
    are drawn; nothing where no claim is made, and what is not covered in words.
    """
    covered = _first([charge for charge in ledger.charges if charge.unit == unit])
    releases = Counter[Release]()
    for charge in covered:
        releases[Release.of(charge)] += charge.count
    drawn = _drawn(releases, np.random.default_rng(seed))
    if drawn is None:
        names = ", ".join(sorted({release.mechanism for release in releases}))
        return [Test("privacy loss", unit, f"no losses are drawn for {names}")]
    tests = []
    for at in dict.fromkeys((*DELTAS, *((delta,) if delta > 1e-4 else ()))):
        epsilon = _claim(covered, unit, at)
        if epsilon is not None and math.isfinite(epsilon):
            tests.append(_test(drawn, epsilon, at, unit, sum(releases.values()), seed))
    return tests


def _first(charges: Sequence[Charge]) -> tuple[Charge, ...]:
    """The first charges of one subject, with at most MOST_SAMPLED releases that are sampled; where
    cohorts are seen, those of the client that took part most often.

    Deltas that protect nobody among so many refute an accountant as well as others do, so the
    population is left out.
    """
    seen = Counter(c for one in charges if not one.cohort_hidden for c in one.cohort or ())
    busiest = seen.most_common(1)[0][0] if seen else None
    kept: list[Charge] = []
    left = MOST_SAMPLED
    for charge in charges:
        if charge.subject != charges[0].subject:
            continue
        if charge.cohort is not None and not charge.cohort_hidden and busiest not in charge.cohort:
            continue
        count = charge.count
        if Release.of(charge).amplified:
            count = min(count, left)
            left -= count
        if count:
            alone = replace(charge.sampling, population=1)
            kept.append(replace(charge, cohort=None, sampling=alone, count=count))
    return tuple(kept)


def _claim(charges: tuple[Charge, ...], unit: str, delta: float) -> float | None:
    known = [one.epsilon for one in spend(Ledger(charges), delta) if one.unit == unit]
    return known[0] if known else None


def _drawn(releases: Counter[Release], rng: np.random.Generator) -> tuple[Losses, Losses] | None:
    """Losses of all releases together, both ways; None where a release has no known pair."""
    if not releases:
        return None
    one, two = np.zeros(DRAWS), np.zeros(DRAWS)
    for release, count in releases.items():
        pair = pair_of(release)
        if pair is None:
            return None
        if pair.rate >= 1:  # normal, and so is their sum
            mean = count * (pair.one - pair.two) ** 2 / (2 * pair.z**2)
            one += rng.normal(mean, math.sqrt(2 * mean), DRAWS)
            two += rng.normal(mean, math.sqrt(2 * mean), DRAWS)
            continue
        for _ in range(count):
            forth, back = pair.losses(DRAWS, rng)
            one += forth
            two += back
    return one, two


def _test(
    drawn: tuple[Losses, Losses], epsilon: float, delta: float, unit: str, count: int, seed: int
) -> Test:
    """Losses become coins of chance max(0, 1 - e^(epsilon - L)), whose heads are binomial."""
    from scipy.stats import binom

    rng = np.random.default_rng([seed, 1])
    coins = rng.random(DRAWS)
    heads = max(int((coins < _excess(losses, epsilon)).sum()) for losses in drawn)
    found = max(float(_excess(losses, epsilon).mean()) for losses in drawn)

    def least(level: float) -> str:
        needed = float(binom.isf(level / 2, DRAWS, delta)) + 1
        needed += 1.65 * math.sqrt(needed)
        factors = np.arange(0.99, 0.0, -0.01)
        at = bisect_left(  # the less epsilon is, the more is in excess of it
            factors,
            needed,
            key=lambda factor: max(_excess(losses, epsilon * factor).sum() for losses in drawn),
        )
        return f"epsilon x {factors[at]:.2f}" if at < len(factors) else "none"

    return Test(
        "privacy loss",
        unit,
        f"delta {found:.3g} at epsilon {epsilon:.4g} of {count} releases, claimed {delta:g}",
        min(1.0, 2 * float(binom.sf(heads - 1, DRAWS, delta))),
        least,
    )


def _excess(losses: Losses, epsilon: float) -> Losses:
    out: Losses = -np.expm1(np.minimum(epsilon - losses, 0.0))
    return out
