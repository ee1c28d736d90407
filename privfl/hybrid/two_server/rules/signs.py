"""FLTrust on rows of signs, weighed by their Hamming distance to the root update's signs: bits
shared by exclusive or, turned into numbers all at once, compared, summed with weights.

A bit shared as y (first server) and a (second) and a dealt random bit r, shared by exclusive or and
as numbers R0 + R1 modulo 2^32: the servers open v = y ^ a ^ r, which is uniform, and hold the bit
as v + (1 - 2 v)(R0 + R1). Bits need no range proof: whatever a client sends is some row of signs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from privfl.core import RoundPlan
from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc import Demand
from privfl.crypto.mpc.operations import Multiply, Negative, Open, OpenToFirst, ToNumbers
from privfl.crypto.mpc.words import U64, pack, signed, unpack
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.bits import opened_bits, size
from privfl.hybrid.two_server.fixed_stock import RuleStock
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.oblivious_selection import TRUST, Count, Mass, counted, spread
from privfl.hybrid.two_server.parameters import Needs, TwoServerParameters
from privfl.hybrid.two_server.public_sum import enough
from privfl.hybrid.two_server.registers import (
    ALONG,
    BIT,
    CHOSEN,
    COUNT,
    MARGIN,
    MASS,
    SUM,
    WEIGHT,
    WEIGHTS,
)
from privfl.hybrid.two_server.rules.proved_signs import OPEN_DISTANCES, SignDistances, proved_signs
from privfl.hybrid.two_server.rules.rule import Reveal, Traits
from privfl.hybrid.two_server.sign_rows import (
    DISTANCE,
    RING,
    flipped_rows,
    packed_direction,
    signed_sum,
    step_of,
)


@dataclass(frozen=True, slots=True)
class SignsOnShares:
    """Rows of signs, those nearer than ``threshold`` d weighed by how much (a `SharedRule`)."""

    kind: ClassVar[str] = "signs"

    reveal: Reveal
    threshold: float

    @property
    def traits(self) -> Traits:
        """Rows are compared with a direction; weights are any numbers."""
        return Traits(directed=True, hidden=self.reveal != "scores")

    @property
    def stock(self) -> RuleStock:
        """What opens distances with proofs, and makes weights of them where they stay shared."""
        return SignDistances(self.traits.hidden)

    @property
    def leaks(self) -> str:
        """Distances, or how many count and the sum of their weights."""
        if self.reveal == "scores":
            return "every Hamming distance to the root's signs"
        return "how many clients count, and the sum of their weights"

    def needs(self, plan: RoundPlan) -> Needs:
        """Nothing of a ring of words: signs have a ring of their own."""
        return Needs()

    def preprocessing(self, now: TwoServerParameters, n: int) -> Demand:
        """On shares one comparison, one product and one dealt weight a row."""
        count = n if self.traits.hidden else 0
        return Demand(signs=count, bits=count, triples=count, weights=count)

    def program(
        self, now: TwoServerParameters, least: int, close: tuple[Step, ...]
    ) -> tuple[Step, ...]:
        """From masked signs to the first server's sum."""
        tau, last = math.floor(self.threshold * now.plan.d), OpenToFirst(SUM)
        if now.malicious and self.reveal == "scores":
            return (*OPEN_DISTANCES, OpenWeights(tau, least), SignSum(), last)
        if now.malicious:
            return proved_signs(tau, least)
        start: tuple[Step, ...] = (OpenFlips(), Hamming())
        if self.reveal == "scores":
            return (*start, Open(DISTANCE), OpenWeights(tau, least), SignSum(), last)
        weigh: tuple[Step, ...] = (
            Slack(tau),
            Negative(MARGIN, BIT),
            ToNumbers(BIT, CHOSEN),
            Multiply(CHOSEN, ALONG, TRUST),
        )
        total = (Count(), Open(COUNT), HiddenWeights(least), HiddenSignSum())
        return (*start, *weigh, *total, OpenToFirst(MASS), Mass(), last)


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


@dataclass(frozen=True, slots=True)
class Hamming:
    """Shares of each row's Hamming distance to the direction's signs g: g ^ x is g ^ v where the
    dealt bit is 0, else its opposite.
    """

    def act(self, machine: Machine) -> None:
        """Fill the distances [n]; a whole row counts, packed bits by population count."""
        machine.valid = tuple(range(machine.n))
        if DISTANCE in machine.memory:
            machine.shares[DISTANCE] = machine.memory[DISTANCE]
            return
        d, packed = machine.now.plan.d, packed_direction(machine)
        distance: U64 = np.zeros(machine.n, dtype=np.uint64)
        for i, (flipped, numbers) in enumerate(flipped_rows(machine)):
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
        machine.shares[DISTANCE] = machine.memory[DISTANCE] = distance


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
        distance = signed(machine.public[DISTANCE], RING)
        if (distance < 0).any() or (distance > machine.now.plan.d).any():
            raise StageAbort(
                "judge",
                f"an opened distance is no number of signs: {machine.other} or the dealer lied",
                who=(machine.other, "dealer"),
            )
        weights = np.maximum(self.tau - distance, 0)
        machine.public[WEIGHTS] = weights.astype(np.uint64)
        machine.count, machine.weight = int((weights > 0).sum()), float(weights.sum()) or 1.0
        enough(machine.count, self.least)
        machine.unit = step_of(machine.now)
        machine.reach = float(weights.sum()) * math.sqrt(machine.now.plan.d)
        machine.disclosed |= {
            "distances": torch.from_numpy(distance),
            "weights": torch.from_numpy(weights),
        }


@dataclass(frozen=True, slots=True)
class SignSum:
    """The rows' signs under weights that both servers know."""

    def act(self, machine: Machine) -> None:
        """Fill the sum with the own share."""
        weights = machine.public[WEIGHTS]
        own = weights if machine.first else np.zeros_like(weights)
        machine.shares[SUM] = signed_sum(machine, own, weights, scaled=False)


@dataclass(frozen=True, slots=True)
class Slack:
    """tau - distance, and its negative, whose sign says which rows count."""

    tau: int

    def act(self, machine: Machine) -> None:
        """Fill both."""
        machine.shares[ALONG] = machine.constant(self.tau) - machine.shares[DISTANCE]
        machine.shares[MARGIN] = np.uint64(0) - machine.shares[ALONG]


@dataclass(frozen=True, slots=True)
class HiddenWeights:
    """The weights stay shared; how many are above zero is known, and their sum to the first
    server.
    """

    least: int

    def act(self, machine: Machine) -> None:
        """Fill the weights and their sum.

        Raises:
            StageAbort: too few rows count.
        """
        counted(machine, self.least)
        machine.shares[WEIGHT] = spread(machine, machine.shares[TRUST])
        machine.shares[MASS] = machine.shares[WEIGHT].sum(keepdims=True, dtype=np.uint64)
        machine.unit, machine.trust_unit = step_of(machine.now), 1.0


@dataclass(frozen=True, slots=True)
class HiddenSignSum:
    """The rows' signs under shared weights w: w minus the dealt weights is opened, and the dealer
    gave their products with its bits.
    """

    def say(self, machine: Machine) -> bytes:
        """The own share of the masked weights."""
        return pack(machine.shares[WEIGHT] - machine.preprocessing.weights, RING)

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Fill the sum with the own share."""
        own = machine.shares[WEIGHT]
        public = own - machine.preprocessing.weights + unpack(theirs, RING, machine.n)
        machine.shares[SUM] = signed_sum(machine, own, public, scaled=True)
        return True
