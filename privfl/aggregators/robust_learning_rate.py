"""The robust learning rate: the mean, turned where signs disagree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from privfl.aggregators.base import InHull, RowRule, combine
from privfl.aggregators.clipping import shortening
from privfl.aggregators.sign_majority import sign_votes
from privfl.aggregators.verdict import Verdict
from privfl.core import Rows, require
from privfl.core.geometry import squared_norms


@dataclass(frozen=True, slots=True)
class RobustLearningRate(InHull, RowRule):
    """The mean, with its sign turned in coordinates where fewer than ``theta`` signs agree (Ozdayi,
    Kantarcioglu, Gel 2021).

    Coordinate j moves by +rate mean_j where |sum_i sign(x_ij)| >= theta, otherwise by -rate mean_j.
    Backdoors that fewer than theta clients push are unlearned; choose f < theta (Section 4) and
    theta <= n. The paper clips beside it, for a far row drags the mean whatever the signs: rows are
    cut to ``bound`` before they are averaged, to the median norm of all rows where it is None; inf
    cuts nothing. The mean USES row weights, the vote does not.

    >>> RobustLearningRate(theta=3)(Rows.of([[1.0, 1.0], [1.0, 1.0], [1.0, -1.0]])) * 3
    tensor([ 3., -1.])
    """

    symmetries: ClassVar[str] = "PS"

    theta: int = 4
    rate: float = 1.0
    bound: float | None = None

    def __post_init__(self) -> None:
        require.at_least(1, theta=self.theta)
        require.within(0, 1, rate=self.rate)
        if self.bound is not None:
            require.positive(bound=self.bound)

    def max_byzantine(self, n: int) -> int:
        """Fewer than theta.

        Raises:
            TooManyByzantine: theta > n, so that every coordinate would always be turned.
        """
        require.honest_majority(
            rule="RobustLearningRate (theta is its f + 1)",
            n=n,
            f=self.theta - 1,
            at_least=self.theta,
        )
        return min(self.theta - 1, n - 1)

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        norms = squared_norms(rows.values).sqrt().cpu()
        scale, _ = shortening(norms, self.bound)
        mean = combine(rows.values, scale * (rows.weights / rows.weights.sum()).to(scale))
        turned = sign_votes(rows.values).abs() < self.theta - lost
        out = torch.where(turned, -mean, mean) * self.rate
        scores = {"turned": turned.sum(), "norm": norms}
        return Verdict(out, scale=scale, touched=int(turned.sum()), scores=scores)
