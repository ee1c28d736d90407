"""What reaches the two servers of a client's row, and how far one client's may move."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from privfl.core import BadUpdate, Moves, Neighbours, RoundPlan, Stable, Vector, norm
from privfl.crypto.encoding import FixedPoint, Rounded

CHECKED = 1 + 1e-5
"""How much longer than a rounded row of the bound the norm check lets a row be."""


@dataclass(frozen=True, slots=True)
class RowEncoding:
    """Fixed point (a `core.Encodes`).

    ``stretched``: clients bring rows to the bound's length first. ``selects``: the servers' rule
    chooses or weighs rows, so what one row moves of the opened sum through the others' weights is
    not proved.
    """

    code: FixedPoint
    stretched: bool
    selects: bool

    def arrives(self, row: Vector, plan: RoundPlan) -> Vector:
        """The row [d] on shares.

        Raises:
            BadUpdate: it cannot be encoded, or has no direction where only that counts.
        """
        if not self.stretched:
            return self.code.arrives(row, plan)
        length = norm(row)
        if not 0 < length < math.inf:
            raise BadUpdate(f"a row of length {length:.6g} has no direction.")
        return self.code.arrives(row * (plan.l2 / length), plan)

    def stage(self, d: int) -> Stable:
        """Encoding as a stage between a client's row [d] and the rule."""
        proved = Rounded(lambda l2: self.code.inflated(l2, d) * CHECKED)
        return Unproved(proved) if self.selects else proved


@dataclass(frozen=True, slots=True)
class SignEncoding:
    """Signs, each row as long as the bound (a `core.Encodes`)."""

    def arrives(self, row: Vector, plan: RoundPlan) -> Vector:
        """The row of signs [d]; zero counts as above zero.

        Raises:
            BadUpdate: another length than the plan's, or entries that are not finite.
        """
        if len(row) != plan.d or not bool(torch.isfinite(row).all()):
            raise BadUpdate(f"no finite row of {plan.d} values.")
        signs = 1 - 2 * (row.detach().cpu() < 0).to(torch.float32)
        return signs * float(plan.l2 / plan.d**0.5)

    def stage(self, d: int) -> Stable:
        """Encoding as a stage between a client's row [d] and the weights, through which nothing is
        proved.
        """
        return Unproved(Rounded(lambda l2: l2))


@dataclass(frozen=True, slots=True)
class Unproved:
    """Rows as long as ``encoding`` makes them, in a sum that one client moves through the others'
    weights: how far is not proved.
    """

    encoding: Rounded

    def stability(self, moves: Moves, neighbours: Neighbours) -> Moves:
        """The rows' length; everything else infinite."""
        return replace(self.encoding.stability(moves, neighbours), total=math.inf, changed=math.inf)
