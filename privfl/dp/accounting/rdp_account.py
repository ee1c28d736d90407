"""The RDP account: it adds one release at a time, and says what has been spent in well under a
millisecond.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from privfl.core import require
from privfl.dp.accounting.binomial import Array
from privfl.dp.accounting.rdp import rdp_curve
from privfl.dp.accounting.release import Release

ORDERS: tuple[float, ...] = tuple(
    sorted(
        {1 + x / 10 for x in range(1, 100)}
        | set(map(float, [*range(2, 65), *range(72, 257, 8), *range(320, 513, 64), 768, 1024]))
    )
)
"""Fractional orders where large epsilons have their optimum, every integer to 64, then wider
steps.
"""
BEYOND: tuple[float, ...] = (
    1.01,
    1.02,
    1.03,
    1.05,
    1.07,
    *(float(1 << k) for k in range(11, 17)),
    *(float(3 << k) for k in range(9, 15)),
)
"""Looked at only where the optimum lies at an end of ORDERS: a grid that stops at 63 can be wrong
by a factor of 200.
"""


def to_epsilon(orders: Array, rdp: Array, delta: float) -> Array:
    """Epsilon at ``delta`` from each order (Canonne, Kamath, Steinke 2020, Proposition 12; 0 where
    the divergence is under delta^2).
    """
    epsilon = rdp + np.log1p(-1 / orders) - np.log(delta * orders) / (orders - 1)
    return np.maximum(np.where(delta**2 + np.expm1(-rdp) > 0, 0.0, epsilon), 0.0)


def to_epsilon_as_moments(orders: Array, rdp: Array, delta: float) -> Array:
    """Epsilon from each order by the moments accountant's conversion (Abadi et al. 2016, Theorem
    2): to reproduce papers, not to report.
    """
    return rdp + math.log(1 / delta) / (orders - 1)


@dataclass(frozen=True, slots=True)
class RdpAccount:
    """What a sequence of releases spends in Rényi DP (Mironov 2017: divergences add up under
    adaptive composition).

    >>> account = RdpAccount().plus(Release.gaussian(1.1, rate=0.01), 10_000)
    >>> round(account.epsilon(1e-5), 4)
    5.632
    """

    releases: Mapping[Release, int] = field(default_factory=dict)
    spent: Array = field(default_factory=lambda: np.zeros(len(ORDERS)))

    def plus(self, release: Release, count: int = 1) -> RdpAccount:
        """The account after ``count`` more of these releases; this one stays as it was."""
        require.at_least(0, count=count)
        releases = {**self.releases, release: self.releases.get(release, 0) + count}
        return RdpAccount(
            releases, self.spent + count * rdp_curve(release, ORDERS) if count else self.spent
        )

    def epsilon(self, delta: float, *, moments: bool = False) -> float:
        """The epsilon at ``delta``; infinite if any release carried no noise."""
        return self.optimum(delta, moments=moments)[0]

    def optimum(self, delta: float, *, moments: bool = False) -> tuple[float, float]:
        """The epsilon at ``delta`` and the order that gives it."""
        require_delta(delta)
        convert = to_epsilon_as_moments if moments else to_epsilon
        if not any(self.releases.values()):
            return 0.0, math.inf
        each = convert(np.array(ORDERS), self.spent, delta)
        best = int(np.argmin(each))
        epsilon, order = float(each[best]), ORDERS[best]
        if best in (0, len(ORDERS) - 1) and math.isfinite(epsilon):
            spent = np.zeros(len(BEYOND))
            for release, count in self.releases.items():
                spent += count * rdp_curve(release, BEYOND)
            further = convert(np.array(BEYOND), spent, delta)
            if further.min() < epsilon:
                epsilon, order = float(further.min()), BEYOND[int(np.argmin(further))]
        return epsilon, order


def require_delta(delta: float) -> None:
    """Refuse a delta outside of (0, 1)."""
    require.positive(delta=delta)
    require.positive(**{"1 - delta": 1 - delta})
