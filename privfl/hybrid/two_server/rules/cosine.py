"""The cosine filter: rows whose cosine with a reference is over a threshold, compared as exact
squares in the open or on shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import torch

from privfl.core import RoundPlan
from privfl.crypto.mpc import Demand, Shared, Wide
from privfl.crypto.mpc.authentication import OpenChecked
from privfl.crypto.mpc.operations import Multiply, Negative, Open, ToNumbers
from privfl.crypto.mpc.wide import halves, numbers
from privfl.crypto.mpc.words import U64
from privfl.hybrid.two_server.checks import CHECKS, checking
from privfl.hybrid.two_server.fixed_checks import FIXED_CHECKS, open_scores
from privfl.hybrid.two_server.fixed_choice import CHOICE, Choose, hidden_choice, open_choice
from privfl.hybrid.two_server.fixed_stock import (
    Comparisons,
    Item,
    Joint,
    Known,
    Masks,
    Nothing,
    RuleStock,
    WideWords,
    both_outcomes,
    outcome_of,
    turned,
)
from privfl.hybrid.two_server.lifting import (
    SIGN_BITS,
    Lifting,
    lifted_dots,
    lifted_norms,
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
    Chosen,
    TakeAlong,
    hidden_sum,
    unnamed_sum,
)
from privfl.hybrid.two_server.opened_scores import SCORES, Gather, cosine, opened
from privfl.hybrid.two_server.parameters import Needs, TwoServerParameters
from privfl.hybrid.two_server.public_sum import accept
from privfl.hybrid.two_server.registers import ALONG, BIT, CHOSEN, MARGIN, NORMS
from privfl.hybrid.two_server.rules.rule import Reveal, Traits

_SQUARED = Shared("squared")
_SIGN = Shared("sign")
_BY_ANGLE = Shared("by angle")
_BY_SQUARE = Shared("by square")
_BOTH = Shared("both")


@dataclass(frozen=True, slots=True)
class CosineOnShares:
    """The cosine filter (a `SharedRule`); ``late``: its reference is not known in a session's first
    round, in which nobody is filtered.
    """

    kind: ClassVar[str] = "cosine_filter"

    reveal: Reveal
    threshold: float
    late: bool = False

    @property
    def traits(self) -> Traits:
        """Rows are compared with a direction; sums are of whole rows."""
        hidden = self.reveal == "aggregate"
        return Traits(
            directed=True,
            late=self.late,
            hidden=hidden,
            proved=hidden,
            capped=True,
        )

    @property
    def stock(self) -> RuleStock:
        """Where a threshold is compared on shares, what lifts products and norms and compares
        squares.
        """
        return Squares() if self._squared else Nothing()

    @property
    def _squared(self) -> bool:
        return self.reveal != "scores" and self.threshold != 0

    @property
    def leaks(self) -> str:
        """Norms and cosines, or the choice."""
        if self.reveal == "scores":
            return "every update's norm and its cosine with the reference"
        return "how many clients count" if self.reveal == "aggregate" else "which clients count"

    def needs(self, plan: RoundPlan) -> Needs:
        """Products with the direction, and their squares where these are compared on shares."""
        return Needs(dots=True, squares=self._squared)

    def preprocessing(self, now: TwoServerParameters, n: int) -> Demand:
        """The checks, and on shares two comparisons and two products a row."""
        if self.reveal == "scores":
            return checking(now, n)
        chosen = Demand(signs=2 * n, bits=2 * n, triples=2 * n)
        total = hidden_sum(now, n, proved=True) if self.traits.hidden else Demand()
        return checking(now, n) + chosen + total

    def program(
        self, now: TwoServerParameters, least: int, close: tuple[Step, ...]
    ) -> tuple[Step, ...]:
        """From open scores, or on shares with the choice opened or not."""
        if now.malicious and self.reveal == "scores":
            return (*FIXED_CHECKS, *open_scores(dots=True), OpenCosine(self.threshold), *close)
        if now.malicious:
            choose = proved_angle(self.threshold) if self._squared else (Choose(),)
            end = hidden_choice(least) if self.traits.hidden else (*open_choice(), *close)
            return (*FIXED_CHECKS, *choose, *end)
        if self.reveal == "scores":
            return (*CHECKS, Gather(), Open(SCORES), OpenCosine(self.threshold), *close)
        choice = (*CHECKS, *along(self.threshold))
        if self.reveal == "selection":
            return (*choice, Open(CHOSEN), Chosen(), *close)
        return (*choice, *unnamed_sum(least, 0))


# ---- from open scores


@dataclass(frozen=True, slots=True)
class OpenCosine:
    """Rows whose cosine with the direction is over the threshold, compared as exact squares."""

    threshold: float

    def act(self, machine: Machine) -> None:
        """Set the public weights; without a direction all cosines are 0.

        Raises:
            StageAbort: opened scores that cannot be.
        """
        square = machine.direction.square if machine.direction is not None else 0
        dots, norms = opened(machine)
        steep = Fraction(self.threshold)
        passing = [
            over(int(dot), int(norm) * square, steep) for dot, norm in zip(dots, norms, strict=True)
        ]
        accept(machine, [i for i, through in zip(machine.valid, passing, strict=True) if through])
        machine.disclosed["cosines"] = torch.tensor(
            [cosine(int(d), int(n) * square) for d, n in zip(dots, norms, strict=True)]
        )


def over(dot: int, square: int, threshold: Fraction) -> bool:
    """Whether dot / sqrt(square) > threshold; the quotient is 0 where the square is.

    >>> over(3, 9, Fraction(1)), over(3, 8, Fraction(1)), over(0, 0, Fraction(-1, 2))
    (False, True, True)
    """
    if square == 0:
        return threshold < 0
    beyond = dot * dot - threshold * threshold * square
    return (dot > 0 and beyond > 0) if threshold >= 0 else (dot >= 0 or beyond < 0)


# ---- on shares


@dataclass(frozen=True, slots=True)
class Along:
    """The margins whose signs say that a row's cosine is over the threshold, from products and
    their squares; it is not 0.
    """

    threshold: float

    def act(self, machine: Machine) -> None:
        """Fill the margins, two for each valid row."""
        shares, steep = machine.shares, self.threshold
        dots = shares[ALONG]
        square = 0 if machine.direction is None else machine.direction.square
        needed = np.uint64(round(steep * steep * square)) * shares[NORMS][list(machine.valid)]
        sign = (
            [np.uint64(0) - dots, needed - shares[_SQUARED]]
            if steep > 0
            else [dots, shares[_SQUARED] - needed]
        )
        shares[MARGIN] = np.concatenate(sign)


@dataclass(frozen=True, slots=True)
class Halves:
    """The two signs of each row as factors of one product: over by angle and by square; below by
    angle and not saved by square.
    """

    threshold: float

    def act(self, machine: Machine) -> None:
        """Fill both."""
        angle, square = np.split(machine.shares[_SIGN], 2)
        machine.shares[_BY_ANGLE] = angle
        machine.shares[_BY_SQUARE] = square if self.threshold > 0 else machine.constant(1) - square


@dataclass(frozen=True, slots=True)
class Through:
    """Who passed, from the product of both signs."""

    threshold: float

    def act(self, machine: Machine) -> None:
        """Fill the choice."""
        both = machine.shares[_BOTH]
        machine.shares[CHOSEN] = both if self.threshold > 0 else machine.constant(1) - both


def along(threshold: float) -> tuple[Step, ...]:
    """Steps to shares of 0 or 1 for each valid row: whether its cosine is over the threshold."""
    if threshold == 0:
        return ABOVE_ZERO
    return (
        TakeAlong(),
        Multiply(ALONG, ALONG, _SQUARED),
        Along(threshold),
        Negative(MARGIN, BIT),
        ToNumbers(BIT, _SIGN),
        Halves(threshold),
        Multiply(_BY_ANGLE, _BY_SQUARE, _BOTH, whole=True),
        Through(threshold),
    )


# ---- from squares that are compared with proofs

_LATE = "squares"
_KNOWN = "products and norms"
_BLIND = Wide("blinded margin")
"""Each valid row's margin of squares, under a word that the dealer knows [v]."""
_BITS = 64


