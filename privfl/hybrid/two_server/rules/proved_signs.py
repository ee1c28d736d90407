"""FLTrust on rows of signs against a server that lies: distances that are authenticated, weights
that both servers know or that are lifted with proofs.

Row x = e ^ a: both servers know e, and the dealer a, of which each has authenticated numbers
(`sign_dealing`). The distance to the direction's signs g is linear in a. It is opened with proofs,
under a word that the dealer knows: where scores are open under the bits above the ring alone. Else
what the threshold leaves of it is public less a mask, as a product with a direction is elsewhere,
and becomes a weight in the same way (`lifting`, `fltrust`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from privfl.crypto.mpc import Authenticated
from privfl.crypto.mpc.authentication import FailedMac, OpenChecked
from privfl.crypto.mpc.operations import OpenToFirst
from privfl.crypto.mpc.words import U64, ring_mask
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.bits import opened_bits
from privfl.hybrid.two_server.fixed_checks import ANNOUNCED
from privfl.hybrid.two_server.fixed_stock import Item, Joint, Known, Masks, Words
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.parameters import TwoServerParameters
from privfl.hybrid.two_server.registers import SUM
from privfl.hybrid.two_server.rules.fltrust import MASKED_TRUST, Trusts, masked_trust, open_mass
from privfl.hybrid.two_server.sign_rows import (
    DISTANCE,
    RING,
    flipped_rows,
    packed_direction,
    signed_sum,
    step_of,
)

MASKED_DISTANCES = Authenticated("masked distances")
"""Each row's Hamming distance to the direction's signs, less what the dealer knows [n]."""
DISTANCE_MASKS = "masks of distances"
_KEYS = 1
"""How many keys authenticate a distance."""


@dataclass(frozen=True, slots=True)
class SignDistances:
    """What it takes to open distances (a `RuleStock`); ``hidden``: under words that stay unknown,
    and to make weights of them.
    """

    hidden: bool

    @property
    def most(self) -> int:
        """Any number."""
        return 0

    def items(self, now: TwoServerParameters, n: int) -> Mapping[str, Item]:
        """A mask a row, and what hidden trust takes."""
        masks: dict[str, Item] = {DISTANCE_MASKS: Words(n, _KEYS)}
        return {**masks, **(Trusts(named=False).items(now, n) if self.hidden else {})}

    def known(self, now: TwoServerParameters, n: int, masks: Masks, joint: Joint) -> Known:
        """What the dealer knows of each; open distances are masked above the ring alone."""
        if not self.hidden:
            return {DISTANCE_MASKS: joint.words("above distances", n) << np.uint64(RING)}
        trusts = Trusts(named=False).known(now, n, masks, joint)
        return {DISTANCE_MASKS: np.uint64(0) - masks.dots, **trusts}


@dataclass(frozen=True, slots=True)
class MaskDistances:
    """Authenticated shares of every row's distance less its mask: g ^ x is g ^ e where the hidden
    bit is 0, else its opposite.
    """

    def act(self, machine: Machine) -> None:
        """Fill them [n]."""
        machine.valid = tuple(range(machine.n))
        if DISTANCE not in machine.memory:
            machine.memory[DISTANCE] = self._distances(machine)
        masks = machine.stock.words[DISTANCE_MASKS]
        machine.shares[MASKED_DISTANCES] = machine.memory[DISTANCE] - masks

    def _distances(self, machine: Machine) -> U64:
        d, packed, n = machine.now.plan.d, packed_direction(machine), machine.n
        if machine.flips is None:
            raise Malformed("there are no signs in this round")
        found: U64 = np.zeros((n, 1 + _KEYS), dtype=np.uint64)
        macs = machine.flips.authenticated(machine.now, n)
        for i, ((row, numbers), mac) in enumerate(zip(flipped_rows(machine), macs, strict=True)):
            away = opened_bits(packed ^ row, d).astype(np.uint64)
            sign = np.uint64(1) - np.uint64(2) * away
            found[i] = away.sum() * machine.one[: 1 + _KEYS]
            found[i] += np.array([sign @ numbers.astype(np.uint64), sign @ mac])
        return found


@dataclass(frozen=True, slots=True)
class ReadDistances:
    """The distances, from what was opened."""

    def act(self, machine: Machine) -> None:
        """Hand them to the step that weighs by them.

        Raises:
            FailedMac: one that cannot be.
        """
        distances = machine.public[MASKED_DISTANCES] & ring_mask(RING)
        if (distances > machine.now.plan.d).any():
            raise FailedMac(
                "judge",
                f"an opened distance is no number of signs: {machine.other} or the dealer lied",
                who=(machine.other, "dealer"),
            )
        machine.public[DISTANCE] = distances


@dataclass(frozen=True, slots=True)
class PublicSlack:
    """What both servers know of how much nearer than tau each row is."""

    tau: int

    def act(self, machine: Machine) -> None:
        """Hand it to the steps that make weights of products."""
        slack = np.uint64(self.tau) - machine.public[MASKED_DISTANCES]
        machine.public[ANNOUNCED] = slack[None]


@dataclass(frozen=True, slots=True)
class ProvedSignSum:
    """The sum under these weights; to the first server, the sum of the weights."""

    def act(self, machine: Machine) -> None:
        """Fill the sum with the own share."""
        public = machine.public[MASKED_TRUST][: machine.n, 0]
        own = machine.preprocessing.weights + (public if machine.first else np.uint64(0))
        machine.unit, machine.trust_unit = step_of(machine.now), 1.0
        machine.shares[SUM] = signed_sum(machine, own, public, scaled=True)
        open_mass(machine)


OPEN_DISTANCES: tuple[Step, ...] = (
    MaskDistances(),
    OpenChecked(MASKED_DISTANCES),
    ReadDistances(),
)
"""The steps that open distances with proofs."""


def proved_signs(tau: int, least: int) -> tuple[Step, ...]:
    """The steps to the first server's sum under weights that nobody knows; ``least`` rows count, or
    none.
    """
    return (
        *(MaskDistances(), OpenChecked(MASKED_DISTANCES), PublicSlack(tau)),
        *(*masked_trust(least, fixed=False, named=False), ProvedSignSum(), OpenToFirst(SUM)),
    )
