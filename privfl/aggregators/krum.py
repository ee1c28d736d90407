"""Krum and Multi-Krum (Blanchard, El Mhamdi, Guerraoui, Stainer 2017): the updates that lie closest
to their neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from privfl.aggregators.base import InHull, RowRule, mask, mean_of
from privfl.aggregators.verdict import Verdict
from privfl.core import Examples, Rows, TooManyByzantine, require
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
    (Proposition 4.2; for m <= n - f - 2: Damaskinos et al. 2019). m may be up to n - f, as other
    libraries have it. No such proof covers the last two; they do bounded harm, for each of the
    n - f honest rows has n - f - 2 honest neighbours, and a liar is chosen in an honest row's place
    only with a smaller sum of distances, two of which at least are to honest rows. Row weights are
    not used.

    >>> Krum(f=1)(
    ...     Rows.of([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [0.1, 0.1], [9.0, 9.0]])
    ... ).norm() < 0.2
    tensor(True)
    """

    told_f: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {
        "": {"f": 3},
        "multi": {"f": 3, "m": 4},
        "most": {"f": 3, "m": 11},
    }

    f: int = 1
    m: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)
        require.at_least(1, m=self.m)

    def max_byzantine(self, n: int) -> int:
        """f, where n > 2f + 2 and m <= n - f.

        Raises:
            TooManyByzantine: n < 2f + 3, or m > n - f.
        """
        require.honest_majority(rule="Krum", n=n, f=self.f, at_least=2 * self.f + 3)
        if self.m > n - self.f:
            raise TooManyByzantine(
                f"Krum averages at most n - f = {n - self.f} updates of {n} with f={self.f}, and"
                f" m={self.m}: lower m."
            )
        return self.f

    def select(self, values: Float[Tensor, "n d"]) -> Int[Tensor, " m"]:
        """Positions of the ``m`` chosen rows of finite values, best first.

        Raises:
            TooManyByzantine: n <= 2f + 2, or m > n - f.
        """
        self.max_byzantine(len(values))
        return krum_scores(squared_distances(values), self.f).argsort(stable=True)[: self.m]

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        scores = krum_scores(squared_distances(rows.values), max(self.f - lost, 0))
        chosen = scores.argsort(stable=True)[: self.m]
        return Verdict(
            mean_of(rows.values, chosen.cpu()),
            kept=mask(rows.n, chosen.cpu()),
            suspicion=scores.cpu(),
            scores={"score": scores},
        )
