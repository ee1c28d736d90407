"""A rule and what may leak of it, as numbers: what it needs of the ring and of the dealer, and the
steps of the two servers.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass, field
from typing import Literal

from privfl.core import ConfigError, NoiseSource, OsNoise, RingNoise, RoundPlan
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.primitives import BackendName
from privfl.hybrid.two_server.checks import CHECKS, Everyone, PublicSum, comparisons, folds
from privfl.hybrid.two_server.judge import (
    Gather,
    GatherGram,
    OpenCosine,
    OpenKrum,
    OpenNorms,
    OpenTrust,
)
from privfl.hybrid.two_server.machine import Step
from privfl.hybrid.two_server.oblivious_krum import krum, krum_comparisons
from privfl.hybrid.two_server.oblivious_selection import (
    Chosen,
    along,
    trusted_sum,
    unnamed_sum,
)
from privfl.hybrid.two_server.parameters import Needs, TwoServerParameters, fitting
from privfl.hybrid.two_server.preprocessing import Demand
from privfl.hybrid.two_server.proved_choice import keys_for
from privfl.hybrid.two_server.signs import RING, sign_program
from privfl.hybrid.two_server.steps import Open, OpenToFirst
from privfl.hybrid.two_server.tags import OpenTagged

MOST_HIDDEN = 128
"""Rows among which Krum chooses on shares."""
Reveal = Literal["scores", "selection", "aggregate"]
Kind = Literal["mean", "krum", "fltrust", "cosine_filter", "signs"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One rule under one disclosure mode. Fields that a rule does not have stay at their defaults.

    ``least``: the fewest rows that a sum may be of. ``colluders``: how many clients may collude
    with a server that lies; a quorum has two more. ``noisy``: there is noise in the sum, though
    perhaps not of whoever follows this recipe.
    """

    kind: Kind
    reveal: Reveal
    least: int
    weighted: bool = False
    f: int = 0
    m: int = 0
    threshold: float = 0.0
    fixed: bool = False
    colluders: int = 0
    noisy: bool = False
    noise: RingNoise | None = None
    source: NoiseSource = field(default_factory=OsNoise, compare=False)

    @property
    def gram(self) -> bool:
        """Whether all rows are multiplied with all."""
        return self.kind == "krum"

    @property
    def directed(self) -> bool:
        """Whether rows are compared with a direction."""
        return self.kind in ("fltrust", "cosine_filter", "signs")

    @property
    def normalised(self) -> bool:
        """Whether clients bring their rows to one common length, so that weights need no
        division.
        """
        return self.kind == "fltrust" and self.reveal != "scores"

    @property
    def hidden(self) -> bool:
        """Whether the weights of the sum are shared, so that no server knows them."""
        return self.normalised or (self.reveal == "aggregate" and self.kind != "mean")

    @property
    def proved(self) -> bool:
        """Whether hidden weights are proved to be 0 or 1: FLTrust's, which are any number, are
        not.
        """
        return self.hidden and self.kind in ("krum", "cosine_filter")

    @property
    def capped(self) -> bool:
        """Whether every sum is of whole rows, so many at least: rows that count by any other weight
        can be told apart in the sum.
        """
        return self.kind in ("mean", "krum", "cosine_filter")

    def quorum(self, n: int, threshold: float) -> int:
        """The fewest contributions of a cohort of n that are ever opened."""
        return max(2 + self.colluders, math.ceil(n * threshold - 1e-9))

    @property
    def tagged(self) -> bool:
        """Whether the second server's share of the sum is checked: its weights are public, and it
        has no noise of its own.
        """
        return not self.hidden and not self.noisy and self.kind != "signs"

    def demand(self, now: TwoServerParameters, n: int) -> Demand:
        """What n rows can take of the dealer's randomness at most; dealt bits for rows of signs
        come on top.
        """
        if now.signs:
            count = n if self.hidden else 0
            return Demand(signs=count, bits=count, triples=count, weights=count)
        signs, triples = 0, 0
        if self.reveal != "scores" and self.kind == "krum":
            signs, triples = krum_comparisons(n), n * (n - 1)
        elif self.reveal != "scores" and self.directed:
            signs, triples = 2 * n, 2 * n
        return Demand(
            signs=comparisons(now, n) + signs,
            bits=signs,
            triples=triples,
            inner=now.inner(n),
            weights=n if self.hidden else 0,
            vector=now.plan.d if self.hidden else 0,
            folds=folds(now, n),
            keys=keys_for(now.ring) if self.proved else 0,
        )

    def program(self, now: TwoServerParameters, everyone: bool) -> tuple[Step, ...]:
        """The servers' steps; ``everyone``: no direction is known yet, so nobody is filtered."""
        if now.signs:
            return sign_program(self.reveal, math.floor(self.threshold * now.plan.d), self.least)
        close: tuple[Step, ...] = (
            PublicSum(self.least, self.noise, self.source, unit_l2(now)),
            OpenTagged() if self.tagged else OpenToFirst("sum"),
        )
        if self.kind == "mean" or everyone:
            norms: tuple[Step, ...] = (
                (Gather(dots=False), Open("scores"), OpenNorms()) if self.reveal == "scores" else ()
            )
            return (*CHECKS, *norms, Everyone(), *close)
        if self.reveal == "scores":
            return (*CHECKS, *self._judged(), *close)
        if self.normalised:
            return (
                *CHECKS,
                *along(0.0),
                *trusted_sum(self.least, self.fixed, self.reveal == "selection"),
            )
        choice = krum(self.f, self.m) if self.kind == "krum" else along(self.threshold)
        if self.reveal == "selection":
            return (*CHECKS, *choice, Open("chosen"), Chosen(self.m), *close)
        return (*CHECKS, *choice, *unnamed_sum(self.least, self.m))

    def _judged(self) -> tuple[Step, ...]:
        if self.kind == "krum":
            return (GatherGram(), Open("gram"), OpenKrum(self.f, self.m))
        return (
            Gather(),
            Open("scores"),
            OpenTrust(self.fixed) if self.kind == "fltrust" else OpenCosine(self.threshold),
        )


