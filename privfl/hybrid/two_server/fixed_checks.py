"""The steps that check rows where one server may lie: products announced under tags, comparisons
without a message, one count of failed margins a row, scores opened with proofs.

What a server announces of the rows that it holds is h = <e, A> - mu (for the first server <e, E +
A0> - mu): P = h_0 + h_1 = <e, x> - mu_0 - mu_1 is public, and the servers share the mask mu_0 +
mu_1, of which the dealer knows the comparisons and the MACs. Of a row's norm the client fixed N -
mask; the servers open N less the norm that they computed, which is 0 for an honest client whatever
its row: a lie about it drops the client. So a lie meets a proof, or changes nothing but who takes
part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privfl.crypto.mpc import Authenticated, Known
from privfl.crypto.mpc.authentication import WORDS, FailedMac, OpenChecked
from privfl.crypto.mpc.dcf import evaluate
from privfl.crypto.mpc.words import U64, pack, ring_mask, unpack
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.fixed_dealing import tagged
from privfl.hybrid.two_server.fixed_rows import Fixed
from privfl.hybrid.two_server.fixed_stock import comparison_key, turned
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.opened_scores import SCORES

FAILED = Authenticated("failed margins")
"""How many margins of each row are below zero [n]."""
SCORE_MASKS = Authenticated("masks of scores")
"""The masks of what is opened of the valid rows, kind by kind."""
DECIDED = Authenticated("decided")
"""Whether each row's product with the direction is above zero [n]."""
ANNOUNCED = Known("announced")
"""What both servers know of every product [products, n]: it less its mask."""
NORM_LIES = Known("norm lies")
"""The difference of a client's norm and the computed one [n]."""


def fixed_of(machine: Machine) -> Fixed:
    """What this machine has where rows are fixed.

    Raises:
        Malformed: they are not.
    """
    if machine.fixed is None:
        raise Malformed("rows are not fixed in this round")
    return machine.fixed


def opened_outcomes(machine: Machine, register: Authenticated) -> U64:
    """An opened register [m] of comparisons' outcomes, each xor a dealt bit.

    Raises:
        FailedMac: one is no bit.
    """
    opened = machine.public[register]
    if (opened > 1).any():
        raise FailedMac(
            "compare",
            f"an opened outcome is neither 0 nor 1: {machine.other} or the dealer lied",
            who=(machine.other, "dealer"),
        )
    return opened


