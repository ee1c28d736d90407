"""Products and norms of fixed rows as integers, where rules multiply them on: from what both
servers know modulo the ring to words of which all 64 bits count.

A value x is P + m, where both servers know P and the dealer m, modulo 2^k; k is less than the ring,
and 40 bits are all that tags prove. With Y = P + shift and R = -m modulo 2^k, and x + shift in [0,
2^k), x = Y - shift - R + 2^k w, where w = (Y < R) comes of a comparison and is opened as w xor rho.
Then x is linear in R and rho, which the dealer knows, and its square in R^2, rho R, rho, R.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from privfl.core import KeepsSecrets
from privfl.crypto.mpc import Authenticated
from privfl.crypto.mpc.authentication import OpenChecked
from privfl.crypto.mpc.wide import Integers
from privfl.crypto.mpc.words import U64
from privfl.hybrid.two_server.fixed_checks import ANNOUNCED, fixed_of, opened_outcomes
from privfl.hybrid.two_server.fixed_stock import (
    Compared,
    Comparisons,
    Item,
    Joint,
    Known,
    Words,
    outcome_of,
    turned,
)
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.parameters import TwoServerParameters

PROVED = 40
"""Bits of a product that tags prove, whatever the ring."""
MASKED_BITS = Authenticated("masked bits")
"""Outcomes of comparisons of each valid row, each xor a dealt bit."""
WRAPS, SIGNS, SIGN_BITS = "wraps", "signs", "sign bits"


def lifted_bits(now: TwoServerParameters) -> int:
    """In how many bits a value is looked at before it is lifted; of signs it is at most d."""
    return now.plan.d.bit_length() + 1 if now.signs else min(now.ring, PROVED) - 1


def residue(words: U64, bits: int) -> U64:
    """The low bits."""
    return words & np.uint64((1 << bits) - 1)


def half(bits: int) -> int:
    """What is added to a product, which may be below zero, so that it is not."""
    return 1 << (bits - 1)


def lifting_items(now: TwoServerParameters, n: int, values: int) -> Mapping[str, Item]:
    """What it takes to lift so many values of each row, and to tell the sign of the product with
    the direction.
    """
    bits = lifted_bits(now)
    return {
        WRAPS: Comparisons(values * n, bits),
        SIGNS: Comparisons(n, bits - 1),
        SIGN_BITS: Words(n),
    }


@dataclass(frozen=True, slots=True, repr=False)
class Lifting(KeepsSecrets):
    """What the dealer knows of values [n] to be lifted: R, and the bits ``rho`` of their wraps."""

    r: U64
    rho: U64

    @classmethod
    def of(cls, now: TwoServerParameters, masks: U64, joint: Joint, name: str) -> Lifting:
        """For values of these masks."""
        r = residue(np.uint64(0) - masks, lifted_bits(now))
        return cls(r, joint.bits(f"{name} wraps", len(r)))


def lifting_known(now: TwoServerParameters, liftings: Sequence[Lifting], bits: U64) -> Known:
    """What the dealer knows of `lifting_items` for these values, products with the direction first;
    their signs are opened xor ``bits`` [n].
    """
    r = np.concatenate([lifting.r for lifting in liftings])
    rho = np.concatenate([lifting.rho for lifting in liftings])
    return {
        WRAPS: Compared(r, rho, np.ones_like(r)),
        SIGNS: outcome_of(liftings[0].r, lifted_bits(now), bits),
        SIGN_BITS: bits,
    }


# ---- the servers


def _public_dots(machine: Machine) -> U64:
    """What both know of products with the direction [n], in the bits that are looked at."""
    return residue(machine.public[ANNOUNCED][-1], lifted_bits(machine.now))


def _public_norms(machine: Machine) -> U64:
    """What both know of squared norms [n], in the same bits."""
    return residue(fixed_of(machine).last[-1], lifted_bits(machine.now))


@dataclass(frozen=True, slots=True)
class MaskedBits:
    """Whether values of the valid rows wrap around: their products, with ``norms`` their norms,
    too; and whether the product less ``least`` is below zero; each xor a dealt bit.
    """

    norms: bool
    least: int

    def act(self, machine: Machine) -> None:
        """Fill the bits [(2 or 3) v], the signs last."""
        now, stock = machine.now, machine.stock
        bits, valid = lifted_bits(now), list(machine.valid)
        dots = _public_dots(machine)
        points = [residue(dots + np.uint64(half(bits)), bits)]
        if self.norms:
            points.append(_public_norms(machine))
        outcomes = stock.compare[WRAPS].at(now, machine.first, np.concatenate(points))
        found = list(outcomes.reshape(len(points), machine.n, -1)[:, valid])
        signed = residue(dots - np.uint64(self.least % (1 << 64)), bits)
        told = stock.compare[SIGNS].at(now, machine.first, signed)
        below = turned(told, signed, bits, machine.one)
        machine.shares[MASKED_BITS] = np.concatenate([*found, below[valid]])


def opened_bits(machine: Machine) -> U64:
    """The opened bits [2 or 3, v], the signs last.

    Raises:
        FailedMac: as `opened_outcomes`.
    """
    return opened_outcomes(machine, MASKED_BITS).reshape(-1, len(machine.valid))


def signs(machine: Machine) -> U64:
    """The own shares [v, WORDS] of whether the product with the direction less ``least`` is below
    zero: what was opened, xor the dealt bit.

    Raises:
        FailedMac: as `opened_outcomes`.
    """
    opened = opened_bits(machine)[-1][:, None]
    bits = machine.stock.words[SIGN_BITS][list(machine.valid)]
    found: U64 = opened * machine.one + (np.uint64(1) - np.uint64(2) * opened) * bits
    return found


@dataclass(frozen=True, slots=True)
class Lifted:
    """Values x = ``known`` - R + ``step`` rho [v], of which the dealer knows R and rho."""

    known: Integers
    step: Integers


def lifted_dots(machine: Machine) -> Lifted:
    """The valid rows' products with the direction.

    Raises:
        FailedMac: as `opened_outcomes`.
    """
    bits = lifted_bits(machine.now)
    return _lifted(machine, _public_dots(machine), half(bits), opened_bits(machine)[0])


def lifted_norms(machine: Machine) -> Lifted:
    """The valid rows' squared norms, where `MaskedBits` has them.

    Raises:
        FailedMac: as `opened_outcomes`.
    """
    return _lifted(machine, _public_norms(machine), 0, opened_bits(machine)[1])


def _lifted(machine: Machine, points: U64, shift: int, opened: U64) -> Lifted:
    """Values of public P [n], of the valid rows, from the opened bits [v] of their wraps."""
    bits, wraps = lifted_bits(machine.now), opened.astype(object)
    shifted = points[list(machine.valid)] + np.uint64(shift)
    y = residue(shifted, bits).astype(object) - shift
    return Lifted(y + wraps * (1 << bits), (1 - 2 * wraps) * (1 << bits))


def wide_one(machine: Machine) -> Integers:
    """The own share [2] of the public number 1 as a wide word."""
    return np.array([int(machine.first), machine.wide_key], dtype=object)


def open_bits(norms: bool, least: int) -> tuple[Step, ...]:
    """The steps to opened bits."""
    return (MaskedBits(norms, least), OpenChecked(MASKED_BITS))
