"""Deciding on shares: which rows count, and their sum, without scores and, where asked, without
anybody knowing whom it is of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.checks import accept, enough, exactly
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.proved_choice import CommitChoice, ShowChoice
from privfl.hybrid.two_server.ring_codec import U64, pack, ring_mask, signed, unpack
from privfl.hybrid.two_server.rows import Veil, combined, unveiled
from privfl.hybrid.two_server.steps import Multiply, Negative, Open, OpenToFirst, ToNumbers

TWO = np.uint64(2)


@dataclass(frozen=True, slots=True)
class Take:
    """The valid rows' entries of a register [n]."""

    of: str
    into: str

    def act(self, machine: Machine) -> None:
        """Copy them."""
        machine.shares[self.into] = machine.shares[self.of][list(machine.valid)]


# ---- rows that point along the direction


@dataclass(frozen=True, slots=True)
class Along:
    """The margins whose signs say that a row's cosine is over the threshold, from products and,
    unless it is 0, their squares.
    """

    threshold: float

    def act(self, machine: Machine) -> None:
        """Fill "margin": one for each valid row, or two."""
        shares, steep = machine.shares, self.threshold
        dots = shares["along"]
        if steep == 0:
            shares["margin"] = np.uint64(0) - dots
            return
        square = 0 if machine.direction is None else machine.direction.square
        needed = np.uint64(round(steep * steep * square)) * shares["norms"][list(machine.valid)]
        sign = (
            [np.uint64(0) - dots, needed - shares["squared"]]
            if steep > 0
            else [dots, shares["squared"] - needed]
        )
        shares["margin"] = np.concatenate(sign)


@dataclass(frozen=True, slots=True)
class Halves:
    """The two signs of each row as factors of one product: over by angle and by square; below by
    angle and not saved by square.
    """

    threshold: float

    def act(self, machine: Machine) -> None:
        """Fill "by angle" and "by square"."""
        angle, square = np.split(machine.shares["sign"], 2)
        machine.shares["by angle"] = angle
        machine.shares["by square"] = square if self.threshold > 0 else machine.constant(1) - square


@dataclass(frozen=True, slots=True)
class Through:
    """Who passed, from the product of both signs."""

    threshold: float

    def act(self, machine: Machine) -> None:
        """Fill "chosen"."""
        both = machine.shares["both"]
        machine.shares["chosen"] = both if self.threshold > 0 else machine.constant(1) - both


def along(threshold: float) -> tuple[Step, ...]:
    """Steps to shares of 0 or 1 for each valid row: whether its cosine is over the threshold."""
    start: tuple[Step, ...] = (Take("dots", "along"),)
    if threshold == 0:
        return (*start, Along(threshold), Negative("margin", "bit"), ToNumbers("bit", "chosen"))
    squares: tuple[Step, ...] = (
        Multiply("along", "along", "squared"),
        Along(threshold),
        Negative("margin", "bit"),
        ToNumbers("bit", "sign"),
    )
    return (
        *start,
        *squares,
        Halves(threshold),
        Multiply("by angle", "by square", "both", whole=True),
        Through(threshold),
    )


# ---- what becomes of the choice


@dataclass(frozen=True, slots=True)
class Chosen:
    """The choice is open: the chosen rows, exactly ``m`` where that is not 0, count once."""

    m: int = 0

    def act(self, machine: Machine) -> None:
        """Set the public weights.

        Raises:
            StageAbort: as `chosen_rows`, or `exactly`.
        """
        picked = chosen_rows(machine)
        exactly(machine, len(picked), self.m)
        accept(machine, picked)
        machine.disclosed["selected"] = _mask(machine, picked)


def chosen_rows(machine: Machine) -> list[int]:
    """The places whose opened choice is 1.

    Raises:
        StageAbort: a choice is neither 0 nor 1; a server or the dealer lied.
    """
    bits = machine.public["chosen"]
    if (bits > 1).any():
        raise StageAbort(
            "select",
            f"an opened choice is neither 0 nor 1: {machine.other} or the dealer lied",
            who=(machine.other, "dealer"),
        )
    return [i for i, bit in zip(machine.valid, bits.tolist(), strict=True) if bit == 1]


def _mask(machine: Machine, places: list[int]) -> torch.Tensor:
    mask = torch.zeros(machine.n, dtype=torch.bool)
    mask[places] = True
    return mask


