"""What becomes of a choice on shares: the sum of the chosen rows, without scores and, where asked,
without anybody knowing whom it is of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc import Demand, Shared
from privfl.crypto.mpc.operations import Negative, Open, OpenToFirst, ToNumbers
from privfl.crypto.mpc.words import U64, pack, ring_mask, signed, unpack
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.parameters import TwoServerParameters
from privfl.hybrid.two_server.proved_choice import (
    MASKED_WEIGHTS,
    CommitChoice,
    ShowChoice,
    keys_for,
)
from privfl.hybrid.two_server.public_sum import accept, enough, exactly
from privfl.hybrid.two_server.registers import (
    ALONG,
    BIT,
    CHOSEN,
    COUNT,
    DOTS,
    MARGIN,
    MASS,
    SUM,
    WEIGHT,
)
from privfl.hybrid.two_server.row_letters import unveiled
from privfl.hybrid.two_server.rows import Covers, combined

TRUST = Shared("trust")
"""What each valid row is trusted, shared."""


def hidden_sum(now: TwoServerParameters, n: int, *, proved: bool) -> Demand:
    """What the sum of n rows under hidden weights takes of the dealer; ``proved``: their proof,
    too.
    """
    return Demand(weights=n, vector=now.plan.d, keys=keys_for(now.ring) if proved else 0)


@dataclass(frozen=True, slots=True)
class TakeAlong:
    """The valid rows' products with the direction."""

    def act(self, machine: Machine) -> None:
        """Copy them."""
        machine.shares[ALONG] = machine.shares[DOTS][list(machine.valid)]


@dataclass(frozen=True, slots=True)
class Opposite:
    """Margins below zero where a product with the direction is over zero."""

    def act(self, machine: Machine) -> None:
        """Fill the margins."""
        machine.shares[MARGIN] = np.uint64(0) - machine.shares[ALONG]


ABOVE_ZERO: tuple[Step, ...] = (
    TakeAlong(),
    Opposite(),
    Negative(MARGIN, BIT),
    ToNumbers(BIT, CHOSEN),
)
"""Steps to shares of 0 or 1 for each valid row: whether it points along the direction."""


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
        machine.disclosed["selected"] = mask_of(machine, picked)


def chosen_rows(machine: Machine) -> list[int]:
    """The places whose opened choice is 1.

    Raises:
        StageAbort: a choice is neither 0 nor 1; a server or the dealer lied.
    """
    bits = machine.public[CHOSEN]
    if (bits > 1).any():
        raise StageAbort(
            "select",
            f"an opened choice is neither 0 nor 1: {machine.other} or the dealer lied",
            who=(machine.other, "dealer"),
        )
    return [i for i, bit in zip(machine.valid, bits.tolist(), strict=True) if bit == 1]


def mask_of(machine: Machine, places: list[int]) -> torch.Tensor:
    """Which of the rows that came these are."""
    mask = torch.zeros(machine.n, dtype=torch.bool)
    mask[places] = True
    return mask


@dataclass(frozen=True, slots=True)
class Count:
    """How many rows count, to be opened."""

    def act(self, machine: Machine) -> None:
        """Fill the count."""
        machine.shares[COUNT] = machine.shares[CHOSEN].sum(keepdims=True, dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class Hide:
    """The chosen rows count once, and nobody knows which they are; ``m`` of them where that is not
    0.
    """

    m: int

    def act(self, machine: Machine) -> None:
        """Fill the weights [n]."""
        machine.shares[WEIGHT] = spread(machine, machine.shares[CHOSEN])
        if self.m:
            _counts(machine, self.m)


@dataclass(frozen=True, slots=True)
class Counted:
    """So many rows were chosen; fewer than ``least`` are refused, and another number than ``m``
    where that is not 0.
    """

    least: int
    m: int = 0

    def act(self, machine: Machine) -> None:
        """Set what the sum weighs.

        Raises:
            StageAbort: too few rows count, or as `exactly`.
        """
        count = counted(machine, self.least)
        exactly(machine, count, self.m)
        _counts(machine, count)


def _counts(machine: Machine, count: int) -> None:
    machine.count, machine.disclosed["count"] = count, torch.tensor(count)
    machine.unit, machine.weight = 1 / machine.now.scale, float(count) or 1.0
    machine.reach = float(count * machine.now.longest)


def counted(machine: Machine, least: int) -> int:
    """How many rows count, as was opened.

    Raises:
        StageAbort: some, and fewer than ``least``; or a number that cannot be.
    """
    count = int(signed(machine.public[COUNT], machine.now.ring)[0])
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
class Mass:
    """The sum of the trust, known to the first server, is what the total weighs."""

    def act(self, machine: Machine) -> None:
        """Set the weight."""
        if machine.first:
            machine.weight = (
                float(signed(machine.public[MASS], machine.now.ring)[0]) * machine.trust_unit or 1.0
            )


@dataclass(frozen=True, slots=True)
class ObliviousSum:
    """The rows' sum under weights that the servers share; the one opening E = Y - A0 serves here as
    well.

    With w = w0 + w1, rows Y + A and the dealer's v0, v1 and shares of v1 A0 + v0 A: the first
    server's share is w0 Y + (w1 - v1) A0, the second's w1 (E + A) + (w0 - v0) A, each with its
    share of the dealer's.
    """

    weight: Shared

    def say(self, machine: Machine) -> bytes:
        """The own share of the weights, masked: all 64 bits, of which the dealt ones hide all."""
        return pack(machine.shares[self.weight] - machine.preprocessing.weights, 64)

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Fill the sum with the own share, reduced to the ring: its upper bits would tell more."""
        now, own = machine.now, machine.shares[self.weight]
        other = unpack(theirs, 64, machine.n)
        machine.public[MASKED_WEIGHTS] = own - machine.preprocessing.weights + other
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
        machine.shares[SUM] = total & ring_mask(now.ring)
        return True


def _veil(machine: Machine) -> Covers:
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
            *(Count(), Open(COUNT), Counted(least)),
            *(CommitChoice(each=False, total=True), ShowChoice()),
        )
    return (Hide(m), ObliviousSum(WEIGHT), *proof, OpenToFirst(SUM))
