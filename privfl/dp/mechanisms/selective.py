"""Selective sharing under Laplace noise: a few entries of each update, and what they cost in
all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch

from privfl.core import (
    ConfigError,
    DpEvent,
    Examples,
    Guarantee,
    Mechanism,
    NoiseSource,
    Sensitivity,
    Vector,
    require,
)
from privfl.dp.guarantee import local
from privfl.dp.mechanisms.laplace import laplaces
from privfl.dp.noise import uniforms


class SelectiveCost(NamedTuple):
    """Pure epsilons of selective sharing: what is published of it, for one parameter in one round;
    what a client spends in all rounds; and what it would where only each entry was bounded, and
    not the whole update.
    """

    published: float
    total: float
    by_entry: float


@dataclass(frozen=True, slots=True)
class SelectiveLaplace(Mechanism):
    """Distributed selective SGD (Shokri, Shmatikov 2015): each client sends a share ``keep`` of its
    update's entries, drawn at random, each under Laplace noise of its own; the others are zero.

    ``epsilon`` is the paper's, for ONE parameter in ONE round: the noise on an entry has the scale
    D / epsilon, where D is the update's L2 sensitivity and so the most that an entry moves.
    Guarantee: local DP for a whole round at epsilon sqrt(k), k entries being sent, for L1 is at
    most sqrt(k) D; the event says so, and rounds add up. ``cost`` has all three figures. Which
    entries are sent comes from the noise source and tells nothing. The paper's choice by size goes
    through the sparse vector technique, which is not offered: its published forms were mostly wrong
    (Lyu, Su, Li 2017). In floating point, as `Laplace`.

    Raises:
        ConfigError: epsilon is not above 0 and finite, or keep not in (0, 1].

    >>> SelectiveLaplace(epsilon=0.5, keep=0.1).cost(d=1000, rounds=30)
    SelectiveCost(published=0.5, total=150.0, by_entry=1500.0)
    """

    examples: ClassVar[Examples] = {"": {"epsilon": 1.0, "keep": 1.0}}
    local: ClassVar[bool] = True

    epsilon: int | float
    keep: int | float = 0.1

    def __post_init__(self) -> None:
        require.positive(epsilon=self.epsilon, keep=self.keep)
        require.finite(epsilon=self.epsilon)
        require.within(0, 1, keep=self.keep)

    def sent(self, d: int) -> int:
        """How many entries of a vector [d] are sent."""
        return min(max(round(self.keep * d), 1), d)

    def cost(self, d: int, rounds: int) -> SelectiveCost:
        """What is published, and what it comes to for one client."""
        k = self.sent(d)
        return SelectiveCost(
            float(self.epsilon), self.epsilon * math.sqrt(k) * rounds, self.epsilon * k * rounds
        )

    def event(self, d: int) -> DpEvent:
        """One round of one client: the scale over the L1 sensitivity of all that is sent."""
        return DpEvent("laplace", {"scale": 1 / (self.epsilon * math.sqrt(self.sent(d)))})

    @property
    def guarantee(self) -> Guarantee[Mechanism]:
        """Who sees what without noise, and what leaving noise out does."""
        return local()

    def share(
        self, values: Vector, sensitivity: Sensitivity, among: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        """The entries that are sent, with their noise, and zeros.

        Raises:
            ConfigError: neither the L1 nor the L2 sensitivity is finite.
        """
        d = values.numel()
        k = self.sent(d)
        chosen = torch.from_numpy(uniforms(d, noise)).argsort()[:k].to(values.device)
        drawn = laplaces(k, noise).mul_(self._scale(sensitivity, k))
        out = torch.zeros_like(values)
        out[chosen] = values[chosen] + drawn.to(values.device, values.dtype)
        return out, self.event(d)

    def _scale(self, sensitivity: Sensitivity, k: int) -> float:
        l1 = min(float(sensitivity.l1), math.sqrt(k) * sensitivity.l2)
        if not math.isfinite(l1):
            raise ConfigError(
                "Laplace noise needs a finite L1 or L2 sensitivity: set a clip and a rule that has"
                " one."
            )
        return l1 / (self.epsilon * math.sqrt(k))

    def local_deviation(self, sensitivity: Sensitivity) -> float:
        """Sqrt(2) times the scale, in an entry that is sent.

        Raises:
            ConfigError: the sensitivity is not finite.
        """
        return math.sqrt(2) * self._scale(sensitivity, 1)

    def release(
        self, vector: Vector, sensitivity: Sensitivity, survivors: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        """Nothing more at the server."""
        return vector, None
