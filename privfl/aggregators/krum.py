"""Krum and Multi-Krum (Blanchard, El Mhamdi, Guerraoui, Stainer 2017): the updates that lie closest
to their neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from privfl.aggregators.base import InHull, RowRule, mask, mean_of
from privfl.aggregators.verdict import Verdict
from privfl.core import Rows, TooManyByzantine, require
from privfl.core.geometry import squared_distances


def krum_scores(squared: Float[Tensor, "n n"], f: int) -> Float[Tensor, " n"]:
    """Each row's sum of squared distances to its n - f - 2 nearest neighbours, itself excluded."""
    n = len(squared)
    nearest = squared.sort(dim=1).values[:, 1 : max(n - f - 1, 1)]  # column 0 is the row itself
    return nearest.sum(dim=1)


@dataclass(frozen=True, slots=True)
class Krum(InHull, RowRule):
    """Average the ``m`` updates with the smallest sum of squared distances to their n - f - 2
    nearest neighbours.

    ``m=1`` is Krum, ``m>1`` Multi-Krum. Tolerates ``f`` Byzantine updates where n > 2f + 2
    (Proposition 4.2) and m <= n - f - 2, so that the rows chosen can be outnumbered by honest ones.
    Row weights are not used.

    >>> Krum(f=1)(
    ...     Rows.of([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [0.1, 0.1], [9.0, 9.0]])
    ... ).norm() < 0.2
    tensor(True)
    """

    f: int = 1
    m: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)
        require.at_least(1, m=self.m)

    def max_byzantine(self, n: int) -> int:
        """f, where n > 2f + 2 and m <= n - f - 2."""
        require.honest_majority(rule="Krum", n=n, f=self.f, at_least=2 * self.f + 3)
        if self.m > n - self.f - 2:
            raise TooManyByzantine(
                f"Krum averages at most n - f - 2 = {n - self.f - 2} updates of {n} with"
                f" f={self.f}, and m={self.m}."
            )
        return self.f

    def select(self, values: Float[Tensor, "n d"]) -> Int[Tensor, " m"]:
        """Positions of the ``m`` chosen rows of finite values, best first.

        Raises:
            TooManyByzantine: n <= 2f + 2, or m > n - f - 2.
        """
        self.max_byzantine(len(values))
        return krum_scores(squared_distances(values), self.f).argsort(stable=True)[: self.m]

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        scores = krum_scores(squared_distances(rows.values), max(self.f - lost, 0))
        chosen = scores.argsort(stable=True)[: self.m]
        return Verdict(
            mean_of(rows.values, chosen.cpu()),
            kept=mask(rows.n, chosen.cpu()),
            scores={"score": scores},
        )
