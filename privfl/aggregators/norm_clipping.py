"""Norm clipping with weak noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privfl.aggregators.base import After, Before
from privfl.aggregators.clipping import clipped, clipped_moves
from privfl.aggregators.verdict import Verdict
from privfl.core import (
    Context,
    DefenceSeat,
    Memory,
    Moves,
    Neighbours,
    Released,
    Rows,
    Vector,
    require,
)


@dataclass(frozen=True, slots=True)
class NormClipping(Before[None], After[None]):
    """Norm clipping with weak noise (Sun, Kairouz, Suresh, McMahan 2019, Section 4): x / max(1,
    ||x|| / bound), then N(0, sigma^2) once.

    Fills two seats: it clips before the rule and adds the noise to the aggregate, once, from the
    run's simulation randomness. The noise is weak on purpose: no differential privacy follows
    (`privfl.dp` has mechanisms). Bounds what any liar moves a mean by to 2 bound / n.

    >>> context = Context(None, torch.zeros(2), torch.Generator())
    >>> NormClipping(bound=5.0).before(Rows.of([[30.0, 40.0], [3.0, 0.0]]), None, context)[0].values
    tensor([[3., 4.],
            [3., 0.]])
    """

    seats: ClassVar[frozenset[DefenceSeat]] = frozenset({"before", "after"})
    memory: ClassVar[Memory] = "none"

    bound: float = 1.0
    sigma: float = 0.0

    def __post_init__(self) -> None:
        require.positive(bound=self.bound)
        require.at_least(0, sigma=self.sigma)

    def init(self) -> None:
        """Nothing is remembered."""
        return

    def stability(self, moves: Moves, neighbours: Neighbours) -> Moves:
        """Of the rows that it clips, as far as what entered: `clipped_moves`."""
        return clipped_moves(moves, self.bound)

    def judge_before(self, rows: Rows, state: None, context: Context) -> tuple[Verdict[Rows], None]:
        """The rows, clipped."""
        return clipped(rows, self.bound), None

    def judge_after(
        self, released: Released, state: None, context: Context
    ) -> tuple[Verdict[Vector], None]:
        """The aggregate with the noise."""
        vector = released.vector
        if self.sigma == 0:
            return Verdict(vector), None
        return (
            Verdict(
                vector + torch.randn(len(vector), generator=context.rng).to(vector) * self.sigma,
                touched=len(vector),
            ),
            None,
        )
