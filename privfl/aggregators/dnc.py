"""Divide and conquer: spectral outlier removal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.base import InHull, MemoryRule, mask, mean_of
from privfl.aggregators.spectral import about
from privfl.aggregators.verdict import Verdict
from privfl.core import Context, Memory, Rows, TooManyByzantine, require
from privfl.core.geometry import centred_gram


@dataclass(frozen=True, slots=True)
class DnC(InHull, MemoryRule[None]):
    """Divide and conquer (Shejwalkar, Houmansadr 2021, Algorithm 2): drop what sticks out along the
    top right singular vector.

    ``iterations`` times: ``coordinates`` random coordinates (None: all), centred; the floor(c f)
    rows with the largest squared projection on the top right singular vector are out. The mean of
    the rows that were never out. The paper takes them out at once (``at_once``), and then a far
    liar hides behind one that is farther still, or far out elsewhere; here they are taken out one
    by one, each along the direction that is top among those left. While g < n/2 rows are far out,
    one of them has a longer projection than any row that is not, so none of f liars stays far out
    where c >= 1 and all coordinates are looked at; what is far in a coordinate that was not drawn
    is not seen. Tolerates f where n > 2f and iterations * floor(c f) < n, so that somebody always
    remains. Equivariant to rotation where all coordinates are looked at. Row weights are not used.

    >>> import torch
    >>> context = Context(None, torch.zeros(1), torch.Generator().manual_seed(0))
    >>> DnC(f=1).step(Rows.of([[0.0], [1.0], [2.0], [99.0]]), None, context)[0]
    tensor([1.])
    """

    symmetries: ClassVar[str] = "PTS"
    memory: ClassVar[Memory] = "none"

    f: int = 1
    c: float = 1.0
    coordinates: int | None = None
    iterations: int = 1
    at_once: bool = False

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)
        require.positive(c=self.c)
        require.at_least(1, iterations=self.iterations)
        if self.coordinates is not None:
            require.at_least(1, coordinates=self.coordinates)

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
            if self.coordinates is not None and self.coordinates < rows.d:
                picked = rows.values[
                    :, torch.randperm(rows.d, generator=context.rng)[: self.coordinates]
                ]
            inner, there = centred_gram(picked).cpu(), torch.arange(rows.n)
            for drop in [out] if self.at_once else [1] * out:
                along = projections(inner[there][:, there])
                there = there[along.argsort(stable=True)[: len(there) - drop]]
            kept &= mask(rows.n, there)
        return Verdict(mean_of(rows.values, kept), kept=kept), None


def projections(inner: Float[Tensor, "n n"]) -> Float[Tensor, " n"]:
    """Squared projections of rows with these inner products, centred, on their top right singular
    vector, up to one factor: the squares of the left one.
    """
    n = len(inner)
    around = about(inner, torch.full((n,), 1 / n, dtype=inner.dtype))
    squares: Float[Tensor, " n"] = torch.linalg.eigh(around).eigenvectors[:, -1] ** 2
    return squares
