"""FLTrust: rows weighed by their cosine with a clean root update, where it is positive, from open
scores or on shares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from privfl.core import RoundPlan
from privfl.crypto.mpc import Authenticated, Demand, Wide
from privfl.crypto.mpc.authentication import OpenChecked
from privfl.crypto.mpc.operations import Multiply, Open, OpenToFirst
from privfl.crypto.mpc.wide import halves, numbers
from privfl.crypto.mpc.words import U64, ring_mask, signed
from privfl.hybrid.two_server.checks import CHECKS, checking
from privfl.hybrid.two_server.fixed_checks import FIXED_CHECKS, open_scores
from privfl.hybrid.two_server.fixed_choice import sum_under
from privfl.hybrid.two_server.fixed_stock import (
    Item,
    Joint,
    Known,
    Masks,
    Nothing,
    RuleStock,
    WideWords,
    blind_of,
)
from privfl.hybrid.two_server.lifting import (
    Lifting,
    lifted_dots,
    lifting_items,
    lifting_known,
    open_bits,
    opened_bits,
    signs,
    wide_one,
)
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
        return Traits(directed=True, normalised=closed, hidden=closed)

    @property
    def stock(self) -> RuleStock:
        """Where weights stay shared, what lifts products and makes weights of them."""
        return Nothing() if self.reveal == "scores" else Trusts(self.reveal == "selection")

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
        named = self.reveal == "selection"
        if now.malicious and self.reveal == "scores":
            return (*FIXED_CHECKS, *open_scores(dots=True), OpenTrust(self.fixed), *close)
        if now.malicious:
            return (*FIXED_CHECKS, *proved_trust(least, self.fixed, named))
        if self.reveal == "scores":
            return (*CHECKS, Gather(), Open(SCORES), OpenTrust(self.fixed), *close)
        return (
            *CHECKS,
            *ABOVE_ZERO,
            *trusted_sum(least, self.fixed, named),
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
        shares = machine.shares
        if self.named:
            bits = machine.public[CHOSEN]
            _named(machine, self.least)
            shares[WEIGHT] = spread(machine, shares[ALONG] * bits)
        else:
            counted(machine, self.least)
            shares[WEIGHT] = spread(machine, shares[TRUST])
        shares[MASS] = shares[WEIGHT].sum(keepdims=True, dtype=np.uint64)
        _units(machine, self.fixed)


def _named(machine: Machine, least: int) -> None:
    """It is known who is trusted."""
    picked = chosen_rows(machine)
    enough(len(picked), least)
    machine.count = len(picked)
    machine.disclosed["selected"] = mask_of(machine, picked)


def _units(machine: Machine, fixed: bool) -> None:
    """What the sum and the trust count in, with rows of one common length."""
    now, direction = machine.now, machine.direction
    square = now.code.top**2 + now.plan.d / 12  # of a row of the common length, rounded
    steep = 0.0 if direction is None else math.sqrt(direction.square)
    machine.unit = direction.length / (square * steep) if direction is not None else 0.0
    machine.trust_unit = 1 / (math.sqrt(square) * steep) if steep else 0.0
    machine.weight = float(machine.n) if fixed else 0.0
    if fixed:  # no weight is over the product of a row and the direction
        machine.reach = machine.n * now.longest**2 * steep


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


# ---- from weights that are lifted with proofs

_KNOWN = "products"
_MASS = "mass"
_COUNTED = Authenticated("counted")
"""How many rows are trusted [1]."""
MASKED_TRUST = Wide("masked weights")
"""Each row's weight less what the dealer knows of it [n], and the sum of all, under a word that the
first server knows [1].
"""


@dataclass(frozen=True, slots=True)
class Trusts:
    """What it takes to make a weight of each product that is above zero (a `RuleStock`);
    ``named``: who is trusted becomes known.
    """

    named: bool

    @property
    def most(self) -> int:
        """Any number."""
        return 0

    def items(self, now: TwoServerParameters, n: int) -> Mapping[str, Item]:
        """A lifted value a row, the sign's bit, and the words that a weight is linear in; the
        mask of their sum.
        """
        return {
            **lifting_items(now, n, 1),
            _KNOWN: WideWords(6 * n),
            _MASS: WideWords(1),
        }

    def known(self, now: TwoServerParameters, n: int, masks: Masks, joint: Joint) -> Known:
        """What the dealer knows of each."""
        dots = Lifting.of(now, masks.dots, joint, "dots")
        bits = joint.bits("signs", n) * np.uint64(not self.named)
        r, rho, sign = (words.astype(object) for words in (dots.r, dots.rho, bits))
        above = joint.words("above weights", n).astype(object) * (1 << 64)
        hidden = masks.weights.astype(object) + above
        return {
            **lifting_known(now, [dots], bits),
            _KNOWN: np.concatenate([r, rho, sign, sign * r, sign * rho, hidden]),
            _MASS: np.array([joint.of_first(_MASS)], dtype=object),
        }


@dataclass(frozen=True, slots=True)
class CountTrusted:
    """How many rows are trusted, to be opened; or who, which is open already."""

    named: bool
    least: int

    def act(self, machine: Machine) -> None:
        """Fill the count, or the choice.

        Raises:
            StageAbort: it is known already that too few rows count.
        """
        if self.named:
            machine.public[CHOSEN] = np.uint64(1) - opened_bits(machine)[-1]
            return _named(machine, self.least)
        each = machine.one - signs(machine)
        machine.shares[_COUNTED] = each.sum(axis=0, keepdims=True, dtype=np.uint64)
        return None


@dataclass(frozen=True, slots=True)
class MaskWeights:
    """The weights of all rows, 0 where they failed, less what the dealer knows; their sum."""

    least: int
    fixed: bool
    named: bool

    def act(self, machine: Machine) -> None:
        """Fill the shares, halves [n + 1, 2, 2].

        Raises:
            StageAbort: too few rows count.
        """
        if not self.named:
            machine.public[COUNT] = machine.public[_COUNTED] & ring_mask(machine.ring)
            counted(machine, self.least)
        n, valid = machine.n, list(machine.valid)
        dots, below = lifted_dots(machine), opened_bits(machine)[-1].astype(object)
        k, t = dots.known[:, None], dots.step[:, None]
        stock = machine.stock.words
        shares = numbers(stock[_KNOWN]).reshape(6, n, 2)
        r, rho, sign, sign_r, sign_rho, _ = shares[:, valid]
        c = (1 - below)[:, None]
        weights = c * (k * wide_one(machine) - r + t * rho)
        weights += (1 - 2 * c) * (k * sign - sign_r + t * sign_rho)
        masked = -shares[5]
        masked[valid] += weights
        if not self.fixed:
            mass = weights.sum(axis=0, keepdims=True) + numbers(stock[_MASS])
            masked = np.concatenate([masked, mass])
        machine.shares[MASKED_TRUST] = halves(masked)


@dataclass(frozen=True, slots=True)
class ProvedTrust:
    """The sum under these weights; to the first server, the sum of the trust."""

    fixed: bool

    def act(self, machine: Machine) -> None:
        """Fill the sum with the own share."""
        _units(machine, self.fixed)
        machine.shares[SUM] = sum_under(machine, machine.public[MASKED_TRUST][: machine.n, 0])
        if not self.fixed:
            open_mass(machine)


def open_mass(machine: Machine) -> None:
    """The sum of the trust, at the first server, whose word hides it: what the total weighs."""
    if machine.first:
        opened = machine.public[MASKED_TRUST][-1:]
        mass = numbers(opened) - blind_of(machine.seed, machine.now, _MASS)
        trust = signed(halves(mass)[:, 0], machine.ring)
        machine.weight = float(trust[0]) * machine.trust_unit or 1.0
        row = math.sqrt(machine.now.plan.d) if machine.now.signs else machine.now.longest
        machine.reach = abs(float(trust[0])) * row


def masked_trust(least: int, fixed: bool, named: bool) -> tuple[Step, ...]:
    """Steps from products that both servers know, less masks, to opened weights less what the
    dealer knows of them; arguments as of `trusted_sum`.
    """
    count: tuple[Step, ...] = () if named else (OpenChecked(_COUNTED),)
    return (
        *(*open_bits(False, 1), CountTrusted(named, least), *count),
        *(MaskWeights(least, fixed, named), OpenChecked(MASKED_TRUST)),
    )


def proved_trust(least: int, fixed: bool, named: bool) -> tuple[Step, ...]:
    """Steps from the checks to FLTrust's sum, as `trusted_sum`."""
    return (*masked_trust(least, fixed, named), ProvedTrust(fixed), OpenToFirst(SUM))
