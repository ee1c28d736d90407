"""AGR-tailored: the worst step along a direction against a known rule (Shejwalkar, Houmansadr 2021,
section IV-C).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.byzantine.direction import Along, direction, directions
from privfl.attacks.byzantine.objective import Deviation, deviation, rows_arriving
from privfl.attacks.byzantine.search import most_harm
from privfl.core import (
    BadUpdate,
    ConfigError,
    Knows,
    RoundKnowledge,
    Rows,
    Rule,
    TooManyByzantine,
    UpdatePoison,
    Vector,
    require,
)


@dataclass(frozen=True, slots=True)
class AGRTailored(UpdatePoison):
    """mu + gamma p with the gamma (and of several p the one) whose effect on the rule's result is
    worst (Shejwalkar, Houmansadr 2021, equation 2).

    Attackers send the same row, or rows that are ``apart``: each adds a direction of its own, so
    many times as long as the row; these are random, sum to zero, and hide the attackers from who
    looks for rows that are alike. Of several multiples the worst is taken.

    Every candidate is judged as the server will judge it: after the client's bound and the
    channel's encoding, by the seats before the rule and the rule that really decides, be it inside
    the channel (`Path`). ``adaptive=False`` is the paper's form, which judges the candidate itself
    although another row arrives. Octaves around ``gamma`` are scanned along p, then golden sections
    close in on the best; ``along="best"`` tries three p, and is the greediest in a round, not in a
    run. ``harm="distance"`` is the paper's ||result - mu||; under a
    bound on lengths ``direction`` does more (`deviation`). A step at which the rule refuses to work
    does not count.

    Seat: updates, in collusion. Knows all honest updates and the server's rule, or a rule that
    stands in for it (``rule``).

    >>> class First:
    ...     def __call__(self, opened):
    ...         return opened.values.mean(dim=0).clamp(-2, 2)
    ...
    ...     def sensitivity(self, moves, neighbours):
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
    along: Along = "unit"
    gamma: float = 10.0
    tries: int = 24
    harm: Deviation = "direction"
    adaptive: bool = True
    apart: Sequence[float] = (0.0,)

    def __post_init__(self) -> None:
        require.positive(gamma=self.gamma)
        require.at_least(1, multiples=len(self.apart))
        for one in self.apart:
            require.at_least(0, apart=one)
            require.finite(apart=one)
        require.at_least(8, tries=self.tries)

    @property
    def knows(self) -> Knows:
        """All honest updates, and the rule unless one stands in for it."""
        return "rule" if self.rule is None else "benign"

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """Mu + gamma p, and what an attacker's row lies apart [f, d].

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
        mu = benign.values.mean(dim=0)
        seen = with_copies(benign, len(own), knowledge)
        arrives = rows_arriving(knowledge, self.adaptive)
        bad = deviation(self.harm, mu, knowledge)

        own_ways = scattered(own, rng)

        def candidate(p: Vector, apart: float, gamma: float) -> Float[Tensor, "k d"]:
            row = mu + gamma * p
            return row + apart * row.norm() * own_ways if apart else row[None]

        def tried(p: Vector, apart: float, gamma: float) -> float:
            seen.values[benign.n :] = arrives(candidate(p, apart, gamma))
            try:
                return bad(rule(seen))
            except (TooManyByzantine, BadUpdate):
                return -math.inf

        ways = [direction(along, benign.values) for along in directions(self.along)]
        found = [
            (*most_harm(partial(tried, p, apart), self.gamma, self.tries), p, apart)
            for p in ways
            for apart in self.apart
        ]
        gamma, _, p, apart = max(found, key=lambda one: one[1])
        return candidate(p, apart, gamma).expand(own.shape).clone()


def scattered(own: Float[Tensor, "f d"], rng: torch.Generator) -> Float[Tensor, "f d"]:
    """A direction for each row: as long as 1 and as far from each other as may be, they sum to 0;
    zeros where there is one row.

    >>> ways = scattered(torch.zeros(3, 50), torch.Generator().manual_seed(0))
    >>> bool(ways.sum(dim=0).abs().max() < 1e-5), bool((ways.norm(dim=1) - 1).abs().max() < 0.2)
    (True, True)
    """
    drawn = torch.randn(own.shape, generator=rng).to(own)
    apart = drawn - drawn.mean(dim=0)
    ways: Tensor = apart / apart.norm(dim=1).mean().clamp(min=1e-30)
    return ways


def with_copies(benign: Rows, f: int, knowledge: RoundKnowledge) -> Rows:
    """The honest rows, and f zero rows of the attackers' after them."""
    weights = torch.ones(f) if knowledge.weights is None else knowledge.weights
    there = set(benign.ids or ())
    missing = [client for client in knowledge.plan.cohort if client not in there][:f]
    ids = None if benign.ids is None or len(missing) < f else (*benign.ids, *missing)
    values = torch.cat([benign.values, benign.values.new_zeros(f, benign.d)])
    return Rows(values, torch.cat([benign.weights, weights]), ids)