@dataclass(frozen=True, slots=True)
class Squares:
    """What it takes to compare dot^2 with T norm, T = round(threshold^2 square), in 64 bits, and to
    join that with the product's sign (a `RuleStock`).
    """

    @property
    def most(self) -> int:
        """Any number."""
        return 0

    def items(self, now: TwoServerParameters, n: int) -> Mapping[str, Item]:
        """Two lifted values a row; the words that their margin is linear in, and its blind; its
        comparison, once more times the sign's bit.
        """
        return {
            **lifting_items(now, n, 2),
            _KNOWN: WideWords(7 * n),
            _LATE: Comparisons(2 * n, _BITS - 1),
        }

    def known(self, now: TwoServerParameters, n: int, masks: Masks, joint: Joint) -> Known:
        """What the dealer knows of each."""
        dots = Lifting.of(now, masks.dots, joint, "dots")
        norms = Lifting.of(now, masks.norms, joint, "norms")
        bits, blind = joint.bits("signs", n), joint.integers("blinds", n)
        r, rho = dots.r.astype(object), dots.rho.astype(object)
        of_norms = (norms.r.astype(object), norms.rho.astype(object))
        low = halves(blind)[:, 0]
        late = [outcome_of(low, _BITS, scale=scale) for scale in (np.ones_like(bits), bits)]
        return {
            **lifting_known(now, [dots, norms], bits),
            _KNOWN: np.concatenate([r, r * r, rho, rho * r, *of_norms, blind]),
            _LATE: both_outcomes(*late),
        }


