"""What every row must pass before any rule sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privfl.crypto.mpc import Demand, Shared, SharedBits
from privfl.crypto.mpc.operations import AllOf, Negative, OpenBits, fold_demand
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.parameters import TwoServerParameters
from privfl.hybrid.two_server.registers import CLAIMED, INNER, NORMS, TESTS

CHECKED = Shared("checked")
"""Margins [k, n] that must not be negative."""
_BELOW = SharedBits("below")
PASSED = SharedBits("passed")
"""Whether a row passed all of its checks [n]."""


def checking(now: TwoServerParameters, n: int) -> Demand:
    """What the checks of n rows take of the dealer: signs, words of ANDs that make one bit a row of
    them, inner products.
    """
    margins = 2 * (now.rows + 1 + now.weighted)
    return Demand(signs=n * margins, inner=now.inner(n), folds=fold_demand(margins, n))


@dataclass(frozen=True, slots=True)
class Ranges:
    """Put each quantity that must lie in a range as two that must not be negative: projections,
    norms, weights.
    """

    def act(self, machine: Machine) -> None:
        """Fill the margins."""
        now, shares = machine.now, machine.shares
        inner = shares[INNER]
        shares[NORMS] = np.diagonal(inner).copy() if now.gram else inner
        ranges = [
            (shares[TESTS], -now.reach, now.reach),
            (shares[NORMS][None], now.shortest**2, now.longest**2),
        ]
        if now.weighted:
            ranges.append((shares[CLAIMED][None], 0, now.code.top))
        margins = [
            part
            for what, low, high in ranges
            for part in (what - machine.constant(low), machine.constant(high) - what)
        ]
        shares[CHECKED] = np.concatenate(margins)


@dataclass(frozen=True, slots=True)
class Refuse:
    """Leave out, by name, rows that failed a check."""

    def act(self, machine: Machine) -> None:
        """Set ``valid``.

        Raises:
            StageAbort: too few are left.
        """
        machine.refuse(machine.public[PASSED] == 0)


CHECKS: tuple[Step, ...] = (
    Ranges(),
    Negative(CHECKED, _BELOW),
    AllOf(_BELOW, PASSED),
    OpenBits(PASSED),
    Refuse(),
)
"""The steps that prove every row that is left to be as short as the plan says, with one open bit a
row: of all margins each, a server that shifts its own would learn so many bits of the row.
"""
