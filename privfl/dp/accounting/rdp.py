"""Rényi DP of every mechanism as a curve over orders, unsampled and sampled."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.special import log_ndtr, logsumexp

from privfl.core import ConfigError, unknown
from privfl.dp.accounting import mixture, sampled_gaussian
from privfl.dp.accounting.binomial import Array, interpolated, log_expm1, rdp_of_sum, terms
from privfl.dp.accounting.release import Release


@lru_cache(maxsize=4096)
def rdp_curve(release: Release, orders: tuple[float, ...]) -> Array:
    """RDP of one release at each order; remembered, because rounds repeat.

    >>> rdp_curve(Release.gaussian(2.0), (2.0, 8.0))
    array([0.25, 1.  ])
    """
    at = np.array(orders)
    values = _sampled(release, at) if release.amplified else _plain(release, at)
    values.setflags(write=False)
    return values


def _sampled(release: Release, orders: Array) -> Array:
    q = release.rate
    if release.mechanism == "gaussian":
        z = release.z
        if z == 0:
            return np.full_like(orders, np.inf)
        if release.scheme == "fixed_size":
            return sampled_gaussian.without_replacement(orders, q, z)
        if release.relation == "replace_one":
            return sampled_gaussian.poisson_replace(orders, q, z)
        if release.group > 1:
            return mixture.rdp(orders, q, z, release.group)
        return sampled_gaussian.poisson(orders, q, z)
    base = _plain(release, orders)
    if release.scheme == "fixed_size":
        known = _fixed_size
    elif release.relation == "replace_one":
        return base  # no amplification is proved for it; sampling never makes it dearer
    else:
        known = _poisson_exact if release.mechanism == "laplace" else _poisson_general
    amplified = interpolated(orders, lambda whole: known(whole, q, lambda a: _plain(release, a)))
    return np.minimum(base, amplified)


def _plain(release: Release, orders: Array) -> Array:
    name = release.mechanism
    if name not in _PLAIN:
        raise ConfigError(unknown("mechanism in a ledger", name, _PLAIN))
    return _PLAIN[name](release, orders)


def _gaussian(release: Release, orders: Array) -> Array:
    """Mironov 2017, Corollary 3; infinite without noise."""
    z = release.z
    return orders / (2 * z * z) if z > 0 else np.full_like(orders, np.inf)


def _laplace(release: Release, orders: Array) -> Array:
    """Mironov 2017, Proposition 6; ``scale`` is over the L1 sensitivity."""
    scale = release.parameter("scale")
    if scale == 0:
        return np.full_like(orders, np.inf)
    up = np.log(orders / (2 * orders - 1)) + (orders - 1) / scale
    down = np.log((orders - 1) / (2 * orders - 1)) - orders / scale
    return np.asarray(np.logaddexp(up, down) / (orders - 1), dtype=np.float64)


def _randomised_response(release: Release, orders: Array) -> Array:
    """k-ary randomised response of ``epsilon``, ``count`` times at once (Mironov 2017, Proposition
    5, for k values).
    """
    epsilon, k = release.parameter("epsilon"), release.parameter("k")
    if np.isinf(epsilon):
        return np.full_like(orders, np.inf)
    total = np.log(np.exp(epsilon) + k - 1)
    a = orders[:, None] * epsilon
    logs = np.concatenate([a, epsilon - a, np.zeros_like(a)], axis=1)
    with np.errstate(divide="ignore"):
        one = logsumexp(logs, b=np.array([1.0, 1.0, k - 2]), axis=1) - total
    # the exponents: P^a Q^(1-a) is e^{a eps}, then e^{(1-a) eps}, then k - 2 times 1, all over the
    # normaliser
    return np.asarray(
        release.parameter("count") * np.maximum(one, 0) / (orders - 1), dtype=np.float64
    )


def _skellam(release: Release, orders: Array) -> Array:
    """Agarwal, Kairouz, Liu 2021, Theorem 3.2 and Corollary 3.3: integer sensitivities ``l1``,
    ``l2``, noise of ``variance``.
    """
    l1, l2, mu = release.parameter("l1"), release.parameter("l2"), release.parameter("variance")
    if mu == 0:
        return np.full_like(orders, np.inf)

    def whole(known: tuple[int, ...]) -> Array:
        a = np.array(known, dtype=np.float64)
        return a * l2**2 / (2 * mu) + np.minimum(
            ((2 * a - 1) * l2**2 + 6 * l1) / (4 * mu**2), 3 * l1 / (2 * mu)
        )

    return interpolated(orders, whole)


def _discrete_gaussian(release: Release, orders: Array) -> Array:
    """A sum of ``shares`` discrete Gaussians that add up to ``variance`` on ``d`` integers
    (Kairouz, Liu, Steinke 2021, Prop. 14).
    """
    l1, l2, variance = (
        release.parameter("l1"),
        release.parameter("l2"),
        release.parameter("variance"),
    )
    shares, d = release.parameter("shares"), release.parameter("d")
    if variance == 0:
        return np.full_like(orders, np.inf)
    k = np.arange(1, int(shares))
    tau = 10 * float(np.exp(-2 * np.pi**2 * (variance / shares) * k / (k + 1)).sum())
    scaled, scaled1 = l2 / variance**0.5, l1 / variance**0.5
    first = orders / 2 * scaled**2 + tau * d
    second = orders / 2 * (scaled**2 + 2 * scaled1 * tau + tau**2 * d)
    third = orders / 2 * (scaled + d**0.5 * tau) ** 2
    return np.asarray(np.minimum(first, np.minimum(second, third)), dtype=np.float64)


def _pure(release: Release, orders: Array) -> Array:
    """Whatever is ``epsilon``-DP: no dearer than randomised response of two values, of which it is
    a post-processing for every two neighbours (Kairouz, Oh, Viswanath 2015, Theorem 2.1).
    """
    epsilon = release.parameter("epsilon")
    a = orders * epsilon
    one = np.logaddexp(a, epsilon - a) - np.logaddexp(epsilon, 0.0)
    return np.asarray(np.maximum(one, 0) / (orders - 1), dtype=np.float64)


def _objective_perturbation(release: Release, orders: Array) -> Array:
    """A privacy loss of at most log_det + s^2 / 2 + s |u|, u standard normal, s = 1 /
    noise_multiplier (`dp.objective.GaussianObjective`; Redberg, Koskela, Wang 2023, Theorem 3.2).
    """
    z = release.parameter("noise_multiplier")
    if z == 0:
        return np.full_like(orders, np.inf)
    tail = (np.log(2) + log_ndtr((orders - 1) / z)) / (orders - 1)
    return np.asarray(release.parameter("log_det") + orders / (2 * z * z) + tail)


_PLAIN: dict[str, Callable[[Release, Array], Array]] = {
    "gaussian": _gaussian,
    "laplace": _laplace,
    "randomised_response": _randomised_response,
    "skellam": _skellam,
    "discrete_gaussian": _discrete_gaussian,
    "pure": _pure,
    "objective_perturbation": _objective_perturbation,
}


def _base(orders: tuple[int, ...], plain: Callable[[Array], Array]) -> Array:
    """(k - 1) RDP(k) for k = 2 .. the largest order."""
    k = np.arange(2, max(orders) + 1, dtype=np.float64)
    return (k - 1) * plain(k)


def _poisson_exact(orders: tuple[int, ...], q: float, plain: Callable[[Array], Array]) -> Array:
    """Zhu, Wang 2019, Theorem 5: exact where odd Pearson-Vajda moments are not negative, as they
    are for Laplace.
    """
    rest, k, log_choose = terms(orders)
    return rdp_of_sum(
        orders,
        log_choose + rest * np.log1p(-q) + k * np.log(q) + log_expm1(_base(orders, plain))[k - 2],
    )


def _poisson_general(orders: tuple[int, ...], q: float, plain: Callable[[Array], Array]) -> Array:
    """Zhu, Wang 2019, Theorem 6: any mechanism, at the price of a factor 3 in the terms from the
    third on.
    """
    rest, k, log_choose = terms(orders)
    a = np.array(orders, dtype=np.float64)
    logs = (
        log_choose
        + rest * np.log1p(-q)
        + k * np.log(q)
        + _base(orders, plain)[k - 2]
        + np.where(k > 2, np.log(3), 0.0)
    )
    return rdp_of_sum(orders, logs, first=(a - 1) * np.log1p(-q) + np.log(a * q - q + 1))


def _fixed_size(orders: tuple[int, ...], q: float, plain: Callable[[Array], Array]) -> Array:
    """Wang, Balle, Kasiviswanathan 2019, Theorem 9, any mechanism."""
    _, k, log_choose = terms(orders)
    base = _base(orders, plain)
    bound = np.log(2) + base
    bound[0] = min(bound[0], np.log(4) + log_expm1(base[:1])[0])
    return rdp_of_sum(orders, log_choose + k * np.log(q) + bound[k - 2])
