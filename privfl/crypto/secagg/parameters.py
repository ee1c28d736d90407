"""What every party of a round computes alike from the channel's description and the plan."""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from privfl.core import ConfigError, RoundPlan
from privfl.crypto.ring import ring_for, word
from privfl.crypto.secagg import graph
from privfl.crypto.secagg.graph import Degree

if TYPE_CHECKING:
    from privfl.crypto.secagg.channel import SecAgg


@dataclass(frozen=True, slots=True)
class SecAggParameters:
    """A round's public parameters.

    ``tag`` stands for all of them and is in every message; ``epoch`` is what key pairs are bound
    to: session, round and part, not the cohort, which is not known yet when next round's keys
    travel. ``quorum`` is the fewest contributions that are ever summed.
    """

    tag: bytes
    n: int
    degree: Degree
    quorum: int
    ring: int
    length: int
    active: bool

    @property
    def complete(self) -> bool:
        """Whether everybody is everybody's neighbour."""
        return self.degree.k >= self.n - 1

    @property
    def chosen(self) -> bool:
        """Whether clients pick their own neighbours, as against an active server on a sparse
        graph.
        """
        return self.active and not self.complete

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """The word that holds a ring element."""
        return word(self.ring)

    def neighbours(self, position: int) -> tuple[int, ...]:
        """The clients that a client shares masks with, where the round's public facts decide it."""
        return graph.neighbours(self.tag, self.n, self.degree.k, position)


def epoch(plan: RoundPlan, number: int) -> bytes:
    """What the key pairs of a session's part and round are bound to."""
    text = (
        b"privfl/1/secagg/keys"
        + struct.pack("<qI", number, len(plan.part))
        + plan.part.encode()
        + plan.session
    )
    return hashlib.sha256(text).digest()


def degree_for(channel: SecAgg, n: int) -> Degree:
    """The degree and threshold of a cohort of n.

    Raises:
        ConfigError: a threshold that is not over half of the shares, or too low for the corrupt
            neighbours of an active round.
    """
    if channel.graph == "complete" or n <= 3:
        found = graph.complete(n, corrupt=channel.corrupt, active=channel.active)
    elif channel.graph == "k_regular":
        found = graph.degree(
            n,
            corrupt=channel.corrupt,
            drop=channel.drop,
            sigma=channel.sigma,
            eta=channel.eta,
            active=channel.active,
        )
    else:
        k = graph.even(int(channel.graph), n)
        safe = graph.threshold_for(n, k, channel.corrupt, channel.sigma, channel.active)
        whole = graph.complete(n, corrupt=channel.corrupt, active=channel.active)
        found = whole if k >= n - 1 else Degree(k, safe)
    if channel.threshold is None:
        chosen = found
    elif isinstance(channel.threshold, int):
        chosen = Degree(found.k, channel.threshold)
    else:
        chosen = Degree(found.k, max(found.t, math.ceil(channel.threshold * found.shares - 1e-9)))
    if not found.t <= chosen.t <= chosen.shares:
        raise ConfigError(
            f"threshold {channel.threshold}: {chosen.t} of {chosen.shares} shares, where {n}"
            f" clients of whom {channel.corrupt:.0%} may be corrupt need {found.t} to"
            f" {chosen.shares} in {channel.mode} mode: change threshold, graph or corrupt."
        )
    return chosen


@lru_cache(maxsize=64)
def parameters_of(channel: SecAgg, plan: RoundPlan) -> SecAggParameters:
    """The round's public parameters, with the headroom of the ring proved.

    Raises:
        ConfigError: fewer than 2 clients, a sum that could leave the ring, or a threshold that
            proves nothing.
    """
    if plan.n < 2:
        raise ConfigError(
            f"round {plan.number}: a sum over {plan.n} client hides nothing; secure aggregation"
            " needs at least 2."
        )
    degree = degree_for(channel, plan.n)
    quorum = max(2, math.ceil(plan.n * degree.t / degree.shares - 1e-9))
    ring = ring_for(channel.code, plan, noise_reach(channel, plan, quorum), channel.ring)
    words = [
        b"privfl/1/secagg", plan.session, plan.part.encode(), channel.mode.encode(), channel.code.rounding.encode(),
        ",".join(map(str, plan.cohort)).encode(), b"ideal" if channel.fidelity == "ideal" else b"real",
        *(model.encode() for model in plan.models),
    ]
    numbers = struct.pack(
        "<qQddIIIHH?",
        plan.number,
        plan.d,
        plan.l2,
        plan.max_weight,
        degree.k,
        degree.t,
        quorum,
        channel.bits,
        ring,
        channel.rotation,
    )
    digest = hashlib.sha256(
        b"".join(len(word).to_bytes(8, "little") + word for word in words) + numbers
    )
    return SecAggParameters(
        digest.digest()[:16],
        plan.n,
        degree,
        quorum,
        ring,
        channel.code.length(plan),
        channel.active,
    )


def noise_reach(channel: SecAgg, plan: RoundPlan, quorum: int) -> int:
    """How far the cohort's noise can move one integer of the sum."""
    return (
        0 if channel.noise is None else channel.noise.reach(unit_l2(channel, plan), quorum, plan.n)
    )


def unit_l2(channel: SecAgg, plan: RoundPlan) -> float:
    """The norm that one contribution can have, in integers, rounding included."""
    return channel.code.inflated(plan.l2, plan.d) * channel.code.scale(plan)
