"""Rules that split the clients into groups: SignGuard (mean shift), clipped clustering (average linkage), Auror (2-means a coordinate)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from privfl.aggregators.columns import sorted_columns
from privfl.aggregators.cosine import cosines_to
from privfl.aggregators.seats import InHull, MemoryRule, RowRule, combine, majority, mean_of
from privfl.aggregators.verdict import Verdict
from privfl.core import ConfigError, Context, Rows, Vector, require
from privfl.core.geometry import gram, squared_norms


def midpoint(values: Float[Tensor, " n"]) -> float:
    """The median: the midpoint of the two middle values for even n."""
    ordered = values.sort().values
    return float((ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2)


@dataclass(frozen=True, slots=True)
class SignGuardState:
    """The last aggregate [d], or None before there is one."""

    last: Vector | None = None


@dataclass(frozen=True, slots=True)
class SignGuard(InHull, MemoryRule[SignGuardState]):
    """SignGuard (Xu, Huang, Song, Lan 2022, Algorithm 2): trust rows of ordinary length and ordinary signs, clipped to the median norm.

    S1: rows with ``lower`` <= norm / median norm <= ``upper``. S2: the largest mean-shift cluster of the shares of positive, zero and
    negative entries among a random ``share`` of the coordinates (``similarity="cosine"``, SignGuard-Sim, adds the cosine with the last
    aggregate). The mean over S1 and S2 of x min(1, M / ||x||), M the median norm. The norm test looks at the rows as they came, before
    any clipping. Where nobody is in both, the model stays. Row weights are not used. Meant for f < n/2.

    >>> context = Context(None, torch.zeros(2), torch.Generator().manual_seed(0))
    >>> rows = Rows.of([[1.0, 1.0], [1.0, 1.1], [1.1, 1.0], [-1.0, -1.0], [999.0, 999.0]])
    >>> SignGuard(share=1.0).judge_step(rows, SignGuardState(), context)[0].dropped
    (3, 4)
    """

    symmetries: ClassVar[str] = "PS"

    lower: float = 0.1
    upper: float = 3.0
    share: float = 0.1
    similarity: Literal["none", "cosine"] = "none"

    def __post_init__(self) -> None:
        require.positive(share=self.share)
        require.within(0, 1, lower=self.lower, share=self.share)
        require.at_least(1, upper=self.upper)
        if self.similarity not in ("none", "cosine"):
            raise ConfigError(f"similarity is 'none' or 'cosine', and is '{self.similarity}'.")

    def init(self) -> SignGuardState:
        """No aggregate yet."""
        return SignGuardState()

    def stands(self, n: int) -> int:
        """Fewer than half."""
        return majority(n)

    def _decide(self, rows: Rows, lost: int, state: SignGuardState, context: Context) -> tuple[Verdict[Tensor], SignGuardState]:
        norms = squared_norms(rows.values).sqrt().cpu()
        middle = midpoint(norms)
        ordinary = (norms >= self.lower * middle) & (norms <= self.upper * middle)
        picked = torch.randperm(rows.d, generator=context.rng)[: max(round(self.share * rows.d), 1)]
        signs = rows.values[:, picked].sign()
        features = [(signs == sign).double().mean(dim=1).cpu() for sign in (1, 0, -1)]
        if self.similarity == "cosine" and state.last is not None:
            features.append(cosines_to(rows.values, state.last))
        alike = largest_mean_shift_cluster(torch.stack(features, dim=1))
        kept = ordinary & alike
        scale = torch.where(norms > middle, middle / norms.clamp(min=1e-300), torch.ones(()).to(norms))
        out = combine(rows.values, scale * kept / max(int(kept.sum()), 1))
        scores = {"norm": norms, "ordinary_norm": ordinary, "ordinary_signs": alike}
        return Verdict(out, kept=kept, scale=scale, scores=scores), SignGuardState(out)


def largest_mean_shift_cluster(features: Float[Tensor, "n k"]) -> Bool[Tensor, " n"]:
    """The rows of the largest cluster that mean shift finds, with the bandwidth of the authors (median pairwise reach); all, if alike."""
    from sklearn.cluster import MeanShift, estimate_bandwidth

    points = features.numpy()
    width = estimate_bandwidth(points, quantile=0.5) if len(points) > 1 else 0.0
    if not width > 0:  # at least half of the rows look exactly alike: they are the cluster
        alike = (features[:, None] == features).all(dim=2)
        return alike[int(alike.sum(dim=1).argmax())]
    labels = MeanShift(bandwidth=width, bin_seeding=True, cluster_all=False).fit(points).labels_
    named = labels[labels >= 0]
    return torch.from_numpy(np.asarray(labels == np.bincount(named).argmax()))


@dataclass(frozen=True, slots=True)
class NormHistory:
    """The norms of all rows of all rounds so far."""

    norms: Float[Tensor, " m"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))


@dataclass(frozen=True, slots=True)
class ClippedClustering(InHull, MemoryRule[NormHistory]):
    """Clipped clustering (Li, Ngai, Voigt 2023, Algorithm 1): clip to the median of all norms seen, keep the larger of two clusters.

    The clusters are those of average linkage under the distance 1 - cosine. Where both are equally large nothing tells them apart,
    and all rows are kept. Zero rows have cosine 0 with everything. Row weights are not used. Meant for f < n/2.

    >>> context = Context(None, torch.zeros(2), torch.Generator())
    >>> rows = Rows.of([[1.0, 0.0], [1.0, 0.2], [1.0, -0.2], [-9.0, 0.0]])
    >>> ClippedClustering().judge_step(rows, NormHistory(), context)[0].dropped
    (3,)
    """

    symmetries: ClassVar[str] = "PSR"

    def init(self) -> NormHistory:
        """No norms yet."""
        return NormHistory()

    def stands(self, n: int) -> int:
        """Fewer than half."""
        return majority(n)

    def _decide(self, rows: Rows, lost: int, state: NormHistory, context: Context) -> tuple[Verdict[Tensor], NormHistory]:
        inner = gram(rows.values, exact=True).cpu()
        norms = inner.diagonal().clamp(min=0).sqrt()
        seen = torch.cat([state.norms, norms])
        bound = midpoint(seen)
        scale = torch.where(norms > bound, bound / norms.clamp(min=1e-300), torch.ones(()).to(norms))
        kept = torch.ones(rows.n, dtype=torch.bool)
        if rows.n > 2:
            unit = torch.where(norms > 0, 1 / norms.clamp(min=1e-300), torch.zeros(()).to(norms))
            apart = (1 - unit[:, None] * inner * unit).clamp(0, 2).fill_diagonal_(0)
            labels = fcluster(linkage(squareform(apart.numpy(), checks=False), "average"), 2, "maxclust")
            sizes = np.bincount(labels, minlength=3)
            if sizes[1] != sizes[2]:
                kept = torch.from_numpy(np.asarray(labels == sizes.argmax()))
        out = combine(rows.values, scale * kept / int(kept.sum()))
        return Verdict(out, kept=kept, scale=scale, scores={"norm": norms, "bound": torch.tensor(bound)}), NormHistory(seen)


@dataclass(frozen=True, slots=True)
class Auror(InHull, RowRule):
    """Auror (Shen, Tople, Saxena 2016): drop the clients that fall in the minority cluster of most indicative coordinates.

    Every coordinate is split in two by exact 1-D 2-means; it is indicative where the centres are at least ``alpha`` apart (alpha has the
    rows' unit: scale it with them). A client in the smaller cluster of more than ``share`` of the indicative coordinates is dropped; the
    mean of the others. Equal halves have no minority. Row weights are not used. Meant for f < n/2.

    >>> Auror(alpha=1.0)(Rows.of([[0.0, 0.0], [0.1, 0.1], [0.2, 0.2], [9.0, 9.0]]))
    tensor([0.1000, 0.1000])
    """

    symmetries: ClassVar[str] = "PT"

    alpha: float = 0.1
    share: float = 0.5

    def __post_init__(self) -> None:
        require.positive(alpha=self.alpha)
        require.within(0, 1, share=self.share)

    def stands(self, n: int) -> int:
        """Fewer than half."""
        return majority(n)

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        n = rows.n
        indicative, minor = 0, torch.zeros(n, dtype=torch.int64)
        for where, columns in sorted_columns(rows.values):
            if n < 3:
                break
            low, gap, below = split_in_two(columns)
            told = gap >= self.alpha
            indicative += int(told.sum())
            values = rows.values[:, where]
            high_side = values > low
            minor += ((high_side & (below * 2 > n)) | (~high_side & (below * 2 < n)))[:, told].sum(dim=1).cpu()
        kept = minor <= self.share * indicative
        return Verdict(mean_of(rows.values, kept), kept=kept, scores={"minority": minor, "indicative": torch.tensor(indicative)})


def split_in_two(columns: Float[Tensor, "b n"]) -> tuple[Tensor, Tensor, Tensor]:
    """The 2-means split of each sorted column: the largest value of the lower cluster, the gap between centres, the lower one's size."""
    n = columns.shape[1]
    centred = columns.to(torch.float64)
    centred = centred - centred.mean(dim=1, keepdim=True)
    sizes = torch.arange(1, n, dtype=torch.float64, device=columns.device)
    lower = centred.cumsum(dim=1)[:, :-1]
    between = lower**2 * (1 / sizes + 1 / (n - sizes))  # centred columns: the upper sum is minus the lower one
    cut = between.argmax(dim=1, keepdim=True)
    k = cut + 1
    total = lower.gather(1, cut)
    gap = -total / (n - k) - total / k
    return columns.gather(1, cut)[:, 0], gap[:, 0], k[:, 0]
