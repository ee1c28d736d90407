"""SignGuard: ordinary length, ordinary signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from privfl.aggregators.angles import cosines_to
from privfl.aggregators.base import InHull, MemoryRule, combine, majority
from privfl.aggregators.clipping import shortening
from privfl.aggregators.mean_shift import largest_cluster
from privfl.aggregators.verdict import Verdict
from privfl.core import ConfigError, Context, Examples, Memory, Rows, require
from privfl.core.geometry import BLOCK, squared_norms


@dataclass(frozen=True, slots=True)
class SignGuard(InHull, MemoryRule[None]):
    """SignGuard (Xu, Huang, Song, Lan 2022, Algorithm 2): trust rows of ordinary length and
    ordinary signs, clipped to the median norm.

    S1: rows with ``lower`` <= norm / median norm <= ``upper``. S2: the largest mean-shift cluster
    of the shares of positive, zero and negative entries among a random ``share`` of the coordinates
    (``similarity="cosine"``, SignGuard-Sim, adds the cosine with what was released last). The mean
    over S1 and S2 of x min(1, M / ||x||), M the median norm. The norm test looks at the rows as
    they came, before any clipping. Where nobody is in both, the model stays. Row weights are not
    used. Meant for f < n/2.

    The features are the shares and the cosine themselves, as the paper has them. The authors' code
    divides each share by its largest and squeezes the cosine into [0, 1/5]; of nearly no zeros that
    makes the feature that decides, and on unlike clients' updates of a small network it found fewer
    liars and dropped more honest rows under every attack tried.

    Raises:
        ConfigError: an unknown similarity, or a number out of range.

    >>> context = Context(None, torch.zeros(2), torch.Generator().manual_seed(0))
    >>> rows = Rows.of([[1.0, 1.0], [1.0, 1.1], [1.1, 1.0], [-1.0, -1.0], [999.0, 999.0]])
    >>> SignGuard(share=1.0).judge_step(rows, None, context)[0].dropped
    (3, 4)
    """

    accuses: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {"": {"share": 1.0}}
    symmetries: ClassVar[str] = "PS"
    memory: ClassVar[Memory] = "none"

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

    def init(self) -> None:
        """Nothing beside what was released."""
        return

    def max_byzantine(self, n: int) -> int:
        """Fewer than half."""
        return majority(n)

    def _decide(
        self, rows: Rows, lost: int, state: None, context: Context
    ) -> tuple[Verdict[Tensor], None]:
        norms = squared_norms(rows.values).sqrt().cpu()
        scale, middle = shortening(norms)
        ordinary = (norms >= self.lower * middle) & (norms <= self.upper * middle)
        picked = torch.randperm(rows.d, generator=context.rng)[: max(round(self.share * rows.d), 1)]
        counts = torch.zeros(rows.n, 3, dtype=torch.int64)
        for start in range(0, len(picked), BLOCK):
            part = rows.values[:, picked[start : start + BLOCK]]
            counts += torch.stack(
                [(part > 0).sum(dim=1), (part == 0).sum(dim=1), (part < 0).sum(dim=1)], dim=1
            ).cpu()
        features = list((counts.to(torch.float64) / len(picked)).T)
        last = context.last if self.similarity == "cosine" else None
        if last is not None:
            features.append(cosines_to(rows.values, last))
        alike = largest_cluster(torch.stack(features, dim=1))
        kept = ordinary & alike
        out = combine(rows.values, scale * kept / max(int(kept.sum()), 1))
        scores = {"norm": norms, "ordinary_norm": ordinary, "ordinary_signs": alike}
        failed = (~ordinary).double() + (~alike).double()
        return Verdict(out, kept=kept, scale=scale, suspicion=failed, scores=scores), None
