"""Rows of signs: bits shared by exclusive or, turned into numbers all at once, compared by Hamming
distance, summed with weights.

A bit shared as y (first server) and a (second) and a dealt random bit r, shared by exclusive or and
as numbers R0 + R1 modulo 2^32: the servers open v = y ^ a ^ r, which is uniform, and hold the bit
as v + (1 - 2 v)(R0 + R1). Bits need no range proof: whatever a client sends is some row of signs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.bits import U32, Bits, opened_bits, size
from privfl.hybrid.two_server.checks import enough
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.oblivious_selection import Count, Mass, counted, spread
from privfl.hybrid.two_server.parameters import TwoServerParameters
from privfl.hybrid.two_server.ring_codec import U64, pack, signed, unpack
from privfl.hybrid.two_server.steps import Multiply, Negative, Open, OpenToFirst, ToNumbers

RING = 32


@dataclass(frozen=True, slots=True)
class OpenFlips:
    """Both servers learn v, every bit of every row under its dealt bit."""

    def say(self, machine: Machine) -> bytes:
        """The own share of v."""
        flips, rows = machine.flips, machine.bits
        if flips is None or rows is None:
            raise Malformed("there are no signs in this round")
        pairs = zip(rows.packed(machine.now), flips.bits(machine.now, machine.n), strict=True)
        return b"".join((row ^ flip).tobytes() for row, flip in pairs)

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Combine it with the other's."""
        mine = np.frombuffer(machine.mine or b"", dtype=np.uint8)
        if len(theirs) != len(mine):
            raise Malformed("a wrong number of bits")
        machine.flipped = (mine ^ np.frombuffer(theirs, dtype=np.uint8)).reshape(
            machine.n, size(machine.now.plan.d)
        )
        return True


def _rows(machine: Machine, scaled: bool = False) -> Iterator[tuple[Bits, U32]]:
    if machine.flips is None or machine.flipped is None:
        raise Malformed("there are no signs in this round")
    return zip(machine.flipped, machine.flips.rows(machine.now, machine.n, scaled), strict=True)


@dataclass(frozen=True, slots=True)
class Hamming:
    """Shares of each row's Hamming distance to the direction's signs g: g ^ x is g ^ v where the
    dealt bit is 0, else its opposite.
    """

    def act(self, machine: Machine) -> None:
        """Fill "distance" [n]; a whole row counts, packed bits by population count."""
        machine.valid = tuple(range(machine.n))
        if "distance" in machine.memory:
            machine.shares["distance"] = machine.memory["distance"]
            return
        d = machine.now.plan.d
        signs = (
            np.zeros(d, dtype=np.uint8)
            if machine.direction is None
            else machine.direction.values.astype(np.uint8)
        )
        packed = np.packbits(signs, bitorder="little")
        distance: U64 = np.zeros(machine.n, dtype=np.uint64)
        for i, (flipped, numbers) in enumerate(_rows(machine)):
            away = packed ^ flipped
            bits = opened_bits(away, d)
            over = numbers & (np.uint32(0) - bits.astype(np.uint32))  # all ones where the bit is 1
            flips = int(numbers.sum(dtype=np.uint64)) - 2 * int(over.sum(dtype=np.uint64))
            known = (
                int(np.bitwise_count(np.packbits(bits, bitorder="little")).sum(dtype=np.int64))
                if machine.first
                else 0
            )
            distance[i] = (flips + known) % (1 << 64)
        machine.shares["distance"] = machine.memory["distance"] = distance


@dataclass(frozen=True, slots=True)
class OpenWeights:
    """max(0, tau - distance), from open distances."""

    tau: int
    least: int

    def act(self, machine: Machine) -> None:
        """Set the public weights.

        Raises:
            StageAbort: too few rows count, or a distance that cannot be.
        """
        distance = signed(machine.public["distance"], RING)
        if (distance < 0).any() or (distance > machine.now.plan.d).any():
            raise StageAbort(
                "judge",
                f"an opened distance is no number of signs: {machine.other} or the dealer lied",
                who=(machine.other, "dealer"),
            )
        weights = np.maximum(self.tau - distance, 0)
        machine.public["weights"] = weights.astype(np.uint64)
        machine.count, machine.weight = int((weights > 0).sum()), float(weights.sum()) or 1.0
        enough(machine.count, self.least)
        machine.unit = step_of(machine.now)
        machine.disclosed |= {
            "distances": torch.from_numpy(distance),
            "weights": torch.from_numpy(weights),
        }


