"""AGR-tailored: the worst step along a direction against a known rule (Shejwalkar, Houmansadr 2021,
section IV-C).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.byzantine.direction import Direction, direction
from privfl.core import (
    BadUpdate,
    ConfigError,
    Knows,
    RoundKnowledge,
    Rows,
    Rule,
    TooManyByzantine,
    UpdatePoison,
    require,
)

GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True)
class AGRTailored(UpdatePoison):
    """mu + gamma p with the gamma that moves the rule's result farthest from mu (Shejwalkar,
    Houmansadr 2021, equation 2).

    gamma maximises ||rule(honest rows and f copies) - mu||: a geometric scan around ``gamma``, then
    golden sections between the best one's neighbours. The paper's search for Multi-Krum stops where
    the rows are dropped, which is where this deviation falls. A step at which the rule refuses to
    work does not count.

    Seat: updates, in collusion. Knows all honest updates and the server's rule, or a rule that
    stands in for it (``rule``).

    >>> class First:
    ...     def __call__(self, opened):
    ...         return opened.values.mean(dim=0).clamp(-2, 2)
    ...
    ...     def sensitivity(self, bound, n, relation):
    ...         return float("inf")
    >>> from privfl.core import RoundPlan, Rows
    >>> known = RoundKnowledge(
    ...     RoundPlan(0, (1, 2, 3), d=1, l2=9.0),
    ...     torch.zeros(1),
    ...     benign=Rows.of([[1.0], [1.0]]),
    ... )
    >>> attack = AGRTailored(First(), along="unit")
    >>> sent = attack.poison_updates(torch.ones(1, 1), known, torch.Generator())
    >>> bool(sent < -7)
    True
    """

    rule: Rule[Rows] | None = None
    along: Direction = "std"
    gamma: float = 10.0
    tries: int = 24

    def __post_init__(self) -> None:
        require.positive(gamma=self.gamma)
        require.at_least(8, tries=self.tries)

    @property
    def knows(self) -> Knows:
        """All honest updates, and the rule unless one stands in for it."""
        return "rule" if self.rule is None else "benign"

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """Mu + gamma p, the same for every attacker [f, d].

        Raises:
            ConfigError: neither the scenario nor the attack names a rule.
        """
        rule = self.rule or (None if knowledge.path is None else knowledge.path.server)
        if rule is None:
            raise ConfigError(
                "AGRTailored needs a rule to optimise against, and the scenario withholds the"
                " server's: set rule."
            )
        benign = knowledge.honest("AGRTailored")
        mu, p = benign.values.mean(dim=0), direction(self.along, benign.values)
        seen = _with_copies(benign, len(own), knowledge)

        def harm(gamma: float) -> float:
            seen.values[benign.n :] = mu + gamma * p
            try:
                return float((rule(seen) - mu).norm())
            except (TooManyByzantine, BadUpdate):
                return -1.0

        best = _worst(harm, self.gamma, self.tries)
        return (mu + best * p).expand(own.shape).clone()


def _with_copies(benign: Rows, f: int, knowledge: RoundKnowledge) -> Rows:
    weights = torch.ones(f) if knowledge.weights is None else knowledge.weights
    there = set(benign.ids or ())
    missing = [client for client in knowledge.plan.cohort if client not in there][:f]
    ids = None if benign.ids is None or len(missing) < f else (*benign.ids, *missing)
    values = torch.cat([benign.values, benign.values.new_zeros(f, benign.d)])
    return Rows(values, torch.cat([benign.weights, weights]), ids)


def _worst(harm: Callable[[float], float], start: float, tries: int) -> float:
    """The gamma of most harm: half of the tries scan octaves around ``start``, the others close in
    by golden sections.
    """
    octaves = tries // 2
    scanned = [start * 2.0**k for k in range(2 - octaves, 2)]
    harms = [harm(gamma) for gamma in scanned]
    at = max(range(octaves), key=harms.__getitem__)
    best, most = scanned[at], harms[at]
    low, high = best / 2, best * 2
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = harm(left), harm(right)
    for _ in range(tries - octaves - 2):
        if at_left > at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = harm(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = harm(right)
    for gamma, found in ((left, at_left), (right, at_right)):
        if found > most:
            best, most = gamma, found
    return best
