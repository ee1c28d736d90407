"""RFLBAT: two principal components, clusters, and the cluster whose members are least alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privfl.aggregators.base import combine
from privfl.aggregators.clipping import shortening
from privfl.aggregators.columns import midpoint
from privfl.aggregators.cut import CutInHull
from privfl.aggregators.gap import clusters_by_gap, k_means
from privfl.aggregators.spectral import about
from privfl.aggregators.verdict import Verdict
from privfl.core import Context, Examples, Rows, require
from privfl.core.geometry import centred_gram, inner_products

_OUTLIER, _ODD = 3.0, 2.0
"""Suspicion of rows that are dropped for their distance, first and last: over any cosine."""


@dataclass(frozen=True, slots=True)
class RFLBAT(CutInHull):
    """RFLBAT (Wang, Xu, Zhai, Zhu, Yi, Ren 2022): backdoored updates are more alike than honest
    ones.

    The rows' two principal components; rows whose distances to all others sum to more than ``far``
    times the median are out; k-means of the others, as many clusters as the gap statistic says (at
    most ``most``, ``references`` draws); of each cluster the median over its rows of the mean
    cosine of the updates with all rows of the cluster (1 where it has one row), and the cluster
    where that is least is kept; of it, rows whose distances sum to more than ``near`` times the
    median are out. The mean of the rest. Honest rows outside of that cluster are dropped, and liars
    that are unlike each other are trusted. Meant for f < n/2. Row weights are not used.

    k-means starts without chance here (`k_means`), so that seeds change the result only by the
    references of the gap statistic, which is Tibshirani's; the ports that were read look at one
    member of each cluster only. Rows are cut to ``bound`` before they are averaged, to the median
    norm of all rows where it is None; inf is the paper's rule.

    >>> context = Context(None, torch.zeros(2), torch.Generator().manual_seed(0))
    >>> rows = Rows.of([[1.0, 0.5], [0.5, 1.0], [1.0, 0.9], [0.2, 1.2], [-9.0, 0.0], [-9.0, 0.1]])
    >>> RFLBAT().judge_step(rows, None, context)[0].dropped
    (4, 5)
    """

    accuses: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {"": {}, "few": {"most": 3, "references": 20}}
    symmetries: ClassVar[str] = "PSR"

    far: float = 10.0
    near: float = 4.0
    most: int = 10
    references: int = 5
    bound: float | None = None

    def __post_init__(self) -> None:
        require.at_least(1, far=self.far, near=self.near, most=self.most)
        require.at_least(2, references=self.references)
        self.require_bound()

    def _decide(
        self, rows: Rows, lost: int, state: None, context: Context
    ) -> tuple[Verdict[Tensor], None]:
        n = rows.n
        about_zero = inner_products(rows.values)
        inner = about_zero.cpu()
        norms = inner.diagonal().clamp(min=0).sqrt()
        lengths = norms[:, None] * norms
        cosines = torch.where(lengths > 0, inner / lengths.clamp(min=1e-300), 0.0).clamp(-1, 1)
        points = two_components(centred_gram(rows.values, about_zero).cpu())
        kept = within_reach(points, torch.ones(n, dtype=torch.bool), self.far)
        suspicion = torch.where(kept, 0.0, _OUTLIER).double()
        inside = kept.nonzero().flatten()
        if len(inside) > 2:
            count = clusters_by_gap(points[inside], self.most, self.references, context.rng)
            labels = k_means(points[inside], count)
            alike = torch.tensor([_alike(cosines, inside[labels == one]) for one in range(count)])
            suspicion[inside] = alike.double()[labels]
            kept = torch.zeros(n, dtype=torch.bool)
            kept[inside[labels == int(alike.argmin())]] = True
        odd = kept & ~within_reach(points, kept, self.near)
        kept &= ~odd
        suspicion[odd] = _ODD
        scale, _ = shortening(norms, self.bound)
        out = combine(rows.values, scale * kept / int(kept.sum()))
        return Verdict(out, kept=kept, scale=scale, suspicion=suspicion), None


def two_components(inner: Float[Tensor, "n n"]) -> Float[Tensor, "n 2"]:
    """The rows' first two principal components, from their inner products; the sign is the one that
    makes the cubes sum to more than zero.
    """
    n = len(inner)
    values, vectors = torch.linalg.eigh(about(inner, torch.full((n,), 1 / n, dtype=inner.dtype)))
    points = (vectors * values.clamp(min=0).sqrt()).flip(1)[:, :2]
    points = points * torch.where((points**3).sum(dim=0) < 0, -1.0, 1.0).to(points)
    return points if n > 1 else torch.zeros(n, 2, dtype=inner.dtype)


def within_reach(
    points: Float[Tensor, "n k"], among: Bool[Tensor, " n"], factor: float
) -> Bool[Tensor, " n"]:
    """Which of some points have a sum of distances to the others of at most ``factor`` times the
    median of these sums.
    """
    sums = torch.cdist(points, points[among], compute_mode="donot_use_mm_for_euclid_dist").sum(
        dim=1
    )
    return among & (sums <= factor * midpoint(sums[among]))


def _alike(cosines: Float[Tensor, "n n"], members: Tensor) -> float:
    """The median over some rows of the mean cosine with all of them; 1 of one row alone, and of
    none infinity.
    """
    if len(members) < 2:
        return 1.0 if len(members) else math.inf
    return midpoint(cosines[members][:, members].mean(dim=1))
