"""What a run claims in differential privacy, on the scale on which an audit measures: how often a
test may be right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from privfl.audit.threats import SIGHTS, ThreatModel
from privfl.core import Against, Ledger, NeighbourRelation, Unit, require
from privfl.dp import spend


@dataclass(frozen=True, slots=True)
class Claimed:
    """An epsilon at a delta for each member of a unit, against whom it is claimed, and how many
    clients may collude. ``each_update``: the noise is in every single update (private training), so
    that the claim holds against whoever reads them.

    >>> claim = Claimed("sample", 1.0, 1e-5, "replace_one", "server", each_update=True)
    >>> round(claim.cap(0.01), 4), str(claim)
    (0.0272, 'epsilon 1 at delta 1e-05, sample level')
    """

    unit: Unit
    epsilon: float
    delta: float
    relation: NeighbourRelation
    against: Against
    colluders: int = 0
    each_update: bool = False

    def __str__(self) -> str:
        return f"epsilon {self.epsilon:.3g} at delta {self.delta:g}, {self.unit} level"

    def holds_against(self, who: ThreatModel) -> bool:
        """Whether the claim says anything against an adversary: not against one that sees more
        than the claim was made for, or deviates from the protocol.
        """
        if who.active or who.own > self.colluders:
            return False
        sees = SIGHTS.index(who.sees)
        if self.against == "model_recipients":
            return sees == SIGHTS.index("release")
        return self.each_update or sees <= SIGHTS.index("sum")

    def cap(self, rate: float) -> float:
        """The most true positives that any test of whether one given sample was trained on can have
        at this rate of false ones: e^epsilon rate + delta (Wasserman and Zhou 2010, theorem 2.4;
        Kairouz, Oh, Viswanath 2015).

        A sample more or less turns one value of a unit into another one. Where neighbours come and
        go instead, or turn into zero, that is two steps, and the claim for two together is taken
        (2 epsilon, (1 + e^epsilon) delta); for samples that come and go it is one step.

        Raises:
            ConfigError: a rate outside of [0, 1].
        """
        require.within(0, 1, rate=rate)
        if self.unit == "sample" or self.relation == "replace_one":
            return _cap(self.epsilon, self.delta, rate)
        twice = self.delta * (1 + math.exp(min(self.epsilon, 700.0)))
        return _cap(2 * self.epsilon, twice, rate)


def _cap(epsilon: float, delta: float, rate: float) -> float:
    """Both sides of the trade-off: few false positives, and few false negatives."""
    grown = math.exp(min(epsilon, 700.0))
    return max(0.0, min(1.0, grown * rate + delta, 1 - (1 - delta - rate) / grown))


def claims_of(ledger: Ledger, delta: float) -> tuple[Claimed, ...]:
    """The dearest claim of each unit that a ledger supports; none where nothing was charged."""
    dearest: dict[Unit, Claimed] = {}
    for spent in spend(ledger, delta, pld=False):
        if spent.epsilon is None or not math.isfinite(spent.epsilon):
            continue
        charges = [c for c in ledger.charges if c.unit == spent.unit]
        claim = Claimed(
            spent.unit,
            spent.epsilon,
            spent.delta,
            spent.relation,
            _weakest([charge.against for charge in charges]),
            min(charge.colluders for charge in charges),
            spent.unit == "sample",
        )
        if spent.unit not in dearest or dearest[spent.unit].epsilon < claim.epsilon:
            dearest[spent.unit] = claim
    return tuple(dearest.values())


def _weakest(against: Sequence[Against]) -> Against:
    order: tuple[Against, ...] = ("model_recipients", "server", "server_and_clients")
    return min(against, key=order.index)
