"""Rényi DP of the Gaussian mechanism under Poisson sampling and under sampling without replacement,
many orders at once.

Everywhere ``z`` is the noise's standard deviation over the sensitivity UNDER THE RELATION: over C
where a record is added, removed or zeroed, over 2C where it is replaced. All three curves are sums
or integrals of terms that are positive, so nothing cancels: a rate of 1e-6 keeps its digits.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from privfl.dp.accounting.binomial import Array, interpolated, log_expm1, rdp_of_sum, terms


def poisson(orders: Array, q: float, z: float) -> Array:
    """RDP at each order of the Poisson-sampled Gaussian, add or remove one (Mironov, Talwar, Zhang
    2019, sections 3.1 and 3.3).

    Integer orders by the binomial sum; fractional ones by quadrature, which is exact to rounding
    where the two known series are not.

    >>> poisson(np.array([2.0, 8.0]), q=1.0, z=2.0)
    array([0.25, 1.  ])
    """
    if q == 1:
        return orders / (2 * z * z)
    whole = orders == np.floor(orders)
    result = np.empty_like(orders)
    if whole.any():
        result[whole] = _poisson_integer(tuple(int(a) for a in orders[whole]), q, z)
    if not whole.all():
        result[~whole] = _poisson_fractional(orders[~whole], q, z)
    return result


def _poisson_integer(orders: tuple[int, ...], q: float, z: float) -> Array:
    # A - 1 = sum over k >= 2 of C(a, k) (1-q)^(a-k) q^k (e^{k(k-1)/2z^2} - 1), since the binomial
    # itself sums to one
    rest, k, log_choose = terms(orders)
    each = np.arange(2, max(orders) + 1, dtype=np.float64)
    growth = log_expm1(each * (each - 1) / (2 * z * z))
    logs = log_choose + rest * np.log1p(-q) + k * np.log(q) + growth[k - 2]
    return rdp_of_sum(orders, logs)


def grid(z: float, low: float, high: float) -> tuple[Array, Array]:
    """Points and log-weights of the trapezoid rule for an expectation over N(0, z^2); it converges
    geometrically on entire integrands.

    The integrands have branch points at imaginary parts of at least pi z^2, which the step stays
    well under.
    """
    step = min(0.3 * z * z, 0.4 * z)
    x = np.arange(low - 12 * z, high + 12 * z + step, step)
    return x, np.log(step / (z * np.sqrt(2 * np.pi))) - x * x / (2 * z * z)


def _log_mixture(q: float, t: Array) -> Array:
    """log(1 - q + q e^t), without overflow."""
    small = np.log1p(q * np.expm1(np.minimum(t, 30.0)))
    return np.asarray(
        np.where(t < 30, small, np.logaddexp(np.log1p(-q), np.log(q) + t)), dtype=np.float64
    )


def log_moment(exponents: Array, linear: Array, log_weight: Array) -> Array:
    """Log of E[e^exponents] for each row, where E[linear] = 0 and e^exponents - 1 - linear is never
    negative.
    """
    total = exponents + log_weight
    top = total.max(axis=1)
    usual = np.log(np.exp(total - top[:, None]).sum(axis=1)) + top
    weight = np.exp(log_weight)
    risen = np.where(
        exponents < 30,
        np.expm1(np.minimum(exponents, 30.0)) * weight,
        np.exp(np.minimum(total, 600.0)),
    )
    fine = np.log1p(np.maximum((risen - linear * weight).sum(axis=1), 0.0))
    return np.asarray(np.where(top < 5, fine, usual), dtype=np.float64)


def _poisson_fractional(orders: Array, q: float, z: float) -> Array:
    x, log_weight = grid(z, 0.0, float(orders.max()))
    t = (2 * x - 1) / (2 * z * z)
    log_ratio = _log_mixture(q, t)
    linear = q * np.expm1(np.minimum(t, 600.0))
    result = np.empty_like(orders)
    for part in blocks(len(orders), len(x)):
        a = orders[part, None]
        result[part] = log_moment(a * log_ratio, a * linear, log_weight)
    return result / (orders - 1)


def blocks(rows: int, columns: int) -> list[slice]:
    """Rows of a matrix of so many columns, in parts of about a million values."""
    size = max(1, (1 << 20) // columns)
    return [slice(i, i + size) for i in range(0, rows, size)]


def poisson_replace(orders: Array, q: float, z: float) -> Array:
    """RDP at each order of the Poisson-sampled Gaussian, replace one: (1-q) N(0) + q N(1/2) against
    (1-q) N(0) + q N(-1/2).

    In units of the replace-one sensitivity 2C the sampled record moves the sum from 0 to one half,
    or to minus one half: the worst pair is the opposite one (Zhu, Dong, Wang 2022, section 3.2). By
    quadrature at every order.

    >>> poisson_replace(np.array([2.0]), q=1.0, z=2.0)
    array([0.25])
    """
    if q == 1:
        return orders / (2 * z * z)
    result = np.empty_like(orders)
    by_size = np.argsort(orders)
    for chosen in (by_size[orders[by_size] <= 64], by_size[orders[by_size] > 64]):
        if not len(chosen):
            continue
        x, log_weight = grid(z, -float(orders[chosen].max()), float(orders[chosen].max()))
        up, down = (x - 0.25) / (2 * z * z), (-x - 0.25) / (2 * z * z)
        log_p, log_q = _log_mixture(q, up), _log_mixture(q, down)
        lin_p, lin_q = q * np.expm1(np.minimum(up, 600.0)), q * np.expm1(np.minimum(down, 600.0))
        for part in blocks(len(chosen), len(x)):
            a = orders[chosen[part], None]
            result[chosen[part]] = log_moment(
                a * log_p + (1 - a) * log_q, a * lin_p + (1 - a) * lin_q, log_weight
            )
    return result / (orders - 1)


def without_replacement(orders: Array, q: float, z: float) -> Array:
    """RDP bound at each order for a fixed-size sample without replacement, replace one (Wang,
    Balle, Kasiviswanathan 2019, Thm 27).

    Fractional orders interpolate the cumulants of the neighbouring integers (their Corollary 10).

    >>> without_replacement(np.array([2.0]), q=1.0, z=2.0)
    array([0.25])
    """
    if q == 1:
        return orders / (2 * z * z)
    return interpolated(orders, lambda whole: _without_replacement_integer(whole, q, z))


def _without_replacement_integer(orders: tuple[int, ...], q: float, z: float) -> Array:
    most = max(orders)
    k = np.arange(2, most + 1, dtype=np.float64)
    plain = np.log(2) + k * (k - 1) / (2 * z * z)
    even = 2 * np.arange(1, (min(most, 256) + 3) // 2)
    log_chi = _log_central_moments(even, z)
    floor, ceil = (
        (np.minimum(k, 256).astype(int) // 2) - 1,
        (np.minimum(k, 256).astype(int) + 1) // 2 - 1,
    )
    chi = np.log(4) + 0.5 * (log_chi[floor] + log_chi[ceil])
    bound = np.where(k <= 256, np.minimum(chi, plain), plain)
    _, index, log_choose = terms(orders)
    return rdp_of_sum(orders, log_choose + index * np.log(q) + bound[index - 2])


@lru_cache(maxsize=256)
def _moments(most: int, z: float) -> Array:
    x, log_weight = grid(z, 0.0, float(most))
    t = (2 * x - 1) / (2 * z * z)
    size = np.where(
        t > 0,
        log_expm1(np.maximum(t, 1e-300)),
        np.log(np.maximum(-np.expm1(np.minimum(t, -1e-300)), 1e-300)),
    )
    return np.array(
        [np.logaddexp.reduce(even * size + log_weight) for even in range(2, most + 1, 2)]
    )


def _log_central_moments(even: npt.NDArray[np.int64], z: float) -> Array:
    """Log of E_Q[(P/Q - 1)^l] for even l, P and Q unit-shifted Gaussians: what forward differences
    of e^((a-1) RDP(a)) give.
    """
    return _moments(int(even[-1]), z)[: len(even)]
