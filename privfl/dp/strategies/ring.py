"""Noise that remembers the last rows in a ring: C^-1 with few diagonals, or C with few."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from privfl.core import KeepsSecrets, Vector
from privfl.dp.strategies.base import Array


class RingStream(KeepsSecrets):
    """x_t = z_t + sum of w_j times the row j before, w_1 ... w_m: of the rows of Z (``keeps`` "z":
    w are diagonals of C^-1) or of its own rows (``keeps`` "x": w are those of C, negated).

    Memory: m vectors of the length and type of the noise.
    """

    __slots__ = ("_count", "_keeps", "_ring", "_weights")

    def __init__(self, weights: Array, keeps: Literal["z", "x"]) -> None:
        self._weights, self._keeps = weights, keeps
        self._ring = torch.empty(0, 0)
        self._count = 0

    def next(self, z: Vector) -> Vector:
        """The next row of C^-1 Z."""
        m = len(self._weights)
        if not m:
            return z
        if not self._count:
            self._ring = torch.empty(m, len(z), dtype=z.dtype, device=z.device)
        held = min(self._count, m)
        x = z
        if held:
            ago = (self._count - 1 - np.arange(held)) % m if held == m else None
            weights = np.empty(held)
            if ago is None:  # row i is count - 1 - i rows old
                weights[:] = self._weights[:held][::-1]
            else:
                weights[ago] = self._weights
            x = torch.addmv(z, self._ring[:held].T, torch.from_numpy(weights).to(z))
        self._ring[self._count % m].copy_(z if self._keeps == "z" else x)
        self._count += 1
        return x
