"""What both servers decide from scores that are open: exactly, in integers, so that they decide
alike and as the plain rules do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from privfl.crypto.abort import StageAbort
from privfl.hybrid.two_server.checks import accept
from privfl.hybrid.two_server.machine import Machine
from privfl.hybrid.two_server.ring_codec import I64, U64, signed


def max_byzantine(machine: Machine, f: int, m: int) -> int:
    """How many Byzantine clients Krum must still count with, after those that failed the checks.

    Raises:
        StageAbort: too few rows for f and m, or more than f failed.
    """
    n, lost = machine.n, machine.n - len(machine.valid)
    if n <= 2 * f + 2 or m > n - f:
        raise StageAbort(
            "select",
            f"Krum with f={f} and m={m} needs n > 2f + 2 and m <= n - f, and {n} rows are there",
        )
    if lost > f:
        raise StageAbort(
            "select",
            f"Krum tolerates {f} Byzantine clients, and {lost} rows failed the norm check",
            who=tuple(machine.excluded),
        )
    return f - lost


@dataclass(frozen=True, slots=True)
class GatherGram:
    """Inner products of the valid rows, to be opened: one with a row of a liar's choice that was
    refused would tell what it likes.
    """

    def act(self, machine: Machine) -> None:
        """Fill "gram"."""
        valid = list(machine.valid)
        machine.shares["gram"] = machine.shares["inner"][np.ix_(valid, valid)]


@dataclass(frozen=True, slots=True)
class OpenKrum:
    """Krum's choice from the open Gram matrix of the valid rows."""

    f: int
    m: int

    def act(self, machine: Machine) -> None:
        """Set the public weights.

        Raises:
            StageAbort: as `max_byzantine` and `possible`.
        """
        left, valid = max_byzantine(machine, self.f, self.m), list(machine.valid)
        inner = signed(machine.public["gram"], machine.now.ring)
        norms = np.diagonal(inner)
        _proved(machine, norms)
        v = len(norms)
        possible(machine, inner.reshape(-1), np.repeat(norms, v), np.tile(norms, v))
        apart = norms[:, None] + norms - 2 * inner
        scores = krum_scores(apart, left)
        accept(machine, [valid[i] for i in np.argsort(scores, kind="stable")[: self.m]])
        machine.disclosed["gram"] = torch.from_numpy(inner / machine.now.scale**2)


def krum_scores(apart: I64, f: int) -> I64:
    """Each row's sum of the n - f - 2 smallest squared distances to others."""
    scores: I64 = np.sort(apart, axis=1)[:, 1 : max(len(apart) - f - 1, 1)].sum(axis=1)
    return scores


@dataclass(frozen=True, slots=True)
class Gather:
    """Products with the direction and squared norms of all rows, to be opened together."""

    dots: bool = True

    def act(self, machine: Machine) -> None:
        """Fill "scores": those of rows that failed stay hidden."""
        valid, shares = list(machine.valid), machine.shares
        parts = (
            [shares["dots"][valid], shares["norms"][valid]]
            if self.dots
            else [shares["norms"][valid]]
        )
        shares["scores"] = np.stack(parts)


def _proved(machine: Machine, norms: I64) -> None:
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


def _opened(machine: Machine) -> tuple[I64, I64]:
    """Products and squared norms; raises as `_proved` and `possible`."""
    scores = signed(machine.public["scores"], machine.now.ring)
    dots, norms = scores[0], scores[-1]
    _proved(machine, norms)
    if len(scores) > 1:
        square = 0 if machine.direction is None else machine.direction.square
        possible(machine, dots, norms, np.full(len(norms), square))
    machine.disclosed["norms"] = torch.from_numpy(np.sqrt(norms) / machine.now.scale)
    return dots, norms


@dataclass(frozen=True, slots=True)
class OpenNorms:
    """Everybody's exact norm is disclosed; nothing is decided by it."""

    def act(self, machine: Machine) -> None:
        """Name them."""
        _opened(machine)


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
        dots, norms = _opened(machine)
        steep = Fraction(self.threshold)
        passing = [
            over(int(dot), int(norm) * square, steep) for dot, norm in zip(dots, norms, strict=True)
        ]
        accept(machine, [i for i, through in zip(machine.valid, passing, strict=True) if through])
        machine.disclosed["cosines"] = torch.tensor(
            [_cosine(int(d), int(n) * square) for d, n in zip(dots, norms, strict=True)]
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


def _cosine(dot: int, square: int) -> float:
    return dot / math.sqrt(square) if square else 0.0


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
        dots, norms = _opened(machine)
        square = 0 if direction is None else direction.square
        trusted = [
            max(0.0, _cosine(int(dot), int(norm) * square)) if 4 * norm >= now.plan.d else 0.0
            for dot, norm in zip(dots, norms, strict=True)
        ]
        fine = now.fine
        weights: U64 = np.zeros(machine.n, dtype=np.uint64)
        for i, trust, norm in zip(machine.valid, trusted, norms.tolist(), strict=True):
            weight = round(trust * now.longest / math.sqrt(norm) * fine) if norm else 0
            weights[i] = (
                weight | 1 if weight else 0
            )  # odd, so that the masks' upper bits hide the carries of their sum
        machine.public["weights"] = weights
        machine.unit = 0.0 if direction is None else direction.length / (now.longest * fine)
        machine.weight = float(machine.n) if self.fixed else sum(trusted) or 1.0
        machine.count = int((weights != 0).sum())
        machine.disclosed["trust"] = torch.tensor(trusted)
