"""Multi-metrics: the models that three distances together find nearest to all others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.base import combine, mask
from privfl.aggregators.clipping import shortening
from privfl.aggregators.cut import CutInHull
from privfl.aggregators.model_distances import cosine_distances_of_models, norms_of_models
from privfl.aggregators.verdict import Verdict
from privfl.core import Context, Examples, Rows, require
from privfl.core.geometry import BLOCK, squared_norms

_SINGULAR = 1e-12


@dataclass(frozen=True, slots=True)
class MultiMetrics(CutInHull):
    """Multi-metrics (Huang, Li, Chen, Shi, Xu 2023): average the floor(p n) models of least
    Mahalanobis length of three summed distances to all others.

    x_i = (sum_j (1 - cos_ij)^2, sum_j ||m_i - m_j||_1, sum_j | ||m_i|| - ||m_j|| |) over the models
    m_i = w + u_i, as the authors' code has it; the score is sqrt(x_i' S^-1 x_i) with the features'
    covariance S over the rows (its pseudo-inverse where rows agree), not centred, so that a model
    that is near all others in every sense scores least. At least one row is averaged. It selects a
    fixed share (30 % in the paper), so that 70 % of honest clients are left out as well, and nobody
    is accused. Meant for f < n/2. Row weights are not used. O(n^2 d).

    Rows are cut to ``bound`` before they are averaged, to the median norm of all rows where it is
    None: where many lie far apart together, the selected ones may be theirs. inf is the paper's.

    >>> context = Context(None, torch.ones(2), torch.Generator())
    >>> rows = Rows.of([[0.1, 0.0], [0.0, 0.1], [0.1, 0.1], [0.0, 0.0], [-5.0, 9.0]])
    >>> 4 in MultiMetrics(p=0.5).judge_step(rows, None, context)[0].dropped
    True
    """

    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {"": {}, "half": {"p": 0.5}}
    symmetries: ClassVar[str] = "P"

    p: float = 0.3
    bound: float | None = None

    def __post_init__(self) -> None:
        require.positive(p=self.p)
        require.within(0, 1, p=self.p)
        self.require_bound()

    def _decide(
        self, rows: Rows, lost: int, state: None, context: Context
    ) -> tuple[Verdict[Tensor], None]:
        lengths = norms_of_models(rows.values, context.parameters)
        cosine = cosine_distances_of_models(rows.values, context.parameters, lengths)
        features = torch.stack(
            [
                cosine.square().sum(dim=1),
                _manhattan(rows.values).sum(dim=1),
                lengths[1].abs().sum(dim=1),
            ],
            dim=1,
        )
        scores = mahalanobis_lengths(features)
        chosen = scores.argsort(stable=True)[: max(math.floor(self.p * rows.n), 1)]
        kept = mask(rows.n, chosen)
        norms = squared_norms(rows.values).sqrt().cpu()
        scale, _ = shortening(norms, self.bound)
        named = zip(("cosine", "manhattan", "length"), features.T, strict=True)
        verdict = Verdict(
            combine(rows.values, scale * kept / len(chosen)),
            kept=kept,
            scale=scale,
            suspicion=scores,
            scores=dict(named),
        )
        return verdict, None


def mahalanobis_lengths(features: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """sqrt(x' S^-1 x) of each row x, S the rows' covariance; directions in which the rows do not
    differ do not count.
    """
    spread = features.std(dim=0) if len(features) > 1 else torch.zeros_like(features[0])
    told = spread > _SINGULAR * features.abs().amax(dim=0)
    if not bool(told.any()):
        return torch.zeros(len(features), dtype=features.dtype)
    scaled = features[:, told] / spread[told]
    around = scaled - scaled.mean(dim=0)
    covariance = around.T @ around / (len(scaled) - 1)
    inverse = torch.linalg.pinv(covariance, hermitian=True, rtol=_SINGULAR)
    lengths: Tensor = ((scaled @ inverse) * scaled).sum(dim=1).clamp(min=0).sqrt()
    return lengths


def _manhattan(values: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """L1 distances of all pairs, each pair once, summed over blocks in float64."""
    n, d = values.shape
    above = torch.zeros(n * (n - 1) // 2, dtype=torch.float64, device=values.device)
    for start in range(0, d, BLOCK):
        part = values[:, start : start + BLOCK]
        part = part if part.dtype == torch.float64 else part.float()
        above += torch.pdist(part.contiguous(), p=1.0)
    total = torch.zeros(n, n, dtype=torch.float64)
    first, second = torch.triu_indices(n, n, offset=1)
    total[first, second] = total[second, first] = above.cpu()
    return total
