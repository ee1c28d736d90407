"""Privacy loss distributions, by Google's dp-accounting: tight to its grid of 1e-4, and pessimistic
where it rounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import log_ndtr, ndtr

from privfl.core import ConfigError
from privfl.dp.accounting import mixture
from privfl.dp.accounting.binomial import Array
from privfl.dp.accounting.classical import gaussian_epsilon
from privfl.dp.accounting.grid import connected, joined, least_epsilon, repeated
from privfl.dp.accounting.release import Release

GRID = 1e-4
_FAR = 10.0
"""Standard deviations at which the grid of a Gaussian ends: what lies beyond is infinite."""
_TAIL = 9.5
"""Standard deviations at which a Gaussian's tail is given up to infinity: a probability of
1e-21.
"""


class NoPld(ConfigError):
    """A release whose privacy loss distribution nobody knows; RDP still bounds it."""


def pld_epsilon(releases: Mapping[Release, int], delta: float) -> float:
    """The epsilon at ``delta`` of all these releases together.

    Raises:
        NoPld: a release's privacy loss distribution is not known.

    >>> round(pld_epsilon({Release.gaussian(5.0): 10}, 1e-5), 3)
    2.594
    """
    return _epsilon(tuple(sorted(releases.items(), key=repr)), delta)


def pld_profile(releases: Mapping[Release, int], epsilons: Array) -> Array:
    """The delta at each epsilon [m], negative ones too, of all these releases together: the larger
    of both directions.

    Raises:
        NoPld: a release's privacy loss distribution is not known.

    >>> pld_profile({Release.gaussian(1.0): 1}, np.array([0.0, 1.0])).round(6)
    array([0.382925, 0.126937])
    """
    whole = tuple(sorted(releases.items(), key=repr))
    alone = _one_gaussian(whole)
    if alone is not None:
        return _gaussian_delta(epsilons, alone)
    total = _total(whole)
    if total is None:
        return np.ones_like(epsilons)
    ways = [_deltas(one, epsilons) for one in total]
    return np.asarray(np.max(ways, axis=0), dtype=np.float64)


def _deltas(losses: Any, epsilons: Array) -> Array:
    """The hockey-stick divergence at each epsilon [m] >= -30 of one direction: what dp-accounting's
    own get_delta_for_epsilon computes, whose loop over the grid in Python takes seconds.
    """
    dense = losses.to_dense_pmf()
    at = (np.arange(dense.size) + dense._lower_loss) * dense._discretization
    above = np.searchsorted(at, epsilons, side="right")
    mass, tilted = dense._probs, dense._probs * np.exp(-np.maximum(at, -31.0))
    first, second = (np.append(np.cumsum(one[::-1])[::-1], 0.0) for one in (mass, tilted))
    found = dense._infinity_mass + first[above] - np.exp(epsilons) * second[above]
    return np.asarray(np.maximum(found, 0.0), dtype=np.float64)


@lru_cache(maxsize=512)
def _epsilon(releases: tuple[tuple[Release, int], ...], delta: float) -> float:
    if not any(count for _, count in releases):
        return 0.0
    alone = _one_gaussian(releases)
    if alone is not None:
        return gaussian_epsilon(alone, delta)  # one Gaussian needs no grid
    total = _total(releases)
    if total is None:
        return math.inf
    return max(least_epsilon(one, delta) for one in total)


def _ways(total: Any) -> list[Any]:
    """The loss distributions of both directions; one, where they are the same."""
    return list({id(one): one for one in (total._pmf_remove, total._pmf_add)}.values())


def _one_gaussian(releases: Iterable[tuple[Release, int]]) -> float | None:
    """The noise multiplier, where all releases together are one Gaussian without sampling."""
    merged = _merged(releases)
    first = merged[0][0] if len(merged) == 1 else None
    if first is None or first.mechanism != "gaussian" or first.amplified or _silent(first):
        return None
    return first.z


@lru_cache(maxsize=4)
def _total(releases: tuple[tuple[Release, int], ...]) -> tuple[Any, ...] | None:
    """The loss distributions of all in both directions; one, where they are the same. None where a
    release carries no noise.
    """
    total: tuple[Any, ...] | None = None
    for release, count in _merged(releases):
        if _silent(release):
            return None
        # a bound on the tail that overflows is infinite, and another order's is taken
        with np.errstate(over="ignore"):
            step = tuple(repeated(one, count) for one in _ways(_distribution(release)))
            if total is None:
                total = step
            else:
                both = max(len(total), len(step))
                pairs = zip(*(w * (both // len(w)) for w in (total, step)), strict=True)
                total = tuple(joined(*pair) for pair in pairs)
    return total


def _merged(releases: Iterable[tuple[Release, int]]) -> list[tuple[Release, int]]:
    """Unsampled Gaussians compose into one Gaussian exactly; the others stay."""
    precision = 0.0
    kept: list[tuple[Release, int]] = []
    for release, count in releases:
        if not count:
            continue
        if release.mechanism == "gaussian" and not release.amplified and not _silent(release):
            precision += count / release.z**2
        else:
            kept.append((release, count))
    return [(Release.gaussian(precision**-0.5), 1), *kept] if precision else kept


def _silent(release: Release) -> bool:
    """Whether it carries no noise at all."""
    return release.mechanism in ("gaussian", "laplace") and release.parameters[0][1] == 0


def _distribution(release: Release) -> Any:
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import privacy_loss_distribution as pld

    name, q = release.mechanism, release.rate if release.amplified else 1.0
    if name == "gaussian":
        z = release.z
        if release.amplified and release.scheme == "fixed_size":
            return _without_replacement(q, z)
        if release.group > 1:
            return _of_group(q, z, release.group)
        if not (release.relation == "replace_one" and release.amplified):
            return _gaussian(q, z)
        # dp-accounting takes sigma over C and doubles the sensitivity itself under REPLACE_ONE;
        # ours is over 2C there
        return pld.from_gaussian_mechanism(
            2 * z,
            value_discretization_interval=GRID,
            sampling_prob=q,
            neighboring_relation=NeighboringRelation.REPLACE_ONE,
        )
    if name == "laplace" and not (
        release.amplified and (release.scheme == "fixed_size" or release.relation == "replace_one")
    ):
        return pld.from_laplace_mechanism(
            release.parameter("scale"), value_discretization_interval=GRID, sampling_prob=q
        )
    if name == "randomised_response" and not release.amplified:
        k, epsilon = release.parameter("k"), release.parameter("epsilon")
        flip = k / (math.exp(epsilon) + k - 1)
        one = pld.from_randomized_response(flip, int(k), value_discretization_interval=GRID)
        return one.self_compose(int(release.parameter("count")))
    if name == "pure" and not release.amplified:
        flip = 2 / (math.exp(release.parameter("epsilon")) + 1)
        return pld.from_randomized_response(flip, 2, value_discretization_interval=GRID)
    sampled = (
        f" under {release.scheme} sampling and {release.relation}" if release.amplified else ""
    )
    raise NoPld(
        f"no privacy loss distribution is known for '{name}'{sampled}: the RDP figure is the claim."
    )


def _gaussian(q: float, z: float) -> Any:
    """Poisson sampling, or everybody (q = 1), from the exact hockey-stick divergences at all points
    of the grid at once (Doroshenko et al. 2022, connect the dots): what dp-accounting's own
    from_gaussian_mechanism computes, one point after the other in Python.
    """
    from dp_accounting.pld import privacy_loss_distribution as pld

    def loss(x: float) -> float:
        tilt = (2 * x - 1) / (2 * z * z)
        return tilt if q == 1 else float(np.logaddexp(math.log1p(-q), math.log(q) + tilt))

    low, high = (math.floor(loss(-_FAR * z) / GRID), math.ceil(loss(1 + _FAR * z) / GRID))
    at = np.arange(low, high + 1) * GRID
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = at if q == 1 else np.log(np.maximum(np.expm1(at) + q, 0.0) / q)
        x = np.maximum(z * odds + 1 / (2 * z), -40.0)  # over z; nothing lies below -40
    shift = 1 / z
    above = (1 - q) * ndtr(-x) + q * ndtr(shift - x) - np.exp(at + log_ndtr(-x))
    there = connected(GRID, low, above)
    if q == 1:
        return pld.PrivacyLossDistribution(there)
    below = ndtr(x) - np.exp(-at) * ((1 - q) * ndtr(x) + q * ndtr(x - shift))
    return pld.PrivacyLossDistribution(there, connected(GRID, -high, below[::-1]))


def _of_group(q: float, z: float, k: int) -> Any:
    """Poisson sampling where neighbours differ in k contributions."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    both = mixture.loss_distributions(q, z, k, GRID)
    if both is None:
        raise NoPld(
            f"the loss distribution of {k} contributions together under noise {z:.3g} has millions"
            " of points, because next to nothing is private: the RDP figure is the claim."
        )
    return pld.PrivacyLossDistribution(*both)


