"""What an attacker can do against one person at most, whatever attack it is: from the whole privacy
profile, not from one pair of epsilon and delta.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from privfl.core import require
from privfl.dp.accounting.binomial import Array
from privfl.dp.accounting.profile import profile_of_any
from privfl.dp.accounting.release import Release

_EPSILONS = np.arange(-3000, 3001) / 100.0


@dataclass(frozen=True, slots=True)
class Risk:
    """Upper bounds on what is left to any attack on one person, from what was released.

    ``tpr_at_001`` and ``tpr_at_01`` are the true positive rates of a membership test that is wrong
    about .1 % and 1 % of those who are not there, ``advantage`` the most by which true positives
    exceed false ones (0: a coin), ``reconstruction`` the chance that somebody's secret is guessed
    that ``prior`` of all guesses would hit.
    """

    tpr_at_001: float
    tpr_at_01: float
    advantage: float
    prior: float
    reconstruction: float


class TradeOff:
    """The least false negative rate of any test between two neighbouring worlds, at each false
    positive rate alpha (Dong, Roth, Su 2019): f(alpha) = max(0, 1 - delta(e) - e^e alpha) over all
    e, here in [-30, 30] (Kulynych et al. 2024, section 3).

    A grid of epsilons makes f smaller, and what an attacker is granted larger.

    >>> curve = TradeOff.of({Release.gaussian(1.0): 1})
    >>> round(curve.tpr(0.01), 4), round(curve.advantage, 4)
    (0.0924, 0.3829)
    """

    def __init__(self, epsilons: Array, deltas: Array) -> None:
        self._slope, self._left = np.exp(epsilons), 1 - deltas
        self.advantage = float(np.interp(0.0, epsilons, deltas))

    @classmethod
    def of(
        cls,
        releases: Mapping[Release, int],
        *,
        pld: bool = True,
        others: Sequence[Mapping[Release, int]] = (),
    ) -> TradeOff:
        """Of all these releases together, or of what ``others`` pay for wherever that tells more;
        ``pld`` as in `profile`.
        """
        deltas = profile_of_any((releases, *others), _EPSILONS, pld=pld)
        return cls(_EPSILONS, np.clip(deltas, 0.0, 1.0))

    def fnr(self, fpr: float) -> float:
        """The least false negative rate at this false positive rate.

        Raises:
            ConfigError: the rate is outside of [0, 1].
        """
        require.within(0, 1, fpr=fpr)
        return float(max(0.0, (self._left - self._slope * fpr).max()))

    def tpr(self, fpr: float) -> float:
        """The largest true positive rate at this false positive rate.

        Raises:
            ConfigError: the rate is outside of [0, 1].
        """
        return 1 - self.fnr(fpr)


def risk_of(
    releases: Mapping[Release, int],
    prior: float = 0.01,
    *,
    pld: bool = True,
    others: Sequence[Mapping[Release, int]] = (),
) -> Risk:
    """What is left to attacks on one person by all these releases together; where ``others`` pay
    for other releases, on whoever is worst off.

    A reconstruction that succeeds with chance ``prior`` before anything is released succeeds with
    1 - f(prior) after it at most (Hayes, Mahloujifar, Balle 2023, Theorem 2).

    Raises:
        ConfigError: the prior is outside of [0, 1].

    >>> risk_of({Release.gaussian(1.0, rate=0.1): 100}).tpr_at_01 < 0.147
    True
    """
    curve = TradeOff.of(releases, pld=pld, others=others)
    return Risk(curve.tpr(0.001), curve.tpr(0.01), curve.advantage, prior, curve.tpr(prior))
