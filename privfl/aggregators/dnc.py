"""Divide and conquer: spectral outlier removal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.base import InHull, Memoryless, combine, mean_of
from privfl.aggregators.clipping import shortening
from privfl.aggregators.geometric_median import geometric_median
from privfl.aggregators.spectral import about
from privfl.aggregators.verdict import Verdict
from privfl.core import Context, Examples, Rows, TooManyByzantine, require
from privfl.core.geometry import centred_gram


@dataclass(frozen=True, slots=True)
class DnC(InHull, Memoryless):
    """Divide and conquer (Shejwalkar, Houmansadr 2021, Algorithm 2): drop what sticks out along the
    top right singular vector.

    ``iterations`` times: ``coordinates`` random coordinates, centred; the floor(c f) rows with the
    largest squared projection are out. The mean of the rows that were never out. Tolerates f where
    n > 2f and iterations * floor(c f) < n, so that somebody always remains. Row weights are not
    used.

    A far liar hides behind one that is farther still, or far out elsewhere, or in a coordinate that
    was not drawn. So that it does bounded harm there, rows that are farther from the geometric
    median of all rows than n - f of them are drawn in to the (n - f)-th shortest distance, which no
    f liars can make longer than the longest honest one, before they are averaged. Where the rows
    that are out are the f farthest, nothing changes; ``draw_in=False`` is the paper's algorithm.

    >>> import torch
    >>> context = Context(None, torch.zeros(1), torch.Generator().manual_seed(0))
    >>> DnC(f=1).step(Rows.of([[0.0], [1.0], [2.0], [99.0]]), None, context)[0]
    tensor([1.])
    """

    accuses: ClassVar[bool] = True
    told_f: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {
        "": {"f": 3},
        "drawn": {"f": 3, "coordinates": 3},
        "as in the paper": {"f": 3, "coordinates": 3, "draw_in": False},
    }
    symmetries: ClassVar[str] = "PTS"

    f: int = 1
    c: float = 1.0
    coordinates: int = 10_000
    iterations: int = 1
    draw_in: bool = True

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)
        require.positive(c=self.c)
        require.at_least(1, coordinates=self.coordinates, iterations=self.iterations)

    @property
    def breaks(self) -> str:
        """Where far rows are not drawn in, or too few are taken out."""
        return (
            "rows hide behind one another, and in coordinates that are not drawn"
            if not self.draw_in or self.c < 1
            else ""
        )

    def max_byzantine(self, n: int) -> int:
        """f, where n > 2f and iterations * floor(c f) < n.

        Raises:
            TooManyByzantine: n <= 2f, or all rows would be dropped.
        """
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
        f = max(self.f - lost, 0)
        out = math.floor(self.c * f)
        kept, suspicion = torch.ones(rows.n, dtype=torch.bool), torch.zeros(rows.n).double()
        whole = centred_gram(rows.values).cpu()
        for _ in range(self.iterations):
            inner = whole
            if self.coordinates < rows.d:
                drawn = torch.randperm(rows.d, generator=context.rng)[: self.coordinates]
                inner = centred_gram(rows.values[:, drawn]).cpu()
            around = about(inner, torch.full((rows.n,), 1 / rows.n, dtype=torch.float64))
            along = (
                torch.linalg.eigh(around).eigenvectors[:, -1] ** 2
            )  # the left singular vector: projections up to one factor
            suspicion = torch.maximum(suspicion, along)
            kept[along.argsort(stable=True)[rows.n - out :]] = False
        if not self.draw_in:
            return Verdict(mean_of(rows.values, kept), kept=kept, suspicion=suspicion), None
        middle, scale = nearness(whole, f)
        share = kept.to(scale) / kept.sum()
        at = share * scale + float(share @ (1 - scale)) * middle
        mean = combine(rows.values, at)
        return Verdict(mean, kept=kept, scale=scale, suspicion=suspicion), None


def nearness(
    inner: Float[Tensor, "n n"], f: int
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Coefficients [n] of the geometric median of rows with these inner products, and what each
    row's way from it is multiplied by so that none is longer than the (n - f)-th shortest.
    """
    n = len(inner)
    middle = geometric_median(inner, torch.ones(n, dtype=torch.float64), 1e-9, 10_000)
    away = about(inner, middle).diagonal().clamp(min=0).sqrt()
    scale, _ = shortening(away, float(away.sort().values[n - f - 1]))
    return middle, scale
