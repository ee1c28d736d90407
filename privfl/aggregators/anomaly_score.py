"""The anomaly score, "3 sigma": drop the rows whose distance from a robust centre is far over what
is usual.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privfl.aggregators.base import Before, finite_rows
from privfl.aggregators.geometric_median import geometric_median
from privfl.aggregators.verdict import Verdict
from privfl.core import ConfigError, Context, Rows, require
from privfl.core.geometry import centred_gram


@dataclass(frozen=True, slots=True)
class AnomalyScoreState:
    """The scores of all rows that were kept so far."""

    scores: Float[Tensor, " m"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))


@dataclass(frozen=True, slots=True)
class AnomalyScore(Before[AnomalyScoreState]):
    """Before the rule, drop the rows that lie farther than mean + k std from the geometric median.

    Mean and standard deviation are those of the rows kept in earlier rounds, once there are at
    least as many as rows now; before that, of the rows themselves. Among n numbers no one exceeds
    mean + k std where k >= (n - 1) / sqrt(n): three sigma never fire for n <= 10, and that is
    refused rather than silently idle. Far rows hide one another: where a share of 1 / (1 + k^2) of
    the rows (a fifth for k = 2) lie equally far out, none of them exceeds mean + k std. Rows that
    are not finite are dropped. Row weights are handed on.

    Raises:
        ConfigError: in the first round, k is so large for n that nothing could be dropped.

    >>> context = Context(None, torch.zeros(1), torch.Generator())
    >>> rows = Rows.of([[0.0], [1.0], [2.0], [3.0], [4.0], [99.0]])
    >>> AnomalyScore(k=1.5).judge_before(rows, AnomalyScore().init(), context)[0].words(rows.ids)
    'dropped 1 of 6: 5'
    """

    accuses: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    k: float = 2.0

    def __post_init__(self) -> None:
        require.positive(k=self.k)

    def init(self) -> AnomalyScoreState:
        """No scores yet."""
        return AnomalyScoreState()

    def passes(self, n: int) -> int:
        """All, at most.

        Raises:
            ConfigError: k is so large that no row of n could be dropped in the first round.
        """
        if n > 1 and self.k >= (n - 1) / n**0.5:
            raise ConfigError(
                f"AnomalyScore with k={self.k} cannot drop any of {n} rows in the first round: no"
                f" z-score of {n} numbers exceeds {(n - 1) / n**0.5:.3g}. Lower k."
            )
        return n

    def judge_before(
        self, rows: Rows, state: AnomalyScoreState, context: Context
    ) -> tuple[Verdict[Rows], AnomalyScoreState]:
        """The rows that are not anomalous; the state gains their scores."""
        finite = finite_rows(rows.values)
        there = rows if bool(finite.all()) else rows.take(finite.nonzero().flatten())
        n = there.n
        if n == 0:
            return Verdict(there, kept=finite), state
        inner = centred_gram(there.values).cpu()
        at = geometric_median(inner, torch.ones(n, dtype=torch.float64), 1e-9, 10_000)
        scores = (inner.diagonal() - 2 * (inner @ at) + at @ inner @ at).clamp(min=0).sqrt()
        usual = state.scores if len(state.scores) >= n else scores
        if usual is scores:
            self.passes(n)
        normal = scores <= usual.mean() + self.k * usual.std(correction=0) + 1e-12 * scores.max()
        kept = finite.clone()
        kept[finite] = normal
        verdict = Verdict(
            there.take(normal.nonzero().flatten()),
            kept=kept,
            suspicion=_spread_out(scores, finite, math.inf),
            scores={"score": _spread_out(scores, finite, math.nan)},
        )
        return verdict, AnomalyScoreState(torch.cat([state.scores, scores[normal]]))


def _spread_out(
    scores: Float[Tensor, " m"], finite: Bool[Tensor, " n"], otherwise: float
) -> Float[Tensor, " n"]:
    """The scores of finite rows among all n."""
    wide = torch.full((len(finite),), otherwise, dtype=torch.float64)
    wide[finite] = scores
    return wide
