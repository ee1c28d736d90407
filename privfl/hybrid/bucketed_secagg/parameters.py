"""What every party computes alike: a round's groups, their plans, the protocol inside of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from privfl.core import ClientId, NoiseSource, OsNoise, RingNoise, RoundPlan, require
from privfl.crypto import SecAgg
from privfl.crypto.primitives import Directory
from privfl.hybrid.bucketed_secagg.buckets import Buckets


@dataclass(frozen=True, slots=True)
class BucketedSettings:
    """What describes it before any round; `BucketedSecAgg` says what each field means.

    Raises:
        ConfigError: a setting that cannot be.
    """

    size: int = 3
    bits: int = 16
    rounding: Literal["nearest", "stochastic"] = "nearest"
    rotation: bool = False
    bucketing_seed: int = 0
    noise: RingNoise | None = None
    noise_source: NoiseSource = field(default_factory=OsNoise, compare=False)
    directory: Directory = field(default_factory=Directory, compare=False, repr=False)

    def __post_init__(self) -> None:
        require.at_least(2, size=self.size)
        self.inside()

    def inside(self) -> SecAgg:
        """The secure aggregation of one group."""
        return SecAgg(
            graph="complete",
            bits=self.bits,
            rounding=self.rounding,
            rotation=self.rotation,
            corrupt=0.0,
            noise=self.noise,
            noise_source=self.noise_source,
            directory=self.directory,
        )

    @property
    def buckets(self) -> Buckets:
        """How rows become fewer rows."""
        return Buckets(self.size, self.quorum)

    @property
    def quorum(self) -> int:
        """The fewest clients whose group is ever opened."""
        return self.inside().parameters(RoundPlan(0, tuple(range(self.size)), 1, 1.0)).quorum

    def groups(self, plan: RoundPlan) -> tuple[tuple[ClientId, ...], ...]:
        """The round's groups: the cohort, shuffled by a hash of the bucketing_seed, the round and
        the cohort, cut into pieces.

        Raises:
            ConfigError: fewer than two groups: one would be plain secure aggregation.
        """
        sizes = self.buckets.sizes(plan.n)
        cohort = ",".join(map(str, plan.cohort))
        facts = f"{self.bucketing_seed}|{plan.number}|{self.size}|{cohort}".encode()
        ranks = {
            c: hashlib.sha256(b"privfl/1/buckets|" + facts + b"|" + str(c).encode()).digest()
            for c in plan.cohort
        }
        order = sorted(plan.cohort, key=ranks.__getitem__)
        ends = np.cumsum(sizes).tolist()
        return tuple(tuple(order[end - size : end]) for size, end in zip(sizes, ends, strict=True))

    def plan_of(self, plan: RoundPlan, group: Sequence[ClientId], number: int) -> RoundPlan:
        """A group's own plan: its clients, weights of one, and a part of its own, so that nothing
        fits another group.
        """
        return replace(
            plan, cohort=tuple(group), max_weight=1.0, part=f"{plan.part}/group/{number}"
        )
