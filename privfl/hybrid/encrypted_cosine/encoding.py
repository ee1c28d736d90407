"""What reaches the server, under encryption, of a client's row."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from privfl.core import BadUpdate, Moves, Neighbours, RoundPlan, Stable, Vector
from privfl.hybrid.encrypted_cosine.parameters import CosineParameters, unit_vector


@dataclass(frozen=True, slots=True)
class UnitVectors:
    """A row's direction in integers, as long as the bound, 1 where there is none (a
    `core.Encodes`).

    ``longest``: the most that the norm check lets rows of vectors [d] of norm l2 be.
    """

    setting: CosineParameters
    root_l2: float | None

    def longest(self, l2: float, d: int) -> float:
        """The most that the norm check lets a row [d] be, where an honest one is of norm l2."""
        slack = (
            self.setting.longest**0.5
            if self.setting.norms == "projections"
            else 1 + (float(d) ** 0.5 / 2 + 1) / self.setting.unit
        )
        return float((l2 if self.root_l2 is None else self.root_l2) * slack)

    def arrives(self, row: Vector, plan: RoundPlan) -> Vector:
        """The row [d] at full length; a zero row stays zero and is never trusted.

        Raises:
            BadUpdate: another length than the plan's, or entries that are not finite.
        """
        values = row.detach().cpu().numpy().astype(np.float64)
        if values.shape != (plan.d,) or not np.isfinite(values).all():
            raise BadUpdate(f"no finite row of {plan.d} values.")
        length = plan.l2 if plan.l2 < math.inf else 1.0
        integers = unit_vector(values, self.setting.unit)
        return torch.from_numpy((integers * (length / self.setting.unit)).astype(np.float32))

    def stage(self, d: int) -> Stable:
        """Encoding as a stage between a client's row [d] and the weights."""
        return _Weighed(self, d)


@dataclass(frozen=True, slots=True)
class _Weighed:
    """Rows as long as the check lets them be; how far one client moves the result through the
    others' weights is not proved.
    """

    encoding: UnitVectors
    d: int

    def stability(self, moves: Moves, neighbours: Neighbours) -> Moves:
        longest = self.encoding.longest(moves.longest, self.d)
        return replace(moves, total=math.inf, changed=math.inf, longest=longest)
