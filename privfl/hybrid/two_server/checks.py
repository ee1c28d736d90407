"""What every row must pass before any rule sees it, and the sum of rows that both servers know the
weights of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from privfl.core import NoiseSource, RingNoise
from privfl.crypto.abort import StageAbort
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.parameters import TwoServerParameters
from privfl.hybrid.two_server.ring_codec import U64, signed
from privfl.hybrid.two_server.rows import row_sum
from privfl.hybrid.two_server.steps import AllOf, Negative, OpenBits, fold_demand


def comparisons(now: TwoServerParameters, n: int) -> int:
    """How many signs the checks of n rows take."""
    return n * _margins(now)


def folds(now: TwoServerParameters, n: int) -> int:
    """How many words of ANDs it takes to make one bit a row of them."""
    return fold_demand(_margins(now), n)


def _margins(now: TwoServerParameters) -> int:
    return 2 * (now.rows + 1 + now.weighted)


@dataclass(frozen=True, slots=True)
class Ranges:
    """Put each quantity that must lie in a range as two that must not be negative: projections,
    norms, weights.
    """

    def act(self, machine: Machine) -> None:
        """Fill "checked"."""
        now, shares = machine.now, machine.shares
        inner = shares["inner"]
        shares["norms"] = np.diagonal(inner).copy() if now.gram else inner
        ranges = [
            (shares["tests"], -now.reach, now.reach),
            (shares["norms"][None], now.shortest**2, now.longest**2),
        ]
        if now.weighted:
            ranges.append((shares["weights"][None], 0, now.code.top))
        margins = [
            part
            for what, low, high in ranges
            for part in (what - machine.constant(low), machine.constant(high) - what)
        ]
        shares["checked"] = np.concatenate(margins).reshape(-1)


@dataclass(frozen=True, slots=True)
class Refuse:
    """Leave out, by name, rows that failed a check."""

    def act(self, machine: Machine) -> None:
        """Set ``valid``.

        Raises:
            StageAbort: too few are left.
        """
        now = machine.now
        failed = machine.public["passed"] == 0
        for i in np.flatnonzero(failed).tolist():
            machine.excluded[now.name(machine.positions[i])] = "its update failed the norm check"
        machine.valid = tuple(np.flatnonzero(~failed).tolist())
        now.enough("check", {machine.positions[i] for i in machine.valid})
        machine.disclosed["accepted"] = torch.from_numpy(~failed)


CHECKS: tuple[Step, ...] = (
    Ranges(),
    Negative("checked", "below"),
    AllOf("below", "passed"),
    OpenBits("passed"),
    Refuse(),
)
"""The steps that prove every row that is left to be as short as the plan says, with one open bit a
row: of all margins each, a server that shifts its own would learn so many bits of the row.
"""


@dataclass(frozen=True, slots=True)
class Everyone:
    """Each valid row counts once."""

    def act(self, machine: Machine) -> None:
        """Set the public weights."""
        accept(machine, machine.valid)


def accept(machine: Machine, rows: Sequence[int]) -> None:
    """Give these rows, by place among those that came, the weight 1, and all others none."""
    weights: U64 = np.zeros(machine.n, dtype=np.uint64)
    weights[list(rows)] = 1
    machine.public["weights"] = weights
    machine.unit, machine.count = 1 / machine.now.scale, len(rows)
    machine.weight = (
        float(len(rows)) or 1.0
    )  # of nothing at all the mean is the zero vector, as the plain rules say


@dataclass(frozen=True, slots=True)
class PublicSum:
    """The rows' sum under weights that both servers know; each server adds noise of its own where
    there is any.

    Fewer than ``least`` rows that count are refused: a sum of one is that client's update.
    """

    least: int
    noise: RingNoise | None = None
    source: NoiseSource | None = None
    unit_l2: float = 0.0

    def act(self, machine: Machine) -> None:
        """Fill "sum" with the own share.

        Raises:
            StageAbort: too few rows count.
        """
        weights = machine.public["weights"]
        enough(int((weights != 0).sum()), self.least)
        total = row_sum(machine.now, machine.rows, weights)
        if self.noise is not None and self.source is not None:
            d, ring = machine.now.plan.d, machine.now.ring
            noisy = self.noise.add(signed(total[:d], ring), self.unit_l2, 1, self.source)
            total[:d] = noisy.astype(np.int64, copy=False).view(np.uint64)
        machine.shares["sum"] = total


def exactly(machine: Machine, count: int, m: int) -> None:
    """Refuse a choice of another size than the rule makes (0: it makes any).

    Raises:
        StageAbort: it is of another size; a server or the dealer lied.
    """
    if m and count != m:
        raise StageAbort(
            "select",
            f"{count} rows were chosen where the rule chooses {m}: {machine.other} or the dealer"
            " lied",
            who=(machine.other, "dealer"),
        )


def enough(count: int, least: int) -> None:
    """Refuse to open a sum of some, but fewer than ``least`` rows; nothing at all opens as zero.

    Raises:
        StageAbort: there are some, and too few.
    """
    if 0 < count < least:
        raise StageAbort(
            "select",
            f"the rule accepted {count} of the rows, and a sum of fewer than {least} would open a"
            " client (see min_selected and colluders)",
        )
