"""The sum of rows under weights that both servers know, and the sizes that no sum may have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from privfl.core import NoiseSource, RingNoise
from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc.words import U64, signed
from privfl.crypto.own_noise import own_noise
from privfl.hybrid.two_server.machine import Machine
from privfl.hybrid.two_server.registers import SUM, WEIGHTS
from privfl.hybrid.two_server.rows import row_sum


def accept(machine: Machine, rows: Sequence[int]) -> None:
    """Give these rows, by place among those that came, the weight 1, and all others none."""
    weights: U64 = np.zeros(machine.n, dtype=np.uint64)
    weights[list(rows)] = 1
    machine.public[WEIGHTS] = weights
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
        """Fill the sum with the own share.

        Raises:
            StageAbort: too few rows count.
        """
        weights = machine.public[WEIGHTS]
        enough(int((weights != 0).sum()), self.least)
        total = row_sum(machine.now, machine.rows, weights)
        if self.noise is not None and self.source is not None:
            d, ring = machine.now.plan.d, machine.now.ring
            source = own_noise(self.source, machine.now.plan, machine.names[1 - machine.first])
            noisy = self.noise.add(signed(total[:d], ring), self.unit_l2, 1, source)
            total[:d] = noisy.astype(np.int64, copy=False).view(np.uint64)
        machine.shares[SUM] = total
        machine.forget_rows()


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
