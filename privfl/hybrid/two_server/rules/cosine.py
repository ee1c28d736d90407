"""The cosine filter: rows whose cosine with a reference is over a threshold, compared as exact
squares in the open or on shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import torch

from privfl.core import RoundPlan
from privfl.crypto.mpc import Demand, Shared
from privfl.crypto.mpc.operations import Multiply, Negative, Open, ToNumbers
from privfl.hybrid.two_server.checks import CHECKS, checking
from privfl.hybrid.two_server.fixed_checks import FIXED_CHECKS, open_scores
from privfl.hybrid.two_server.fixed_choice import OPEN_CHOICE, hidden_choice
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
        enforced = self.reveal == "scores" or self.threshold == 0
        return Traits(
            directed=True,
            late=self.late,
            hidden=hidden,
            proved=hidden,
            capped=True,
            enforced=enforced,
        )

    @property
    def leaks(self) -> str:
        """Norms and cosines, or the choice."""
        if self.reveal == "scores":
            return "every update's norm and its cosine with the reference"
        return "how many clients count" if self.reveal == "aggregate" else "which clients count"

    def needs(self, plan: RoundPlan) -> Needs:
        """Products with the direction, and their squares where these are compared on shares."""
        return Needs(dots=True, squares=self.reveal != "scores" and self.threshold != 0)

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
        if now.malicious and self.reveal == "aggregate":
            return (*FIXED_CHECKS, *hidden_choice(least))
        if now.malicious and self.reveal == "selection":
            return (*FIXED_CHECKS, *OPEN_CHOICE, *close)
        if now.malicious:
            return (*FIXED_CHECKS, *open_scores(dots=True), OpenCosine(self.threshold), *close)
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
