"""Lies of rules and seats about how far one client moves them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from privfl.aggregators import (
    AdaptiveRobustClipping,
    Bucketing,
    CenteredClipping,
    Mean,
    NearestNeighbourMixing,
    TrimmedMean,
)
from privfl.core import Context, Moves, Neighbours, Released, Rows


@dataclass(frozen=True)
class OneRowMixing(NearestNeighbourMixing):
    """Claims that a row moves itself only."""

    def stability(self, moves: Moves, neighbours: Neighbours) -> Moves:
        return moves


@dataclass(frozen=True)
class OneRowClipping(AdaptiveRobustClipping):
    """Claims that a row moves itself only."""

    def stability(self, moves: Moves, neighbours: Neighbours) -> Moves:
        return moves


@dataclass(frozen=True)
class OldCount(Bucketing):
    """Claims as many rows as there were."""

    def stability(self, moves: Moves, neighbours: Neighbours) -> Moves:
        return Moves(moves.total / self.size, moves.longest, 1, moves.rows)


@dataclass(frozen=True)
class Still(Mean):
    """Claims that nobody moves it."""

    def sensitivity(self, moves: Moves, neighbours: Neighbours) -> float:
        return 0.0


@dataclass(frozen=True)
class Half(TrimmedMean):
    """Claims half of what a trimmed mean moves."""

    def sensitivity(self, moves: Moves, neighbours: Neighbours) -> float:
        return 0.5 * TrimmedMean.sensitivity(self, moves, neighbours)


@dataclass(frozen=True)
class OwnCentre(CenteredClipping):
    """Says that it keeps nothing, and starts at its own last output, from before the noise."""

    def _decide(self, rows: Rows, lost: int, state: Any, context: Context) -> Any:
        if state is not None:
            context = replace(context, released={"delta": Released(state)})
        verdict, _ = CenteredClipping._decide(self, rows, lost, None, context)
        return verdict, verdict.out
