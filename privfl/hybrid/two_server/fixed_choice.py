"""A choice that is made by a comparison with proofs, opened, or counted and hidden in a sum.

The choice w is authenticated, so is v that the dealer knows: h = w - v is opened with a proof, and
the sum of w x is that of h x, of v E, of which each server knows its part of v, and of v (A0 + A1),
which the dealer deals. Nothing is left to prove of w.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privfl.crypto.mpc import Authenticated
from privfl.crypto.mpc.authentication import WORDS, OpenChecked
from privfl.crypto.mpc.operations import OpenToFirst
from privfl.crypto.mpc.words import U64, ring_mask
from privfl.hybrid.two_server.fixed_checks import DECIDED, fixed_of
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.oblivious_selection import Chosen, Counted
from privfl.hybrid.two_server.registers import CHOSEN, COUNT, SUM
from privfl.hybrid.two_server.rows import row_sum

CHOICE = Authenticated("choice")
"""0 or 1 for each valid row."""
HIDDEN = Authenticated("masked choice and count")
"""The choice of each row [n] less what the dealer knows of it, and how many are chosen."""


@dataclass(frozen=True, slots=True)
class Choose:
    """The valid rows' part of what was decided."""

    def act(self, machine: Machine) -> None:
        """Copy it."""
        machine.shares[CHOICE] = machine.shares[DECIDED][list(machine.valid)]


@dataclass(frozen=True, slots=True)
class ChoiceKnown:
    """The choice is open."""

    def act(self, machine: Machine) -> None:
        """Hand it to the steps that count whole rows."""
        machine.public[CHOSEN] = machine.public[CHOICE]


@dataclass(frozen=True, slots=True)
class Mask:
    """The choice of all rows, 0 where they failed, less what the dealer knows; and its sum."""

    def act(self, machine: Machine) -> None:
        """Fill both."""
        choice = machine.shares[CHOICE]
        wide: U64 = np.zeros((machine.n + 1, WORDS), dtype=np.uint64)
        wide[list(machine.valid)] = choice
        wide[:-1] -= fixed_of(machine).dealt.weights
        wide[-1] = choice.sum(axis=0, dtype=np.uint64)
        machine.shares[HIDDEN] = wide


@dataclass(frozen=True, slots=True)
class HiddenSum:
    """The sum of the chosen rows, and how many they are."""

    def act(self, machine: Machine) -> None:
        """Fill the sum with the own share, reduced to the ring: its upper bits would tell more."""
        opened = machine.public[HIDDEN]
        machine.public[COUNT] = opened[-1:] & ring_mask(machine.ring)
        machine.shares[SUM] = sum_under(machine, opened[:-1])


def sum_under(machine: Machine, opened: U64) -> U64:
    """The own share of the sum of rows, from their weights [n] less what the dealer knows."""
    now, own = machine.now, fixed_of(machine)
    total = row_sum(now, machine.rows, opened) + own.dealt.vector
    total += row_sum(now, own.rows, own.dealt.weights[:, 0])
    reduced: U64 = total & ring_mask(now.ring)
    return reduced


def open_choice(m: int = 0) -> tuple[Step, ...]:
    """The steps from a choice to weights that both servers know; exactly ``m`` where that is not
    0.
    """
    return (OpenChecked(CHOICE), ChoiceKnown(), Chosen(m))


def hidden_choice(least: int, m: int = 0) -> tuple[Step, ...]:
    """The steps from a choice to a sum of rows that nobody knows, ``least`` or none at all; exactly
    ``m`` where that is not 0.
    """
    choose: tuple[Step, ...] = (Mask(), OpenChecked(HIDDEN), HiddenSum())
    return (*choose, Counted(least, m), OpenToFirst(SUM))
