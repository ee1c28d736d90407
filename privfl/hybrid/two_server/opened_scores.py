"""Scores that are opened: products with the direction and squared norms, and what of them cannot
be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc import Shared
from privfl.crypto.mpc.words import I64, signed
from privfl.hybrid.two_server.machine import Machine
from privfl.hybrid.two_server.registers import DOTS, NORMS

SCORES = Shared("scores")
"""Of the valid rows: products with the direction, where there is one, and squared norms."""


@dataclass(frozen=True, slots=True)
class Gather:
    """Products with the direction and squared norms of all rows, to be opened together."""

    dots: bool = True

    def act(self, machine: Machine) -> None:
        """Fill the scores: those of rows that failed stay hidden."""
        valid, shares = list(machine.valid), machine.shares
        parts = [shares[DOTS][valid], shares[NORMS][valid]] if self.dots else [shares[NORMS][valid]]
        shares[SCORES] = np.stack(parts)


def proved(machine: Machine, norms: I64) -> None:
    """Refuse opened squared norms that the checks before cannot have let through.

    Raises:
        StageAbort: there are some; a server changed its share or the dealer what it dealt, and
            nobody can tell who did.
    """
    if (norms < machine.now.shortest**2).any() or (norms > machine.now.longest**2).any():
        raise StageAbort(
            "judge",
            f"an opened norm is not one that was proved: {machine.other} or the dealer lied",
            who=(machine.other, "dealer"),
        )


def possible(machine: Machine, dots: I64, norms: I64, squares: I64) -> None:
    """Refuse opened products that are over what two vectors of these squared norms can have.

    Raises:
        StageAbort: there are some; a server or the dealer lied.
    """
    exact = dots.astype(object)
    if (exact * exact > norms.astype(object) * squares.astype(object)).any():
        raise StageAbort(
            "judge",
            "an opened product is larger than its two vectors' norms allow:"
            f" {machine.other} or the dealer lied",
            who=(machine.other, "dealer"),
        )


def opened(machine: Machine) -> tuple[I64, I64]:
    """Products and squared norms; raises as `proved` and `possible`."""
    scores = signed(machine.public[SCORES], machine.now.ring)
    dots, norms = scores[0], scores[-1]
    proved(machine, norms)
    if len(scores) > 1:
        square = 0 if machine.direction is None else machine.direction.square
        possible(machine, dots, norms, np.full(len(norms), square))
    machine.disclosed["norms"] = torch.from_numpy(np.sqrt(norms) / machine.now.scale)
    return dots, norms


def cosine(dot: int, square: int) -> float:
    """The quotient dot / sqrt(square); 0 where the square is."""
    return dot / math.sqrt(square) if square else 0.0
