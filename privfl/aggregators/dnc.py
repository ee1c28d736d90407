"""Divide and conquer: spectral outlier removal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from privfl.aggregators.base import InHull, MemoryRule, mean_of
from privfl.aggregators.spectral import about
from privfl.aggregators.verdict import Verdict
from privfl.core import Context, Rows, TooManyByzantine, require
from privfl.core.geometry import centred_gram


@dataclass(frozen=True, slots=True)
class DnC(InHull, MemoryRule[None]):
    """Divide and conquer (Shejwalkar, Houmansadr 2021, Algorithm 2): drop what sticks out along the
    top right singular vector.

    ``iterations`` times: ``coordinates`` random coordinates, centred; the floor(c f) rows with the
    largest squared projection are out. The mean of the rows that were never out. Tolerates f where
    iterations * floor(c f) < n, so that somebody always remains. Row weights are not used.

    >>> import torch
    >>> context = Context(None, torch.zeros(1), torch.Generator().manual_seed(0))
    >>> DnC(f=1).step(Rows.of([[0.0], [1.0], [2.0], [99.0]]), None, context)[0]
    tensor([1.])
    """

    symmetries: ClassVar[str] = "PTS"

    f: int = 1
    c: float = 1.0
    coordinates: int = 10_000
    iterations: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)
        require.positive(c=self.c)
        require.at_least(1, coordinates=self.coordinates, iterations=self.iterations)

    def init(self) -> None:
        """Nothing is remembered."""
        return

    def max_byzantine(self, n: int) -> int:
        """f, where n > 2f and iterations * floor(c f) < n."""
        require.honest_majority(rule="DnC", n=n, f=self.f, at_least=2 * self.f + 1)
        out = math.floor(self.c * self.f)
        if self.iterations * out >= n:
            raise TooManyByzantine(
                f"DnC drops up to iterations * floor(c f) = {self.iterations * out} of {n} rows:"
                " lower one of them."
            )
        return self.f

    def _decide(
        self, rows: Rows, lost: int, state: None, context: Context
    ) -> tuple[Verdict[Tensor], None]:
        out = math.floor(self.c * max(self.f - lost, 0))
        kept = torch.ones(rows.n, dtype=torch.bool)
        for _ in range(self.iterations):
            picked = rows.values
            if self.coordinates < rows.d:
                picked = rows.values[
                    :, torch.randperm(rows.d, generator=context.rng)[: self.coordinates]
                ]
            around = about(
                centred_gram(picked).cpu(), torch.full((rows.n,), 1 / rows.n, dtype=torch.float64)
            )
            along = (
                torch.linalg.eigh(around).eigenvectors[:, -1] ** 2
            )  # the left singular vector: projections up to one factor
            kept[along.argsort(stable=True)[rows.n - out :]] = False
        return Verdict(mean_of(rows.values, kept), kept=kept), None