def quorum_of(recipe: Recipe, plan: RoundPlan, threshold: float) -> int:
    """The fewest contributions that this round opens.

    Raises:
        ConfigError: more than there are clients.
    """
    quorum = recipe.quorum(plan.n, threshold)
    if quorum > plan.n:
        raise ConfigError(
            f"round {plan.number}: colluders={recipe.colluders} asks for {quorum} rows in every"
            f" sum, and {plan.n} clients are asked: ask more clients, or lower colluders."
        )
    return quorum


def unit_l2(now: TwoServerParameters) -> float:
    """The norm that one accepted contribution can have, in integers."""
    return float(now.longest)


def round_of(
    recipe: Recipe,
    plan: RoundPlan,
    *,
    bits: int,
    ring: int | None,
    threshold: float,
    soundness: int,
    library: BackendName,
) -> TwoServerParameters:
    """A round's public parameters, with the headroom of the ring and the soundness of the checks
    proved.

    Raises:
        ConfigError: fewer than 2 clients, no finite bound, or no ring that holds it all.
    """
    if plan.n < 2:
        raise ConfigError(
            f"round {plan.number}: the result of {plan.n} client hides nothing; two servers need at"
            " least 2."
        )
    code = FixedPoint(bits)
    code.scale(plan)
    closed = recipe.reveal != "scores"
    if recipe.gram and closed and plan.n > MOST_HIDDEN:
        raise ConfigError(
            f"round {plan.number}: Krum on shares compares n^3 / 2 distances, and {plan.n} rows are"
            f" more than {MOST_HIDDEN}: ask fewer clients, or set reveal: scores, which opens the"
            " inner products."
        )
    needs = Needs(
        distances=plan.n if recipe.gram and closed else int(recipe.gram),
        dots=recipe.directed,
        squares=recipe.kind == "cosine_filter" and closed and recipe.threshold != 0,
        real_weights=recipe.kind == "fltrust" and not closed,
        dot_weights=recipe.normalised,
    )
    longest = code.inflated(plan.l2, plan.d) * code.scale(plan)
    noise = (
        0 if recipe.noise is None else 2 * recipe.noise.reach(math.ceil(longest * (1 + 1e-6)), 1, 1)
    )
    shortest = max(math.floor(code.top - math.sqrt(plan.d) / 2 - 1), 1) if recipe.normalised else 0
    found, rows, top, steep = fitting(code, plan, needs, noise, soundness, ring)
    quorum = quorum_of(recipe, plan, threshold)
    numbers = struct.pack("<HHHQQ", bits, found, rows, top, steep)
    return TwoServerParameters(
        tag=tag_of(recipe, plan, quorum, numbers),
        plan=plan,
        code=code,
        ring=found,
        rows=rows,
        longest=top,
        shortest=shortest,
        quorum=quorum,
        weighted=recipe.weighted,
        gram=recipe.gram,
        steep=steep,
        library_name=library,
    )


def tag_of(recipe: Recipe, plan: RoundPlan, quorum: int, numbers: bytes) -> bytes:
    """What stands for all public parameters of a round."""
    words = [
        plan.session,
        plan.part.encode(),
        ",".join(map(str, plan.cohort)).encode(),
        repr(recipe.kind).encode(),
        recipe.reveal.encode(),
        *(model.encode() for model in plan.models),
    ]
    words += [
        repr(
            (
                recipe.least,
                recipe.weighted,
                recipe.f,
                recipe.m,
                recipe.threshold,
                recipe.fixed,
                recipe.colluders,
                recipe.noise,
            )
        ).encode()
    ]
    facts = struct.pack("<qQddI", plan.number, plan.d, plan.l2, plan.max_weight, quorum) + numbers
    digest = hashlib.sha256(
        b"privfl/1/two-server"
        + facts
        + b"".join(len(word).to_bytes(8, "little") + word for word in words)
    )
    return digest.digest()[:16]


def sign_round(
    recipe: Recipe, plan: RoundPlan, *, threshold: float, library: BackendName
) -> TwoServerParameters:
    """The public parameters of a round of sign rows, with the headroom of its ring proved.

    Raises:
        ConfigError: fewer than 2 clients, no finite bound, or weighted sums that could leave the
            ring.
    """
    if plan.n < 2:
        raise ConfigError(
            f"round {plan.number}: the result of {plan.n} client hides nothing; two servers need at"
            " least 2."
        )
    if not plan.l2 < math.inf:
        raise ConfigError("rows of signs get their length from the clip: set bound to a clip.")
    if plan.n * plan.d >= 1 << (RING - 2):
        raise ConfigError(
            f"round {plan.number}: {plan.n} rows of {plan.d} signs are more than 2^{RING - 2}"
            " together: ask fewer clients."
        )
    quorum = quorum_of(recipe, plan, threshold)
    return TwoServerParameters(
        tag=tag_of(recipe, plan, quorum, b"signs"),
        plan=plan,
        code=FixedPoint(),
        ring=RING,
        rows=0,
        longest=1,
        shortest=0,
        quorum=quorum,
        weighted=False,
        gram=False,
        steep=1,
        library_name=library,
        signs=True,
    )
