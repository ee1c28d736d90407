"""What every party computes alike: a round's groups, their plans, the protocol inside of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from privfl.core import ClientId, ConfigError, NoiseSource, OsNoise, RingNoise, RoundPlan, require
from privfl.crypto import SecAgg
from privfl.crypto.secagg import graph
from privfl.hybrid.bucketed_secagg.buckets import Buckets


@dataclass(frozen=True, slots=True)
class BucketedSettings:
    """What describes it before any round; `BucketedSecAgg` says what each field means.

    Raises:
        ConfigError: a setting that cannot be.
    """

    size: int = 3
    mode: Literal["semi_honest", "active"] = "semi_honest"
    threshold: float | None = 1.0
    corrupt: float = 0.1
    bits: int = 16
    rounding: Literal["nearest", "stochastic"] = "nearest"
    rotation: bool = False
    bucketing_seed: int | None = 0
    noise: RingNoise | None = None
    noise_source: NoiseSource = field(default_factory=OsNoise, compare=False)

    def __post_init__(self) -> None:
        require.at_least(2, size=self.size)
        self.inside()

    def inside(self) -> SecAgg:
        """The secure aggregation of one group."""
        return SecAgg(
            graph="complete",
            mode=self.mode,
            threshold=self.threshold,
            bits=self.bits,
            rounding=self.rounding,
            rotation=self.rotation,
            corrupt=self.corrupt,
            noise=self.noise,
            noise_source=self.noise_source,
            forward_secrecy=False,  # views of colluding clients need what they keep
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
            ConfigError: fewer than two groups: one would be plain secure aggregation; or groups
                that a joint coin draws, which nobody knows before the round.
        """
        if self.bucketing_seed is None:
            raise ConfigError(
                "bucketing_seed is None: a round's groups are drawn in the round, by a joint coin."
            )
        cohort = ",".join(map(str, plan.cohort))
        facts = f"{self.bucketing_seed}|{plan.number}|{self.size}|{cohort}".encode()
        return self.drawn(facts, plan.cohort)

    def drawn(self, facts: bytes, cohort: Sequence[ClientId]) -> tuple[tuple[ClientId, ...], ...]:
        """A cohort in groups, shuffled by a hash of these facts; raises as `Buckets.sizes`."""
        sizes = self.buckets.sizes(len(cohort))
        ranks = {
            c: hashlib.sha256(b"privfl/1/buckets|" + facts + b"|" + str(c).encode()).digest()
            for c in cohort
        }
        order = sorted(cohort, key=ranks.__getitem__)
        ends = np.cumsum(sizes).tolist()
        return tuple(tuple(order[end - size : end]) for size, end in zip(sizes, ends, strict=True))

    def colluding(self, plan: RoundPlan, group: int) -> int:
        """How many of a group of so many may collude with the server, wherever the cohort's corrupt
        clients sit: all but the client whose update they want.
        """
        return min(graph.part_of(plan.n, self.corrupt), group - 1)

    def checked(self, plan: RoundPlan) -> None:
        """Refuse a threshold that is too low for a lying server with the corrupt of one group.

        Raises:
            ConfigError: fewer than two groups, or such a threshold.
        """
        if self.mode != "active":
            return
        for size in set(self.buckets.sizes(plan.n)):
            bad, t = self.colluding(plan, size), self.inside().degree(size).t
            if 2 * t <= size + bad:
                raise ConfigError(
                    f"threshold {self.threshold}: {t} of {size} shares, where {bad} of a group may"
                    " collude with a lying server: raise channel.threshold, or lower"
                    " channel.corrupt."
                )

    def plan_of(self, plan: RoundPlan, group: Sequence[ClientId], number: int) -> RoundPlan:
        """A group's own plan: its clients, weights of one, and a part of its own, so that nothing
        fits another group.
        """
        return replace(
            plan, cohort=tuple(group), max_weight=1.0, part=f"{plan.part}/group/{number}"
        )