@dataclass(frozen=True, slots=True)
class BlindMargin:
    """T norm - dot^2 of the valid rows, or its negative where the threshold is under 0, each under
    a word that the dealer knows.
    """

    threshold: float

    def act(self, machine: Machine) -> None:
        """Fill the shares, halves [v, 2, 2]."""
        steep, valid = self.threshold, list(machine.valid)
        square = 0 if machine.direction is None else machine.direction.square
        needed = round(steep * steep * square)
        x, norm = lifted_dots(machine), lifted_norms(machine)
        stock = numbers(machine.stock.words[_KNOWN])
        shares = stock.reshape(7, machine.n, 2)[:, valid]
        r, r_square, rho, rho_r, of_norm, wraps_of_norm, blind = shares
        k, s = x.known[:, None], x.step[:, None]
        own = wide_one(machine)
        dot_square = k * k * own - 2 * k * r + r_square
        dot_square += (2 * k * s + s * s) * rho - 2 * s * rho_r
        times = norm.known[:, None] * own - of_norm + norm.step[:, None] * wraps_of_norm
        margin = needed * times - dot_square
        machine.shares[_BLIND] = halves((margin if steep > 0 else -margin) + blind)


@dataclass(frozen=True, slots=True)
class JoinSigns:
    """Who passes, from the signs of the product and of the margin."""

    threshold: float

    def act(self, machine: Machine) -> None:
        """Fill the choice [v, WORDS]."""
        now, valid = machine.now, list(machine.valid)
        stock, one = machine.stock, machine.one
        points: U64 = np.zeros(machine.n, dtype=np.uint64)
        points[valid] = machine.public[_BLIND][:, 0]
        told = stock.compare[_LATE].at(now, machine.first, np.tile(points, 2))
        bits = stock.words[SIGN_BITS]
        below = turned(told[: machine.n], points, _BITS, one)[valid]
        with_bit = turned(told[machine.n :], points, _BITS, bits)[valid]
        opened = opened_bits(machine)[-1][:, None]
        both = opened * below + (np.uint64(1) - np.uint64(2) * opened) * with_bit
        if self.threshold > 0:  # the bit says: not above zero
            machine.shares[CHOICE] = below - both
        else:
            machine.shares[CHOICE] = one - signs(machine) + both


def proved_angle(threshold: float) -> tuple[Step, ...]:
    """Steps to the authenticated choice of each valid row: whether its cosine is over the
    threshold.
    """
    least = 1 if threshold > 0 else 0
    margin: tuple[Step, ...] = (BlindMargin(threshold), OpenChecked(_BLIND), JoinSigns(threshold))
    return (*open_bits(True, least), *margin)
