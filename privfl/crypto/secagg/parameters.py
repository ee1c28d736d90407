"""What every party of a round computes alike from the channel's description and the plan."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np

from privfl.core import ConfigError, NoiseSource, OsNoise, RingNoise, RoundPlan, require
from privfl.crypto.encoding import FixedPoint, weight_words
from privfl.crypto.primitives import BackendName, backend
from privfl.crypto.ring import ring_for, word
from privfl.crypto.secagg import graph
from privfl.crypto.secagg.graph import Degree

LEAST = -1.0
"""A graph whose bound on losing privacy (log2) is over this is no protection, whoever asks for it.
"""


@dataclass(frozen=True, slots=True)
class SecAggSettings:
    """What describes a secure aggregation before any round; `SecAgg` says what each field means.

    Parties, views and the ideal functionality need no more of their channel.

    Raises:
        ConfigError: a setting that cannot be.
    """

    threshold: float | int | None = None
    graph: Literal["complete", "k_regular"] | int = "k_regular"
    mode: Literal["semi_honest", "active"] = "semi_honest"
    bits: int = 16
    ring: int | None = None
    rounding: Literal["nearest", "stochastic"] = "nearest"
    rotation: bool = False
    corrupt: float = 0.1
    drop: float = 0.1
    sigma: float = 40.0
    eta: float = 30.0
    noise: RingNoise | None = None
    noise_source: NoiseSource = field(default_factory=OsNoise, compare=False)
    carry: bool = False
    fidelity: Literal["real", "ideal"] = "real"
    forward_secrecy: bool = True
    backend: BackendName = "auto"

    def __post_init__(self) -> None:
        if self.graph not in ("complete", "k_regular") and not (
            isinstance(self.graph, int) and self.graph > 0
        ):
            raise ConfigError(
                f"graph is 'complete', 'k_regular' or a degree above 0, and is {self.graph!r}."
            )
        if self.mode not in ("semi_honest", "active"):
            raise ConfigError(f"mode is 'semi_honest' or 'active', and is '{self.mode}'.")
        if self.fidelity not in ("real", "ideal"):
            raise ConfigError(f"fidelity is 'real' or 'ideal', and is '{self.fidelity}'.")
        if self.ring not in (None, 16, 24, 32):
            raise ConfigError(f"ring is 16, 24, 32 or None, and is {self.ring}.")
        if isinstance(self.threshold, int):
            require.at_least(1, threshold=self.threshold)
        elif self.threshold is not None:
            require.within(0, 1, threshold=self.threshold)
        require.within(0, 0.5, corrupt=self.corrupt, drop=self.drop)
        require.positive(sigma=self.sigma, eta=self.eta)
        backend(self.backend)
        FixedPoint(self.bits, self.rounding, self.rotation)

    @property
    def active(self) -> bool:
        """Whether the server may lie."""
        return self.mode == "active"

    @property
    def code(self) -> FixedPoint:
        """How values become integers."""
        return FixedPoint(self.bits, self.rounding, self.rotation, weight_words(self.bits))


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
        """Whether clients draw their own share holders, as against an active server on a sparse
        graph.
        """
        return self.active and not self.complete

    @property
    def key_bytes(self) -> int:
        """Bytes of a client's public keys: to be sent shares and to agree on masks; one key serves
        for both against an active server.
        """
        return 32 if self.active else 64

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """The word that holds a ring element."""
        return word(self.ring)

    def points(self, owner: int, holders: Collection[int]) -> dict[int, int]:
        """Where on the polynomials of its secrets the shares of an owner's holders lie, and its
        own. ``holders``: all that it drew, where clients draw them: the points are then their ranks
        and the same for everybody.
        """
        if not self.chosen:
            return {holder: holder + 1 for holder in (*holders, owner)}
        ranks = {holder: rank for rank, holder in enumerate(sorted(holders), 1)}
        return {**ranks, owner: self.degree.shares}

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


def degree_for(settings: SecAggSettings, n: int) -> Degree:
    """The degree and threshold of a cohort of n.

    Raises:
        ConfigError: a threshold that is not over half of the shares, or too low for the corrupt
            neighbours of an active round.
    """
    if settings.graph == "complete" or n <= 3:
        found = graph.complete(n, corrupt=settings.corrupt, active=settings.active)
    elif settings.graph == "k_regular":
        found = graph.degree(
            n,
            corrupt=settings.corrupt,
            drop=settings.drop,
            sigma=settings.sigma,
            eta=settings.eta,
            active=settings.active,
        )
    else:
        found = _by_hand(settings, n)
    if settings.threshold is None:
        chosen = found
    elif isinstance(settings.threshold, int):
        chosen = Degree(found.k, settings.threshold)
    else:
        chosen = Degree(found.k, max(found.t, math.ceil(settings.threshold * found.shares - 1e-9)))
    if not found.t <= chosen.t <= chosen.shares:
        raise ConfigError(
            f"threshold {settings.threshold}: {chosen.t} of {chosen.shares} shares, where {n}"
            f" clients of whom {settings.corrupt:.0%} may be corrupt need {found.t} to"
            f" {chosen.shares} in {settings.mode} mode: change threshold, graph or corrupt."
        )
    private, _ = graph.fails(n, chosen, settings.corrupt, settings.drop, settings.active)
    if private > LEAST:
        raise ConfigError(
            f"graph {settings.graph}, threshold {settings.threshold}: where {settings.corrupt:.0%}"
            f" of {n} clients are corrupt, some client's secrets are theirs with probability"
            f" 2^{private:.3g}: set graph: k_regular, which computes a degree, or a larger one."
        )
    return chosen


def figures_of(settings: SecAggSettings, n: int) -> str:
    """How likely the graph fails a cohort of n, in words."""
    found = degree_for(settings, n)
    private, late = graph.fails(n, found, settings.corrupt, settings.drop, settings.active)
    return (
        f"{_chance(private)} where {settings.corrupt:.0%} are corrupt; a round in which"
        f" {settings.drop:.0%} leave fails {_chance(late)}"
    )


def _chance(log2: float) -> str:
    return "never" if log2 == -math.inf else f"with probability 2^{log2:.0f} at most"


def _by_hand(settings: SecAggSettings, n: int) -> Degree:
    """The threshold for a degree that somebody set: the smallest safe one; against an active server
    the smallest with which no part of the cohort keeps to itself but for 2^-sigma and which opens
    what a client leaves that goes, or the one that comes nearest.
    """
    corrupt, sigma, active = settings.corrupt, settings.sigma, settings.active
    k = graph.even(int(settings.graph), n)
    if k >= n - 1:
        return graph.complete(n, corrupt=corrupt, active=active)
    safe = graph.threshold_for(n, k, corrupt, sigma, active)
    if not active or settings.threshold is not None:
        return Degree(k, safe)
    some = [Degree(k, t) for t in range(safe, k + 1)] or [Degree(k, safe)]
    fails = [graph.fails(n, one, corrupt, settings.drop, active) for one in some]
    for one, (private, late) in zip(some, fails, strict=True):
        if private <= -sigma and late <= LEAST:
            return one
    return some[min(range(len(some)), key=lambda i: max(fails[i]))]


def quorum_of(settings: SecAggSettings, n: int) -> int:
    """The fewest contributions of a cohort of n that are ever summed: the threshold's fraction of
    it; on a sparse graph against an active server, who pads the sets that it tells, as few as it
    can have summed (`graph.fewest_together`), where these are fewer.

    Raises:
        ConfigError: as `degree_for`.
    """
    degree = degree_for(settings, n)
    share = max(2, math.ceil(n * degree.t / degree.shares - 1e-9))
    if not settings.active or degree.k >= n - 1:
        return share
    honest = graph.fewest_together(n, degree, settings.corrupt, settings.drop, settings.sigma)
    return min(share, honest + graph.part_of(n, settings.corrupt))


@lru_cache(maxsize=64)
def parameters_of(settings: SecAggSettings, plan: RoundPlan) -> SecAggParameters:
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
    degree = degree_for(settings, plan.n)
    if settings.carry and settings.active and degree.k < plan.n - 1:
        raise ConfigError(
            "carry saves nothing on a sparse graph in active mode, where clients draw their share"
            " holders when they know the cohort: leave carry out, or set graph: complete."
        )
    quorum = quorum_of(settings, plan.n)
    ring = ring_for(settings.code, plan, noise_reach(settings, plan, quorum), settings.ring)
    words = [
        b"privfl/5/secagg",
        plan.session,
        plan.part.encode(),
        settings.mode.encode(),
        settings.code.rounding.encode(),
        ",".join(map(str, plan.cohort)).encode(),
        b"ideal" if settings.fidelity == "ideal" else b"real",
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
        settings.bits,
        ring,
        settings.rotation,
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
        settings.code.length(plan),
        settings.active,
    )


def noise_reach(settings: SecAggSettings, plan: RoundPlan, quorum: int) -> int:
    """How far the cohort's noise can move one integer of the sum."""
    if settings.noise is None:
        return 0
    return settings.noise.reach(unit_l2(settings, plan), quorum, plan.n)


def unit_l2(settings: SecAggSettings, plan: RoundPlan) -> float:
    """The norm that one contribution can have, in integers, rounding included."""
    return settings.code.inflated(plan.l2, plan.d) * settings.code.scale(plan)
