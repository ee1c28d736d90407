"""Clipped clustering: the larger of two clusters of directions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.base import MemoryRule, combine, majority
from privfl.aggregators.clipping import shortening
from privfl.aggregators.columns import midpoint
from privfl.aggregators.verdict import Verdict
from privfl.core import Context, Rows
from privfl.core.geometry import gram


@dataclass(frozen=True, slots=True)
class NormHistory:
    """The norms of all rows of all rounds so far."""

    norms: Float[Tensor, " m"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))


@dataclass(frozen=True, slots=True)
class ClippedClustering(MemoryRule[NormHistory]):
    """Clipped clustering (Li, Ngai, Voigt 2023, Algorithm 1): clip to the median of all norms seen,
    keep the larger of two clusters.

    The clusters are those of average linkage under the distance 1 - cosine. Where both are equally
    large nothing tells them apart, and all rows are kept. Zero rows have cosine 0 with everything.
    Row weights are not used. Meant for f < n/2. No sensitivity is proved: the norms of all rows so
    far speak in every later round.

    >>> context = Context(None, torch.zeros(2), torch.Generator())
    >>> rows = Rows.of([[1.0, 0.0], [1.0, 0.2], [1.0, -0.2], [-9.0, 0.0]])
    >>> ClippedClustering().judge_step(rows, NormHistory(), context)[0].dropped
    (3,)
    """

    accuses: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    symmetries: ClassVar[str] = "PSR"

    def init(self) -> NormHistory:
        """No norms yet."""
        return NormHistory()

    def max_byzantine(self, n: int) -> int:
        """Fewer than half."""
        return majority(n)

    def _decide(
        self, rows: Rows, lost: int, state: NormHistory, context: Context
    ) -> tuple[Verdict[Tensor], NormHistory]:
        from scipy.cluster.hierarchy import fcluster, linkage
        from scipy.spatial.distance import squareform

        inner = gram(rows.values, exact=True).cpu()
        norms = inner.diagonal().clamp(min=0).sqrt()
        seen = torch.cat([state.norms, norms])
        scale, bound = shortening(norms, midpoint(seen))
        kept, suspicion = torch.ones(rows.n, dtype=torch.bool), torch.zeros_like(norms)
        if rows.n > 2:
            unit = torch.where(norms > 0, 1 / norms.clamp(min=1e-300), torch.zeros(()).to(norms))
            apart = (1 - unit[:, None] * inner * unit).clamp(0, 2).fill_diagonal_(0)
            labels = fcluster(
                linkage(squareform(apart.numpy(), checks=False), "average"), 2, "maxclust"
            )
            sizes = np.bincount(labels, minlength=3)
            if sizes[1] != sizes[2]:
                kept = torch.from_numpy(np.asarray(labels == sizes.argmax()))
            others = (kept.sum() - kept.to(torch.int64)).clamp(min=1)
            suspicion = apart[:, kept].sum(dim=1) / others
        out = combine(rows.values, scale * kept / int(kept.sum()))
        scores = {"norm": norms, "bound": torch.tensor(bound)}
        verdict = Verdict(out, kept=kept, scale=scale, suspicion=suspicion, scores=scores)
        return verdict, NormHistory(seen)
