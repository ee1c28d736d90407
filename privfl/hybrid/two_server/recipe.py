"""A rule with the sizes that both servers enforce and the noise that they add: the steps of the two
servers, what they take of the dealer, and a round's public parameters.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass, field

from privfl.core import ConfigError, NoiseSource, OsNoise, RingNoise, RoundPlan
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.mpc import Demand
from privfl.crypto.mpc.authentication import LARGEST_RING
from privfl.crypto.mpc.operations import OpenToFirst
from privfl.crypto.primitives import BackendName
from privfl.hybrid.two_server.fixed_masks import Extent
from privfl.hybrid.two_server.machine import Step
from privfl.hybrid.two_server.parameters import TwoServerParameters, fitting
from privfl.hybrid.two_server.public_sum import PublicSum
from privfl.hybrid.two_server.registers import SUM
from privfl.hybrid.two_server.rules.mean import MeanOnShares
from privfl.hybrid.two_server.rules.rule import SharedRule, Traits
from privfl.hybrid.two_server.sign_rows import RING
from privfl.hybrid.two_server.soundness import RINGS
from privfl.hybrid.two_server.tags import OpenTagged


@dataclass(frozen=True, slots=True)
class Recipe:
    """One rule under one disclosure mode, as both servers run it.

    ``least``: the fewest rows that a sum may be of. ``colluders``: how many clients may collude
    with a server that lies; a quorum has two more. ``malicious``: one server may lie, and then gets
    what the rule says or an abort. ``noisy``: there is noise in the sum, though
    perhaps not of whoever follows this recipe. ``ahead``: the dealer dealt before the round.
    """

    rule: SharedRule
    least: int
    colluders: int = 0
    malicious: bool = False
    noisy: bool = False
    noise: RingNoise | None = None
    source: NoiseSource = field(default_factory=OsNoise, compare=False)
    ahead: bool = False

    @property
    def traits(self) -> Traits:
        """What the parties know of the rule beside its steps."""
        return self.rule.traits

    @property
    def tagged(self) -> bool:
        """Whether the second server's share of the sum is checked: its weights are public, and it
        has no noise of its own.
        """
        return not self.traits.hidden and not self.noisy and self.rule.kind != "signs"

    def quorum(self, n: int, threshold: float) -> int:
        """The fewest contributions of a cohort of n that are ever opened."""
        return max(2 + self.colluders, math.ceil(n * threshold - 1e-9))

    def extent(self, now: TwoServerParameters, n: int) -> Extent:
        """What n fixed rows take of the dealer."""
        traits, scored = self.traits, self.rule.reveal == "scores"
        stock = self.rule.stock
        decided = traits.directed and not scored and not stock.items(now, n)
        return Extent(
            n=n,
            products=now.rows + traits.directed + n * traits.gram,
            compared=now.rows + 1 + now.weighted + decided,
            decided=decided,
            hidden=traits.hidden,
            scores=(1 + traits.directed) if scored and not traits.gram else 0,
            pairs=n * n if traits.gram else 0,
            tagged=self.tagged,
            stock=stock,
        )

    def demand(self, now: TwoServerParameters, n: int) -> Demand:
        """What n rows can take of the dealer's randomness at most; dealt bits for rows of signs
        come on top.
        """
        return self.rule.preprocessing(now, n)

    def program(self, now: TwoServerParameters, everyone: bool) -> tuple[Step, ...]:
        """The servers' steps; ``everyone``: no direction is known yet, so nobody is filtered."""
        close: tuple[Step, ...] = (
            PublicSum(self.least, self.noise, self.source, unit_l2(now)),
            OpenTagged() if self.tagged else OpenToFirst(SUM),
        )
        rule = MeanOnShares(self.rule.reveal) if everyone and not now.signs else self.rule
        return rule.program(now, self.least, close)


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
    proved = recipe.rule.stock.most if recipe.malicious else 0
    if proved and plan.n > proved:
        raise ConfigError(
            f"round {plan.number}: under security 'malicious' {recipe.rule.kind} with reveal"
            f" '{recipe.rule.reveal}' is proved for at most {proved} rows, and {plan.n} are asked:"
            " ask fewer clients, or set reveal: scores, or security: semi_honest."
        )
    needs, traits = recipe.rule.needs(plan), recipe.traits
    longest = code.inflated(plan.l2, plan.d) * code.scale(plan)
    noise = (
        0 if recipe.noise is None else 2 * recipe.noise.reach(math.ceil(longest * (1 + 1e-6)), 1, 1)
    )
    shortest = max(math.floor(code.top - math.sqrt(plan.d) / 2 - 1), 1) if traits.normalised else 0
    most = LARGEST_RING if recipe.malicious and not needs.dot_weights else max(RINGS)
    rings = [size for size in (RINGS if ring is None else (ring,)) if size <= most]
    found, rows, top, steep = fitting(code, plan, needs, noise, soundness, rings, recipe.malicious)
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
        weighted=traits.weighted,
        gram=traits.gram,
        steep=steep,
        library_name=library,
        malicious=recipe.malicious,
    )


def tag_of(recipe: Recipe, plan: RoundPlan, quorum: int, numbers: bytes) -> bytes:
    """What stands for all public parameters of a round."""
    words = [
        plan.session,
        plan.part.encode(),
        ",".join(map(str, plan.cohort)).encode(),
        *(model.encode() for model in plan.models),
        repr(
            (recipe.rule, recipe.least, recipe.colluders, recipe.malicious, recipe.noise)
        ).encode(),
        *([b"dealt ahead"] if recipe.ahead else []),
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
        malicious=recipe.malicious,
    )
