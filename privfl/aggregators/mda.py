"""Minimum-diameter averaging (El Mhamdi, Guerraoui, Rouault 2018): the mean of the n - f rows that
lie closest together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.base import InHull, RowRule, mask, mean_of
from privfl.aggregators.verdict import Verdict
from privfl.core import ConfigError, Examples, Rows, require
from privfl.core.geometry import squared_distances

NODES = 1_000_000


class _Search:
    """Row sets that cover every pair farther apart than a limit: dropping them leaves a set of at
    most that diameter.
    """

    def __init__(self, squared: Float[Tensor, "n n"], nodes: int) -> None:
        self.squared = squared.numpy()
        self.n = len(squared)
        self.nodes = nodes

    def too_far(self, limit: float) -> list[int]:
        """For each row the bits of the rows farther than ``limit``."""
        far = self.squared > limit
        return [sum(1 << int(j) for j in row.nonzero()[0]) for row in far]

    def covers(
        self, far: list[int], dropped: int, left: int, found: list[int], *, every: bool
    ) -> None:
        """Append covers (as bits) with at most ``left`` more rows than ``dropped``; stop at the
        first unless ``every`` is set.
        """
        self.nodes -= 1
        if self.nodes < 0:
            raise ConfigError(
                f"MDA: the exact search over {self.n} rows is too long; use GreedyMDA, at most"
                " twice the least diameter."
            )
        kept = ((1 << self.n) - 1) & ~dropped
        degrees = [(far[i] & kept).bit_count() if kept >> i & 1 else 0 for i in range(self.n)]
        most = max(degrees)
        if most == 0:
            found.append(dropped)
            return
        if sum(degrees) > 2 * left * most:
            return
        row = degrees.index(most)
        self.covers(far, dropped | 1 << row, left - 1, found, every=every)
        if most <= left and most > 0 and (every or not found):
            self.covers(far, dropped | far[row] & kept, left - most, found, every=every)

    def spread(self, kept: list[int]) -> float:
        """The sum of squared distances inside a set."""
        return float(self.squared[kept][:, kept].sum())

    def rows(self, dropped: int, f: int) -> list[int]:
        """The rows that stay, after dropping up to f: where the cover leaves a choice, whose loss
        lessens the spread most.
        """
        kept = [i for i in range(self.n) if not dropped >> i & 1]
        while len(kept) > self.n - f:
            kept.pop(int(self.squared[kept][:, kept].sum(axis=1).argmax()))
        return kept


def least_diameter(squared: Float[Tensor, "n n"], f: int, nodes: int = NODES) -> list[int]:
    """The n - f rows of least diameter; of several such sets the one with the least sum of squared
    distances.

    Binary search over the distances; each asks whether f rows cover all pairs farther apart (branch
    and bound on the row with most such pairs: drop it, or drop all of its partners).

    Raises:
        ConfigError: the search visited more than ``nodes`` nodes.
    """
    search = _Search(squared, nodes)
    limits = sorted(set(squared.flatten().tolist()))
    low, high = 0, len(limits) - 1  # the largest distance always does
    while low < high:
        half = (low + high) // 2
        found: list[int] = []
        search.covers(search.too_far(limits[half]), 0, f, found, every=False)
        low, high = (low, half) if found else (half + 1, high)
    found = []
    search.covers(search.too_far(limits[low]), 0, f, found, every=True)
    return min((search.rows(dropped, f) for dropped in set(found)), key=search.spread)


@dataclass(frozen=True, slots=True)
class MDA(InHull, RowRule):
    """Average the n - f rows of least diameter, found exactly by branch and bound.

    Tolerates f < n/2 (the "brute" rule of El Mhamdi et al. 2018, Section 3; ByzFL and Garfield call
    it MDA). Where several sets share the least diameter, the one with the least sum of squared
    distances wins. Row weights are not used. The worst case is exponential in f: past a million
    search nodes it refuses and points to `GreedyMDA`.

    >>> round(float(MDA(f=1)(Rows.of([[0.0], [0.5], [0.2], [7.0]])) * 30), 3)
    7.0
    """

    told_f: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {"": {"f": 3}}

    f: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def max_byzantine(self, n: int) -> int:
        """f, where n > 2f."""
        require.honest_majority(rule="MDA", n=n, f=self.f, at_least=2 * self.f + 1)
        return self.f

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        squared = squared_distances(rows.values).cpu()
        chosen = torch.tensor(least_diameter(squared, max(self.f - lost, 0)))
        return Verdict(
            mean_of(rows.values, chosen),
            kept=mask(rows.n, chosen),
            suspicion=squared[:, chosen].max(dim=1).values.sqrt(),
        )
