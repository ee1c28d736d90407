"""FLTrust: rows weighed by their cosine with a clean root update, where it is positive, from open
scores or on shares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from privfl.core import RoundPlan
from privfl.crypto.mpc import Demand
from privfl.crypto.mpc.operations import Multiply, Open, OpenToFirst
from privfl.crypto.mpc.words import U64
from privfl.hybrid.two_server.checks import CHECKS, checking
from privfl.hybrid.two_server.fixed_checks import FIXED_CHECKS, open_scores
from privfl.hybrid.two_server.fixed_stock import Nothing, Stock
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.oblivious_selection import (
    ABOVE_ZERO,
    TRUST,
    Count,
    Mass,
    ObliviousSum,
    chosen_rows,
    counted,
    hidden_sum,
    mask_of,
    spread,
)
from privfl.hybrid.two_server.opened_scores import SCORES, Gather, cosine, opened
from privfl.hybrid.two_server.parameters import Needs, TwoServerParameters
from privfl.hybrid.two_server.public_sum import enough
from privfl.hybrid.two_server.registers import (
    ALONG,
    CHOSEN,
    COUNT,
    MASS,
    SUM,
    WEIGHT,
    WEIGHTS,
)
from privfl.hybrid.two_server.rules.rule import Reveal, Traits


@dataclass(frozen=True, slots=True)
class FLTrustOnShares:
    """FLTrust (a `SharedRule`); ``fixed`` divides by all rows, not by their trust."""

    kind: ClassVar[str] = "fltrust"

    reveal: Reveal
    fixed: bool = False

    @property
    def traits(self) -> Traits:
        """Rows are compared with a direction; unless scores are open they have one length, and
        their weights stay shared. Weights are any numbers.
        """
        closed = self.reveal != "scores"
        return Traits(directed=True, normalised=closed, hidden=closed, enforced=not closed)

    @property
    def stock(self) -> Stock:
        """Nothing."""
        return Nothing()

    @property
    def leaks(self) -> str:
        """Norms and cosines, or the choice and the sum of the trust."""
        if self.reveal == "scores":
            return "every update's norm and its cosine with the root update"
        who = "which clients count" if self.reveal == "selection" else "how many clients count"
        return f"{who}, and to the first server the sum of the trust"

    def needs(self, plan: RoundPlan) -> Needs:
        """Products with the direction, and sums under real weights or under these products."""
        closed = self.reveal != "scores"
        return Needs(dots=True, real_weights=not closed, dot_weights=closed)

    def preprocessing(self, now: TwoServerParameters, n: int) -> Demand:
        """The checks, and on shares the comparisons, products and the hidden sum."""
        if self.reveal == "scores":
            return checking(now, n)
        chosen = Demand(signs=2 * n, bits=2 * n, triples=2 * n)
        return checking(now, n) + chosen + hidden_sum(now, n, proved=False)

    def program(
        self, now: TwoServerParameters, least: int, close: tuple[Step, ...]
    ) -> tuple[Step, ...]:
        """From open scores, or on shares with the choice opened or not."""
        if now.malicious:
            return (*FIXED_CHECKS, *open_scores(dots=True), OpenTrust(self.fixed), *close)
        if self.reveal == "scores":
            return (*CHECKS, Gather(), Open(SCORES), OpenTrust(self.fixed), *close)
        return (
            *CHECKS,
            *ABOVE_ZERO,
            *trusted_sum(least, self.fixed, self.reveal == "selection"),
        )


# ---- from open scores


@dataclass(frozen=True, slots=True)
class OpenTrust:
    """FLTrust's weights max(0, cos) |g0| / |x| in fixed point. ``fixed`` divides by all rows,
    ``length`` is that of g0 after its clip. A row shorter than sqrt(d) / 2, which rounding alone
    can make, has no direction and no weight: the shorter a row, the more its weight.
    """

    fixed: bool

    def act(self, machine: Machine) -> None:
        """Set the public weights.

        Raises:
            StageAbort: opened scores that cannot be.
        """
        now, direction = machine.now, machine.direction
        dots, norms = opened(machine)
        square = 0 if direction is None else direction.square
        trusted = [
            max(0.0, cosine(int(dot), int(norm) * square)) if 4 * norm >= now.plan.d else 0.0
            for dot, norm in zip(dots, norms, strict=True)
        ]
        fine = now.fine
        weights: U64 = np.zeros(machine.n, dtype=np.uint64)
        for i, trust, norm in zip(machine.valid, trusted, norms.tolist(), strict=True):
            weight = round(trust * now.longest / math.sqrt(norm) * fine) if norm else 0
            weights[i] = (
                weight | 1 if weight else 0
            )  # odd, so that the masks' upper bits hide the carries of their sum
        machine.public[WEIGHTS] = weights
        machine.unit = 0.0 if direction is None else direction.length / (now.longest * fine)
        machine.weight = float(machine.n) if self.fixed else sum(trusted) or 1.0
        machine.count = int((weights != 0).sum())
        machine.disclosed["trust"] = torch.tensor(trusted)


# ---- on shares


@dataclass(frozen=True, slots=True)
class ObliviousTrust:
    """FLTrust's weights of rows of one common length: their products with the direction, where
    positive. ``least`` as elsewhere.
    """

    least: int
    fixed: bool
    named: bool

    def act(self, machine: Machine) -> None:
        """Fill the weights [n] and the sum of the trust.

        Raises:
            StageAbort: too few rows count.
        """
        now, shares, direction = machine.now, machine.shares, machine.direction
        if self.named:
            picked, bits = chosen_rows(machine), machine.public[CHOSEN]
            enough(len(picked), self.least)
            machine.count = len(picked)
            machine.disclosed["selected"] = mask_of(machine, picked)
            shares[WEIGHT] = spread(machine, shares[ALONG] * bits)
        else:
            counted(machine, self.least)
            shares[WEIGHT] = spread(machine, shares[TRUST])
        shares[MASS] = shares[WEIGHT].sum(keepdims=True, dtype=np.uint64)
        square = now.code.top**2 + now.plan.d / 12  # of a row of the common length, rounded
        steep = 0.0 if direction is None else math.sqrt(direction.square)
        machine.unit = direction.length / (square * steep) if direction is not None else 0.0
        machine.trust_unit = 1 / (math.sqrt(square) * steep) if steep else 0.0
        machine.weight = float(machine.n) if self.fixed else 0.0


def trusted_sum(least: int, fixed: bool, named: bool) -> tuple[Step, ...]:
    """Steps from the signs of the products to FLTrust's sum; ``named``: who is trusted becomes
    known, how far does not.
    """
    start: tuple[Step, ...] = (
        (Open(CHOSEN),) if named else (Multiply(CHOSEN, ALONG, TRUST), Count(), Open(COUNT))
    )
    end: tuple[Step, ...] = () if fixed else (OpenToFirst(MASS), Mass())
    return (
        *start,
        ObliviousTrust(least, fixed, named),
        ObliviousSum(WEIGHT),
        *end,
        OpenToFirst(SUM),
    )