def step_of(now: TwoServerParameters) -> float:
    """What a sign stands for: rows of signs have the plan's length l2."""
    return float(now.plan.l2 / np.sqrt(now.plan.d))


def _signed_sum(machine: Machine, own: U64, public: U64, scaled: bool) -> U64:
    """The own share of the sum of w_i (1 - 2 x_ij) over rows i.

    With ``own`` the own share of w, and x = v + (1 - 2 v) r: sum of own_i (1 - 2 v_ij), minus twice
    that of public_i (1 - 2 v_ij) R_ij and, where weights are hidden, of (1 - 2 v_ij) times the
    dealt weight's part of r_ij.
    """
    d = machine.now.plan.d
    total: U32 = np.zeros(d, dtype=np.uint32)
    extra: Iterator[U32 | None] = (
        (numbers for _, numbers in _rows(machine, scaled=True))
        if scaled
        else iter([None] * machine.n)
    )
    for i, ((flipped, numbers), more) in enumerate(zip(_rows(machine), extra, strict=True)):
        part = numbers * np.uint32(public[i] & np.uint64(0xFFFFFFFF))
        if more is not None:
            part += more
        np.left_shift(part, np.uint32(1), out=part)
        np.subtract(
            np.uint32(own[i] & np.uint64(0xFFFFFFFF)), part, out=part
        )  # times 1 - 2 v: turned over where v is 1
        turn = (np.uint32(0) - opened_bits(flipped, d).astype(np.uint32)).astype(np.uint32)
        np.bitwise_xor(part, turn, out=part)
        np.subtract(part, turn, out=part)
        total += part
    return total.astype(np.uint64)


@dataclass(frozen=True, slots=True)
class SignSum:
    """The rows' signs under weights that both servers know."""

    def act(self, machine: Machine) -> None:
        """Fill "sum" with the own share."""
        weights = machine.public["weights"]
        own = weights if machine.first else np.zeros_like(weights)
        machine.shares["sum"] = _signed_sum(machine, own, weights, scaled=False)


@dataclass(frozen=True, slots=True)
class Slack:
    """tau - distance, and its negative, whose sign says which rows count."""

    tau: int

    def act(self, machine: Machine) -> None:
        """Fill "along" and "margin"."""
        machine.shares["along"] = machine.constant(self.tau) - machine.shares["distance"]
        machine.shares["margin"] = np.uint64(0) - machine.shares["along"]


@dataclass(frozen=True, slots=True)
class HiddenWeights:
    """The weights stay shared; how many are above zero is known, and their sum to the first
    server.
    """

    least: int

    def act(self, machine: Machine) -> None:
        """Fill "weight" and "mass".

        Raises:
            StageAbort: too few rows count.
        """
        counted(machine, self.least)
        machine.shares["weight"] = spread(machine, machine.shares["trust"])
        machine.shares["mass"] = machine.shares["weight"].sum(keepdims=True, dtype=np.uint64)
        machine.unit, machine.trust_unit = step_of(machine.now), 1.0


@dataclass(frozen=True, slots=True)
class HiddenSignSum:
    """The rows' signs under shared weights w: w minus the dealt weights is opened, and the dealer
    gave their products with its bits.
    """

    def say(self, machine: Machine) -> bytes:
        """The own share of the masked weights."""
        return pack(machine.shares["weight"] - machine.preprocessing.weights, RING)

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Fill "sum" with the own share."""
        own = machine.shares["weight"]
        public = own - machine.preprocessing.weights + unpack(theirs, RING, machine.n)
        machine.shares["sum"] = _signed_sum(machine, own, public, scaled=True)
        return True


def sign_program(reveal: str, tau: int, least: int) -> tuple[Step, ...]:
    """The servers' steps from masked signs to the first server's sum."""
    start: tuple[Step, ...] = (OpenFlips(), Hamming())
    if reveal == "scores":
        return (*start, Open("distance"), OpenWeights(tau, least), SignSum(), OpenToFirst("sum"))
    weigh: tuple[Step, ...] = (
        Slack(tau),
        Negative("margin", "bit"),
        ToNumbers("bit", "chosen"),
        Multiply("chosen", "along", "trust"),
    )
    return (
        *start,
        *weigh,
        Count(),
        Open("count"),
        HiddenWeights(least),
        HiddenSignSum(),
        OpenToFirst("mass"),
        Mass(),
        OpenToFirst("sum"),
    )
