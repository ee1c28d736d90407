"""Rules that count signs: the majority vote (signSGD) and the robust learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from privfl.aggregators.seats import InHull, RowRule, combine, majority
from privfl.aggregators.verdict import Verdict
from privfl.core import Rows, require

_BLOCK = 1 << 14


def sign_votes(values: Tensor) -> Tensor:
    """The sum of signs [d] of the rows, a coordinate at a time; a zero entry does not vote."""
    out = torch.empty(values.shape[1], dtype=torch.float32, device=values.device)
    for start in range(0, values.shape[1], _BLOCK):
        out[start : start + _BLOCK] = values[:, start : start + _BLOCK].sign().sum(dim=0)
    return out


@dataclass(frozen=True, slots=True)
class SignMajority(RowRule):
    """The sign of the sum of signs, times ``step`` (Bernstein, Wang, Azizzadenesheli, Anandkumar 2018): majority vote; a tie is 0.

    Stands f < n/2 where honest clients agree on the sign (Bernstein et al. 2019, Theorem 2). Length does not count, and row weights are
    not used. No finite sensitivity without d: one vote can turn every coordinate, 2 step sqrt(d).

    >>> SignMajority()(Rows.of([[1.0, 0.0], [2.0, -1.0], [-9.0, 1.0]]))
    tensor([1., 0.])
    """

    symmetries: ClassVar[str] = "P"

    step: float = 1.0

    def __post_init__(self) -> None:
        require.positive(step=self.step)

    def stands(self, n: int) -> int:
        """Fewer than half."""
        return majority(n)

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        return Verdict(sign_votes(rows.values).sign().to(rows.values) * self.step, touched=rows.d)


@dataclass(frozen=True, slots=True)
class RobustLearningRate(InHull, RowRule):
    """The mean, with its sign turned in coordinates where fewer than ``theta`` signs agree (Ozdayi, Kantarcioglu, Gel 2021).

    Coordinate j moves by +rate mean_j where |sum_i sign(x_ij)| >= theta, otherwise by -rate mean_j. Backdoors that fewer than theta clients
    push are unlearned; choose f < theta (Section 4) and theta <= n. A long row still drags the mean: clip before it. The mean USES row
    weights, the vote does not.

    >>> RobustLearningRate(theta=3)(Rows.of([[1.0, 1.0], [1.0, 1.0], [1.0, -5.0]]))
    tensor([1., 1.])
    """

    symmetries: ClassVar[str] = "PS"

    theta: int = 4
    rate: float = 1.0

    def __post_init__(self) -> None:
        require.at_least(1, theta=self.theta)
        require.within(0, 1, rate=self.rate)

    def stands(self, n: int) -> int:
        """Fewer than theta.

        Raises:
            TooManyByzantine: theta > n, so that every coordinate would always be turned.
        """
        require.honest_majority(rule="RobustLearningRate (theta is its f + 1)", n=n, f=self.theta - 1, at_least=self.theta)
        return min(self.theta - 1, n - 1)

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        mean = combine(rows.values, rows.weights / rows.weights.sum())
        turned = sign_votes(rows.values).abs() < self.theta - lost
        out = torch.where(turned, -mean, mean) * self.rate
        return Verdict(out, touched=int(turned.sum()), scores={"turned": turned.sum()})