@dataclass(frozen=True, slots=True)
class Count:
    """How many rows count, to be opened."""

    def act(self, machine: Machine) -> None:
        """Fill "count"."""
        machine.shares["count"] = machine.shares["chosen"].sum(keepdims=True, dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class Hide:
    """The chosen rows count once, and nobody knows which they are; ``m`` of them where that is not
    0.
    """

    m: int

    def act(self, machine: Machine) -> None:
        """Fill "weight" [n]."""
        machine.shares["weight"] = spread(machine, machine.shares["chosen"])
        if self.m:
            _counts(machine, self.m)


@dataclass(frozen=True, slots=True)
class Counted:
    """So many rows were chosen; fewer than ``least`` are refused."""

    least: int

    def act(self, machine: Machine) -> None:
        """Set what the sum weighs.

        Raises:
            StageAbort: too few rows count.
        """
        _counts(machine, counted(machine, self.least))


def _counts(machine: Machine, count: int) -> None:
    machine.count, machine.disclosed["count"] = count, torch.tensor(count)
    machine.unit, machine.weight = 1 / machine.now.scale, float(count) or 1.0


def counted(machine: Machine, least: int) -> int:
    """How many rows count, as was opened.

    Raises:
        StageAbort: some, and fewer than ``least``; or a number that cannot be.
    """
    count = int(signed(machine.public["count"], machine.now.ring)[0])
    if not 0 <= count <= len(machine.valid):
        raise StageAbort(
            "select",
            f"{count} of {len(machine.valid)} rows are said to count: {machine.other} or the dealer"
            " lied",
            who=(machine.other, "dealer"),
        )
    enough(count, least)
    machine.count = count
    machine.disclosed["count"] = torch.tensor(count)
    return count


def spread(machine: Machine, values: U64) -> U64:
    """Shares of all n rows from those of the valid ones: zero elsewhere."""
    wide: U64 = np.zeros(machine.n, dtype=np.uint64)
    wide[list(machine.valid)] = values
    return wide


@dataclass(frozen=True, slots=True)
class ObliviousTrust:
    """FLTrust's weights of rows of one common length: their products with the direction, where
    positive. ``least`` as elsewhere.
    """

    least: int
    fixed: bool
    named: bool

    def act(self, machine: Machine) -> None:
        """Fill "weight" [n] and "mass", the sum of the trust.

        Raises:
            StageAbort: too few rows count.
        """
        now, shares, direction = machine.now, machine.shares, machine.direction
        if self.named:
            picked, bits = chosen_rows(machine), machine.public["chosen"]
            enough(len(picked), self.least)
            machine.count = len(picked)
            machine.disclosed["selected"] = _mask(machine, picked)
            shares["weight"] = spread(machine, shares["along"] * bits)
        else:
            counted(machine, self.least)
            shares["weight"] = spread(machine, shares["trust"])
        shares["mass"] = shares["weight"].sum(keepdims=True, dtype=np.uint64)
        square = now.code.top**2 + now.plan.d / 12  # of a row of the common length, rounded
        steep = 0.0 if direction is None else math.sqrt(direction.square)
        machine.unit = direction.length / (square * steep) if direction is not None else 0.0
        machine.trust_unit = 1 / (math.sqrt(square) * steep) if steep else 0.0
        machine.weight = float(machine.n) if self.fixed else 0.0


@dataclass(frozen=True, slots=True)
class Mass:
    """The sum of the trust, known to the first server, is what the total weighs."""

    def act(self, machine: Machine) -> None:
        """Set the weight."""
        if machine.first:
            machine.weight = (
                float(signed(machine.public["mass"], machine.now.ring)[0]) * machine.trust_unit
                or 1.0
            )


@dataclass(frozen=True, slots=True)
class ObliviousSum:
    """The rows' sum under weights that the servers share; the one opening E = Y - A0 serves here as
    well.

    With w = w0 + w1, rows Y + A and the dealer's v0, v1 and shares of v1 A0 + v0 A: the first
    server's share is w0 Y + (w1 - v1) A0, the second's w1 (E + A) + (w0 - v0) A, each with its
    share of the dealer's.
    """

    weight: str

    def say(self, machine: Machine) -> bytes:
        """The own share of the weights, masked: all 64 bits, of which the dealt ones hide all."""
        return pack(machine.shares[self.weight] - machine.preprocessing.weights, 64)

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Fill "sum" with the own share, reduced to the ring: its upper bits would tell more."""
        now, own = machine.now, machine.shares[self.weight]
        other = unpack(theirs, 64, machine.n)
        machine.public["masked weights"] = own - machine.preprocessing.weights + other
        total = machine.preprocessing.vector.copy()
        mine = own if machine.first else own + other
        for start, stop, block in machine.rows.blocks(now):
            total[start:stop] += combined(mine, block)
        if machine.first:
            for start, stop, cover in _veil(machine).blocks(now, machine.n):
                total[start:stop] += combined(other, cover)
        else:
            at = 0
            for piece in unveiled(now, memoryview(machine.opened), machine.n, machine.key):
                total[at : at + piece.shape[1]] += combined(own, piece)
                at += piece.shape[1]
        machine.shares["sum"] = total & ring_mask(now.ring)
        return True


def _veil(machine: Machine) -> Veil:
    if machine.veil is None:
        raise Malformed("the first server has no mask of its own")
    return machine.veil


def unnamed_sum(least: int, m: int) -> tuple[Step, ...]:
    """Steps from hidden choices to the first server's sum; that rows were chosen once or not at all
    is proved before anything else opens.

    Krum always chooses ``m``. Where that is 0 how many were chosen becomes known, and is proved: it
    opens after the rows' proof, because the sum of weights that are any numbers tells of them.
    """
    if m:
        proof: tuple[Step, ...] = (CommitChoice(each=True, total=True), ShowChoice())
    else:
        proof = (
            *(CommitChoice(each=True, total=False), ShowChoice()),
            *(Count(), Open("count"), Counted(least)),
            *(CommitChoice(each=False, total=True), ShowChoice()),
        )
    return (Hide(m), ObliviousSum("weight"), *proof, OpenToFirst("sum"))


def trusted_sum(least: int, fixed: bool, named: bool) -> tuple[Step, ...]:
    """Steps from the signs of the products to FLTrust's sum; ``named``: who is trusted becomes
    known, how far does not.
    """
    start: tuple[Step, ...] = (
        (Open("chosen"),)
        if named
        else (Multiply("chosen", "along", "trust"), Count(), Open("count"))
    )
    end: tuple[Step, ...] = () if fixed else (OpenToFirst("mass"), Mass())
    return (
        *start,
        ObliviousTrust(least, fixed, named),
        ObliviousSum("weight"),
        *end,
        OpenToFirst("sum"),
    )
