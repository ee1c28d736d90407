"""Static clipping before a rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.base import Before
from privfl.aggregators.columns import midpoint
from privfl.aggregators.verdict import Verdict
from privfl.core import Context, Memory, Moves, Neighbours, Rows, require
from privfl.core.geometry import squared_norms


def shortening(
    norms: Float[Tensor, " n"], bound: float | None = None
) -> tuple[Float[Tensor, " n"], float]:
    """What rows of these finite norms are multiplied by so that none is longer than ``bound``, and
    that bound: the median of the norms where it is None, which honest rows decide on while they
    are a majority.

    >>> shortening(torch.tensor([1.0, 2.0, 8.0]))
    (tensor([1.0000, 1.0000, 0.2500]), 2.0)
    """
    most = midpoint(norms) if bound is None else bound
    unit = torch.ones(()).to(norms)
    return torch.where(norms > most, most / norms.clamp(min=1e-300), unit), most


def clipped(rows: Rows, bound: float) -> Verdict[Rows]:
    """Rows no longer than ``bound``; those that are not finite stay as they are, to be met by the
    rule.
    """
    norms = squared_norms(rows.values).sqrt().cpu()
    scale = torch.where(
        (norms > bound) & torch.isfinite(norms),
        bound / norms.clamp(min=1e-300),
        torch.ones(()).to(norms),
    )
    if bool((scale == 1).all()):
        return Verdict(rows, scale=scale, scores={"norm": norms})
    return Verdict(
        Rows(rows.values * scale.to(rows.values)[:, None], rows.weights, rows.ids),
        scale=scale,
        scores={"norm": norms},
    )


def clipped_moves(moves: Moves, bound: float) -> Moves:
    """How far rows move that are clipped to a fixed ``bound``: a projection of each row for itself
    moves no farther than the row, nor than from one side of the ball to the other.
    """
    return Moves(
        min(moves.total, 2 * bound * moves.changed),
        min(moves.longest, bound),
        moves.changed,
        moves.rows,
    )


@dataclass(frozen=True, slots=True)
class Clipping(Before[None]):
    """Scale rows longer than ``bound`` down to it: static clipping before a rule. Rows that are not
    finite pass through.

    >>> context = Context(None, torch.zeros(2), torch.Generator())
    >>> Clipping(bound=5.0).before(Rows.of([[30.0, 40.0], [3.0, 0.0]]), None, context)[0].values
    tensor([[3., 4.],
            [3., 0.]])
    """

    memory: ClassVar[Memory] = "none"

    bound: float = 1.0

    def __post_init__(self) -> None:
        require.positive(bound=self.bound)

    def init(self) -> None:
        """Nothing is remembered."""
        return

    def stability(self, moves: Moves, neighbours: Neighbours) -> Moves:
        """As far as what entered: `clipped_moves`."""
        return clipped_moves(moves, self.bound)

    def judge_before(self, rows: Rows, state: None, context: Context) -> tuple[Verdict[Rows], None]:
        """The rows, clipped."""
        return clipped(rows, self.bound), None
