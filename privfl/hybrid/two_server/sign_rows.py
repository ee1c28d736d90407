"""Rows of signs as both servers know them, bits under dealt bits: with numbers that are shares of
the dealt bits they are compared with a direction, and summed with weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from privfl.crypto.mpc import Shared
from privfl.crypto.mpc.words import U64
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.bits import U32, Bits, opened_bits
from privfl.hybrid.two_server.machine import Machine
from privfl.hybrid.two_server.parameters import TwoServerParameters

RING = 32
DISTANCE = Shared("distance")
"""Each row's Hamming distance to the direction's signs [n]."""


def packed_direction(machine: Machine) -> Bits:
    """The direction's signs, packed; without a direction all are above zero."""
    d = machine.now.plan.d
    signs = (
        np.zeros(d, dtype=np.uint8)
        if machine.direction is None
        else machine.direction.values.astype(np.uint8)
    )
    return np.packbits(signs, bitorder="little")


def flipped_rows(machine: Machine, scaled: bool = False) -> Iterator[tuple[Bits, U32]]:
    """Each row under its dealt bits, packed, and the own numbers of these bits [d]; ``scaled``:
    times the dealt weight.

    Raises:
        Malformed: this round has no signs.
    """
    if machine.flips is None or machine.flipped is None:
        raise Malformed("there are no signs in this round")
    return zip(machine.flipped, machine.flips.rows(machine.now, machine.n, scaled), strict=True)


def step_of(now: TwoServerParameters) -> float:
    """What a sign stands for: rows of signs have the plan's length l2."""
    return float(now.plan.l2 / np.sqrt(now.plan.d))


def signed_sum(machine: Machine, own: U64, public: U64, scaled: bool) -> U64:
    """The own share of the sum of w_i (1 - 2 x_ij) over rows i.

    With ``own`` the own share of w, and x = v + (1 - 2 v) r: sum of own_i (1 - 2 v_ij), minus twice
    that of public_i (1 - 2 v_ij) R_ij and, where weights are hidden, of (1 - 2 v_ij) times the
    dealt weight's part of r_ij.
    """
    d = machine.now.plan.d
    total: U32 = np.zeros(d, dtype=np.uint32)
    extra: Iterator[U32 | None] = (
        (numbers for _, numbers in flipped_rows(machine, scaled=True))
        if scaled
        else iter([None] * machine.n)
    )
    for i, ((flipped, numbers), more) in enumerate(zip(flipped_rows(machine), extra, strict=True)):
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