@dataclass(frozen=True, slots=True)
class Announce:
    """Both servers announce their products, masked, and open the differences of norms."""

    def say(self, machine: Machine) -> bytes:
        """The own products [products, n + K], then the share of the differences [n]."""
        own = fixed_of(machine)
        mine = np.concatenate([own.products.rows, own.products.pads], axis=1)
        told = pack((mine - own.dealt.announced).reshape(-1), 64)
        return told + pack(self._difference(machine), machine.ring)

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Check the other's against its tags.

        Raises:
            FailedMac: they are not its rows'.
        """
        own, n = fixed_of(machine), machine.n
        mine, dealt = own.products, own.dealt
        size = 8 * dealt.announced.size
        said = unpack(theirs[:size], 64, dealt.announced.size).reshape(dealt.announced.shape)
        tests = tagged(dealt.row_keys, said[:, :n].T).T + said[:, n:] + dealt.offsets
        if (tests != mine.tags).any():
            raise FailedMac(
                "announce",
                f"what {machine.other} announced is not of the rows that the dealer tagged:"
                f" {machine.other} or the dealer lied",
                who=(machine.other, "dealer"),
            )
        machine.public[ANNOUNCED] = mine.rows - dealt.announced[:, :n] + said[:, :n]
        other = unpack(theirs[size:], machine.ring, n)
        difference = self._difference(machine) + other
        machine.public[NORM_LIES] = difference & ring_mask(machine.ring)
        return True

    def _difference(self, machine: Machine) -> U64:
        own = fixed_of(machine).products
        off: U64 = own.last[-1] - own.norms
        return off


@dataclass(frozen=True, slots=True)
class CompareMargins:
    """How many margins of each row are below zero: of its projections, its norm, its weight; where
    the rule decides by it, also whether its product with the direction is above zero.
    """

    def act(self, machine: Machine) -> None:
        """Fill the counts, and what is decided."""
        now, own, n = machine.now, fixed_of(machine), machine.n
        told, decided = machine.public[ANNOUNCED], own.dealt.decided
        public = np.concatenate([told[: now.rows], own.last[::-1], told[len(told) - decided :]])
        ranges = [(-now.reach, now.reach)] * now.rows
        ranges += [(now.shortest**2, now.longest**2), (0, now.code.top)][: 1 + now.weighted]
        ranges += [(1, 0)] * decided  # twice compared with 1
        ends = [(low % (1 << 64), (high + 1) % (1 << 64)) for low, high in ranges]
        points = public - np.array(ends, dtype=np.uint64).T[:, :, None]
        too_low, not_too_high = _negative(machine, points.reshape(2, -1))
        if decided:
            machine.shares[DECIDED] = machine.one - too_low[-n:]
        count = len(too_low) - n * decided
        wrong = too_low[:count] + machine.one - not_too_high[:count]
        machine.shares[FAILED] = wrong.reshape(-1, n, WORDS).sum(axis=0, dtype=np.uint64)


def _negative(machine: Machine, points: U64) -> U64:
    """Authenticated bits [p, m, WORDS]: whether P less what its comparison hides is below zero."""
    dealt, ring = fixed_of(machine).dealt, machine.ring
    low = points & np.uint64((1 << (ring - 1)) - 1)
    permute = machine.now.library.permutation(comparison_key(machine.now))
    borrow = evaluate(int(not machine.first), dealt.starts, dealt.corrections, low, permute)
    return turned(borrow + dealt.constants, points, ring, machine.one)


@dataclass(frozen=True, slots=True)
class RefuseFailed:
    """Leave out, by name, rows of which a margin failed, or whose client lied about the norm."""

    def act(self, machine: Machine) -> None:
        """Set ``valid``.

        Raises:
            FailedMac: a count that cannot be.
            StageAbort: too few are left.
        """
        now, counts = machine.now, machine.public[FAILED]
        if (counts > 2 * (now.rows + 1 + now.weighted)).any():
            raise FailedMac(
                "check",
                f"an opened count of margins cannot be: {machine.other} or the dealer lied",
                who=(machine.other, "dealer"),
            )
        failed = counts != 0
        said = (machine.public[NORM_LIES] != 0) & ~failed
        machine.refuse(failed | said)
        machine.unproved = int(said.sum())
        for i in np.flatnonzero(said).tolist():
            name = now.name(machine.positions[i])
            who = f"by its word, or that of {machine.other} or the dealer"
            machine.excluded[name] = f"{who}, its norm is another"


@dataclass(frozen=True, slots=True)
class GatherMasks:
    """The masks of products with the direction and of squared norms of the valid rows, or of norms
    alone.
    """

    dots: bool

    def act(self, machine: Machine) -> None:
        """Collect them: those of rows that failed stay hidden."""
        masks = fixed_of(machine).scores[:, list(machine.valid)]
        machine.shares[SCORE_MASKS] = masks[0 if self.dots else -1 :].reshape(-1, WORDS)


@dataclass(frozen=True, slots=True)
class Unmask:
    """The scores of the valid rows, from what was announced and the opened masks."""

    dots: bool

    def act(self, machine: Machine) -> None:
        """Fill the opened scores."""
        own, valid = fixed_of(machine), list(machine.valid)
        public = [machine.public[ANNOUNCED][-1, valid]] * self.dots + [own.last[-1, valid]]
        masks = machine.public[SCORE_MASKS].reshape(len(public), -1)
        machine.public[SCORES] = (np.stack(public) + masks) & ring_mask(machine.ring)


FIXED_CHECKS: tuple[Step, ...] = (
    Announce(),
    CompareMargins(),
    OpenChecked(FAILED),
    RefuseFailed(),
)
"""The steps that prove every row that is left to be as short as the plan says, against clients and
one server. Of a refused row it is opened how many margins failed: of an honest one none does, and
no server can shift any.
"""


def open_scores(dots: bool) -> tuple[Step, ...]:
    """The steps that open the valid rows' scores with proofs."""
    return (GatherMasks(dots), OpenChecked(SCORE_MASKS), Unmask(dots))
