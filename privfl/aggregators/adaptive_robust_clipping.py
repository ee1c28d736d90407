"""Adaptive robust clipping before a rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privfl.aggregators.base import Before
from privfl.aggregators.clipping import clipped
from privfl.aggregators.verdict import Verdict
from privfl.core import UNPROVED, Context, Memory, Moves, Neighbours, Rows, require
from privfl.core.geometry import squared_norms


@dataclass(frozen=True, slots=True)
class AdaptiveRobustClipping(Before[None]):
    """Clip the k = floor(2 f (n - f) / n) longest rows to the length of the next one (Allouah et
    al. 2025, Algorithm 2: ARC).

    Keeps a rule's robustness, where n > 2f, and bounds what the longest rows add. Rows that are not
    finite count among the longest and pass through, to be met by the rule.

    >>> context = Context(None, torch.zeros(1), torch.Generator())
    >>> AdaptiveRobustClipping(f=1).before(Rows.of([[1.0], [2.0], [3.0], [99.0]]), None, context)[
    ...     0
    ... ].values.T
    tensor([[1., 2., 3., 3.]])
    """

    memory: ClassVar[Memory] = "none"

    f: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def init(self) -> None:
        """Nothing is remembered."""
        return

    def passes(self, n: int) -> int:
        """All, where n > 2f."""
        require.honest_majority(
            rule="AdaptiveRobustClipping", n=n, f=self.f, at_least=2 * self.f + 1
        )
        return n

    def stability(self, moves: Moves, neighbours: Neighbours) -> Moves:
        """What entered and k C more, over all rows of length at most C; k more rows move. Under
        add_remove, which changes n and with it k, nothing is proved.

        Let B and B' <= B be the lengths clipped to in the two worlds: order statistics of lengths
        in [0, C], so B - B' <= C. Row by row, P_B(x) and P_B'(x') lie at most |x - x'| + |P_B(x') -
        P_B'(x')| apart, and the second term, at most B - B', is not zero only where x' is longer
        than B', of which there are at most k.
        """
        n = moves.rows
        if n is None or n <= 2 * self.f or neighbours.relation == "add_remove":
            return UNPROVED
        k = self._longest(n)
        return Moves(moves.total + k * moves.longest, moves.longest, min(moves.changed + k, n), n)

    def _longest(self, n: int) -> int:
        """How many rows are clipped."""
        return 2 * self.f * (n - self.f) // n

    def judge_before(self, rows: Rows, state: None, context: Context) -> tuple[Verdict[Rows], None]:
        """The rows, clipped.

        Raises:
            TooManyByzantine: n <= 2f.
        """
        self.passes(rows.n)
        norms = squared_norms(rows.values).sqrt().nan_to_num(nan=torch.inf)
        longest = norms.sort(descending=True).values
        bound = float(longest[self._longest(rows.n)])
        return (clipped(rows, bound) if bound < torch.inf else Verdict(rows)), None
