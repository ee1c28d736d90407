"""The privacy profile of what was released: the least delta at every epsilon."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from privfl.dp.accounting.binomial import Array
from privfl.dp.accounting.classical import gaussian_epsilon
from privfl.dp.accounting.pld import NoPld, pld_profile
from privfl.dp.accounting.rdp import rdp_curve
from privfl.dp.accounting.rdp_account import ORDERS
from privfl.dp.accounting.release import Release


def profile(releases: Mapping[Release, int], epsilons: Array, *, pld: bool = True) -> Array:
    """An upper bound on delta at each epsilon [m], negative ones too, whichever of two worlds is
    the true one: from the loss distribution, or from Rényi DP where none is known (or ``pld`` is
    False, where it would take minutes).

    >>> profile({Release.gaussian(1.0): 1}, np.array([0.0]))
    array([0.38292492])
    """
    return profile_of_any([releases], epsilons, pld=pld)


def profile_of_any(
    payers: Sequence[Mapping[Release, int]], epsilons: Array, *, pld: bool = True
) -> Array:
    """The same for whoever pays most at each epsilon: one may have the largest epsilon at a small
    delta, and another one the largest delta at epsilon 0.

    >>> few, often = {Release.gaussian(1.0): 2}, {Release.gaussian(1.0, rate=0.2): 20}
    >>> profile_of_any([few, often], np.array([0.0, 7.0])).round(6)
    array([5.205e-01, 4.000e-06])
    """
    try:
        if pld:
            deltas = np.stack([pld_profile(paid, epsilons) for paid in payers])
            return np.asarray(deltas.max(axis=0), dtype=np.float64)
    except NoPld:
        pass
    return _from_rdp(payers, epsilons)


def _from_rdp(payers: Sequence[Mapping[Release, int]], epsilons: Array) -> Array:
    """The least over all orders (Canonne, Kamath, Steinke 2020, Proposition 12), of the largest
    curve at each order. Where epsilon is negative it follows from the other direction:
    delta(-e) = 1 - e^-e (1 - delta'(e)).
    """
    orders = np.array(ORDERS)
    curves = [
        sum((n * rdp_curve(release, ORDERS) for release, n in paid.items()), 0 * orders)
        for paid in payers
    ]
    spent = np.max(curves, axis=0)
    positive = np.abs(epsilons)[:, None]
    logs = (orders - 1) * (spent - positive) + orders * np.log1p(-1 / orders) - np.log(orders - 1)
    delta = np.exp(np.minimum(logs.min(axis=1), 0.0))
    mirrored = 1 - np.exp(-np.abs(epsilons)) * (1 - delta)
    return np.asarray(np.where(epsilons < 0, mirrored, delta), dtype=np.float64)


def group_epsilon(
    releases: Mapping[Release, int],
    delta: float,
    k: int,
    *,
    pld: bool = True,
    others: Sequence[Mapping[Release, int]] = (),
) -> float:
    """The epsilon at ``delta`` of k neighbours together: k records of one person, or k clients.

    Any (e, d) of the profile gives (k e, d (e^{k e} - 1) / (e^e - 1)) to a group of k (Dwork, Roth
    2014, Theorem 2.2, by the triangle inequality over k worlds); the least over e is taken.
    Gaussians without sampling are exact: k neighbours move the sum k times as far. Of several who
    pay (``others``) it is that of whoever pays most.

    >>> one = group_epsilon({Release.gaussian(10.0): 1}, 1e-5, 1)
    >>> five = group_epsilon({Release.gaussian(2.0): 1}, 1e-5, 1)
    >>> round(group_epsilon({Release.gaussian(10.0): 1}, 1e-5, 5), 6) == round(five, 6) > one
    True
    """
    payers = (releases, *others)
    if any(
        release.mechanism == "gaussian" and release.z == 0 for paid in payers for release in paid
    ):
        return math.inf
    exact, bounded = 0.0, []
    for paid in payers:
        if all(_gaussian(release) for release in paid):
            precision = sum(count / release.z**2 for release, count in paid.items())
            exact = max(exact, gaussian_epsilon(precision**-0.5 / k, delta))
        else:
            bounded.append(paid)
    return max(exact, _least(bounded, delta, k, pld)) if bounded else exact


def _gaussian(release: Release) -> bool:
    return release.mechanism == "gaussian" and not release.amplified


def _least(payers: Sequence[Mapping[Release, int]], delta: float, k: int, pld: bool) -> float:
    """The least k e with enough delta left, e in steps of a half of a percent."""
    epsilons = np.geomspace(1e-4, 60.0, 2700)
    one = np.log(np.maximum(profile_of_any(payers, epsilons, pld=pld), 1e-300))
    growth = np.log(np.expm1(np.minimum(k * epsilons, 700.0))) - np.log(np.expm1(epsilons))
    enough = np.flatnonzero(one + growth <= math.log(delta))
    return float(k * epsilons[enough[0]]) if len(enough) else math.inf
