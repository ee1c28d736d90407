"""A rule and what may leak of it, as numbers: what it needs of the ring and of the dealer, and the steps of the two servers."""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass, field
from typing import Literal

from privfl.core import ConfigError, NoiseSource, OsNoise, RingNoise, RoundPlan
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.primitives import BackendName
from privfl.hybrid.two_server.checks import CHECKS, Everyone, PublicSum, comparisons
from privfl.hybrid.two_server.judge import Gather, OpenCosine, OpenKrum, OpenNorms, OpenTrust
from privfl.hybrid.two_server.machine import Open, OpenToFirst, Step
from privfl.hybrid.two_server.rounds import Needs, Round, fitting
from privfl.hybrid.two_server.supply import Demand

Reveal = Literal["scores", "selection", "aggregate"]
Kind = Literal["mean", "krum", "fltrust", "cosine_filter"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One rule under one disclosure mode. Fields that a rule does not have stay at their defaults."""

    kind: Kind
    reveal: Reveal
    least: int
    weighted: bool = False
    f: int = 0
    m: int = 0
    threshold: float = 0.0
    fixed: bool = False
    noise: RingNoise | None = None
    source: NoiseSource = field(default_factory=OsNoise, compare=False)

    @property
    def gram(self) -> bool:
        """Whether all rows are multiplied with all."""
        return self.kind == "krum"

    @property
    def directed(self) -> bool:
        """Whether rows are compared with a direction."""
        return self.kind in ("fltrust", "cosine_filter")

    @property
    def hidden(self) -> bool:
        """Whether no server learns which rows count: the weights of the sum are shared."""
        return self.reveal == "aggregate" and self.kind != "mean"

    def demand(self, now: Round, n: int) -> Demand:
        """What n rows can take of the dealer's randomness at most."""
        return Demand(signs=comparisons(now, n), inner=now.inner(n))

    def program(self, now: Round, everyone: bool) -> tuple[Step, ...]:
        """The servers' steps; ``everyone``: no direction is known yet, so nobody is filtered."""
        close: tuple[Step, ...] = (PublicSum(self.least, self.noise, self.source, unit_l2(now)), OpenToFirst("sum"))
        if self.kind == "mean" or everyone:
            norms: tuple[Step, ...] = (Gather(dots=False), Open("scores"), OpenNorms()) if self.reveal == "scores" else ()
            return (*CHECKS, *norms, Everyone(), *close)
        if self.kind == "krum":
            return (*CHECKS, Open("inner"), OpenKrum(self.f, self.m), *close)
        judge: Step = OpenTrust(self.fixed) if self.kind == "fltrust" else OpenCosine(self.threshold)
        return (*CHECKS, Gather(), Open("scores"), judge, *close)


def unit_l2(now: Round) -> float:
    """The norm that one accepted contribution can have, in integers."""
    return float(now.longest)


def round_of(
    recipe: Recipe, plan: RoundPlan, *, bits: int, ring: int | None, threshold: float, soundness: int, library: BackendName
) -> Round:
    """A round's public parameters, with the headroom of the ring and the soundness of the checks proved.

    Raises:
        ConfigError: fewer than 2 clients, no finite bound, or no ring that holds it all.
    """
    if plan.n < 2:
        raise ConfigError(f"round {plan.number}: the result of {plan.n} client hides nothing; two servers need at least 2.")
    code = FixedPoint(bits)
    code.scale(plan)
    needs = Needs(distances=recipe.gram, dots=recipe.directed, real_weights=recipe.kind == "fltrust")
    longest = code.inflated(plan.l2, plan.d) * code.scale(plan)
    noise = 0 if recipe.noise is None else 2 * recipe.noise.reach(math.ceil(longest * (1 + 1e-6)), 1, 1)
    found, rows, top, steep = fitting(code, plan, needs, noise, soundness, ring)
    quorum = max(2, math.ceil(plan.n * threshold - 1e-9))
    words = [plan.session, plan.part.encode(), ",".join(map(str, plan.cohort)).encode(), repr(recipe.kind).encode(), recipe.reveal.encode()]
    words += [repr((recipe.least, recipe.weighted, recipe.f, recipe.m, recipe.threshold, recipe.fixed, recipe.noise)).encode()]
    numbers = struct.pack("<qQddHHHIQQ", plan.number, plan.d, plan.l2, plan.max_weight, bits, found, rows, quorum, top, steep)
    digest = hashlib.sha256(b"privfl/1/two-server" + numbers + b"".join(len(word).to_bytes(8, "little") + word for word in words))
    return Round(
        tag=digest.digest()[:16], plan=plan, code=code, ring=found, rows=rows, longest=top, shortest=0, quorum=quorum,
        weighted=recipe.weighted, gram=recipe.gram, steep=steep, library_name=library,
    )  # fmt: skip