def _without_replacement(q: float, z: float) -> Any:
    """A fixed-size sample without replacement, replace one, from its privacy profile (Balle,
    Barthe, Gaboardi 2018, Theorem 9).

    The profile q delta(log(1 + (e^eps - 1) / q)) holds in both directions at once, so the
    dominating pair is symmetric; the one-sided pair of Poisson sampling would understate a
    composition.
    """
    from dp_accounting.pld import privacy_loss_distribution as pld

    top = math.log1p(q * math.expm1(1 / (2 * z * z) + _TAIL / z))
    n = math.ceil(top / GRID)
    half = np.arange(1, n + 1) * GRID
    upper = q * _gaussian_delta(np.log1p(np.expm1(half) / q), z)
    lower = -np.expm1(-half) + np.exp(-half) * upper
    middle = q * _gaussian_delta(np.zeros(1), z)
    deltas = np.concatenate([lower[::-1], middle, upper])
    return pld.PrivacyLossDistribution(connected(GRID, -n, deltas))


def _gaussian_delta(epsilon: Array, z: float) -> Array:
    """The Gaussian mechanism's delta at each epsilon (Balle, Wang 2018, Theorem 8)."""
    near, far = 1 / (2 * z) - epsilon * z, -1 / (2 * z) - epsilon * z
    return np.asarray(
        np.maximum(ndtr(near) - np.exp(epsilon + log_ndtr(far)), 0.0), dtype=np.float64
    )
