"""One vector of a round on its way to its noise: the stages that a client's row passes, and how far
one neighbour moves what leaves them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from privfl.core import (
    UNPROVED,
    BeforeSeat,
    CarriesNoise,
    Mechanism,
    Moves,
    Neighbours,
    Rule,
    RuleWithMemory,
    RunNoise,
    Stable,
)

AnyRule: TypeAlias = Rule[Any] | RuleWithMemory[Any, Any]


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights that travel beside updates, as a stage: of one for everybody, or clients' counts.

    A weight multiplies its row, and a count is private and unbounded: with counts nothing is
    proved. Weights of one change nothing, and tell nothing.

    >>> moves = Moves.of_one_row().bounded(1.0, Neighbours("client", "zero_out"))
    >>> Weights(uniform=False).stability(moves, Neighbours("client", "zero_out")).total
    inf
    """

    uniform: bool

    def stability(self, moves: Moves, neighbours: Neighbours) -> Moves:
        """What entered, where every weight is one."""
        return moves if self.uniform else UNPROVED


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of all rows, as a rule: a channel's own sum, such as that of an adaptive bound's
    bits.
    """

    def sensitivity(self, moves: Moves, neighbours: Neighbours) -> float:
        """How far all rows move together."""
        return moves.total


@dataclass(frozen=True, slots=True)
class PartRelease:
    """How one vector of a round leaves: its ``stages`` from the bound on, the ``seats`` that change
    rows once the channel has opened them, the ``rule``, and the noise.

    ``mechanism`` noises what the rule makes, or ``over`` does, whose noise hangs together over the
    rounds of a run; where ``rule`` is None it noises each client's row
    where the stages end, and so do ``shares``, which clients of a channel add to their integers:
    rule and seats are then post-processing. Neither: the vector leaves as it is.

    A stage says how far one neighbour moves what leaves it (`core.Stable`); one that says nothing
    moves without bound, and so does a seat or a rule that remembers something private, whatever it
    says of one round.

    >>> from privfl.aggregators import Mean
    >>> from privfl.dp import Clip
    >>> each = Neighbours("client", "replace_one")
    >>> PartRelease((Clip(1.0),), Mean(weighted=False)).reach(each, rows=10)
    0.2
    >>> PartRelease((object(),), Mean(weighted=False)).reach(each, rows=10)
    inf
    """

    stages: tuple[object, ...]
    rule: AnyRule | Sum | None = None
    seats: tuple[BeforeSeat[Any], ...] = ()
    mechanism: Mechanism | None = None
    shares: CarriesNoise | None = None
    over: RunNoise[Any] | None = None

    @property
    def noised(self) -> bool:
        """Whether there is any noise."""
        return not (self.mechanism is None and self.shares is None and self.over is None)

    @property
    def central(self) -> Mechanism | None:
        """The mechanism that noises what the rule makes, if one does."""
        return None if self.rule is None else self.mechanism

    @property
    def forgets(self) -> bool:
        """Whether its rule keeps nothing of clients' rows from before the noise."""
        return not _private(self.rule)

    def moved(self, neighbours: Neighbours, rows: int | None = None) -> Moves:
        """How far one neighbour moves the rows where the rule reads them (where the noise meets
        them, without a rule). ``rows`` is how many the channel opened, None where that is private.
        """
        moves = Moves.of_one_row()
        for stage in self.stages:
            moves = _through(stage, moves, neighbours)
        moves = replace(moves, rows=rows)
        for seat in self.seats:
            moves = _seated(seat, moves, neighbours)
        return moves

    def reach(self, neighbours: Neighbours, rows: int | None = None) -> float:
        """How far, in L2, one neighbour moves the vector where its noise meets it; infinite where
        something on the way proves nothing.
        """
        moves = self.moved(neighbours, rows)
        if self.rule is None:
            return moves.total
        return self.rule.sensitivity(moves, neighbours) if self.forgets else math.inf

    def why_unproved(self, part: str, neighbours: Neighbours, rows: int | None = None) -> str:
        """Which stage, seat or rule makes `reach` infinite, in words."""
        moves = Moves.of_one_row()
        for stage in self.stages:
            moves = _through(stage, moves, neighbours)
            if not moves.total < math.inf:
                return _why(stage, part, neighbours)
        moves = replace(moves, rows=rows)
        for seat in self.seats:
            moves = _seated(seat, moves, neighbours)
            if not moves.total < math.inf:
                private = seat.memory == "private"
                return _remembers(seat) if private else _why(seat, part, neighbours)
        if not self.forgets:
            return _remembers(self.rule)
        return (
            f"{name_of(self.rule)} has no proved sensitivity under {neighbours.relation} as it is"
            " set, so no noise can be calibrated to it. Use a training"
            " with weighting='uniform' and aggregator=Mean(weighted=False) (in a config"
            " training.weighting: uniform, and {name: mean, weighted: false})."
        )


def name_of(part: object) -> str:
    """A part's class, for messages."""
    return type(part).__name__


def _through(stage: object, moves: Moves, neighbours: Neighbours) -> Moves:
    return stage.stability(moves, neighbours) if isinstance(stage, Stable) else UNPROVED


def _seated(seat: BeforeSeat[Any], moves: Moves, neighbours: Neighbours) -> Moves:
    return UNPROVED if seat.memory == "private" else _through(seat, moves, neighbours)


def _private(rule: AnyRule | Sum | None) -> bool:
    """Whether a rule keeps something of clients' rows from before any noise."""
    if rule is None or isinstance(rule, Sum):
        return False
    return rule.remembers and rule.memory == "private"


def _remembers(part: object) -> str:
    return (
        f"{name_of(part)} remembers clients' rows from before any noise, so it has no proved"
        " sensitivity and no noise can be calibrated to it. What it keeps must be a function of"
        " what was released (`Context.released`)."
    )


def _why(stage: object, part: str, neighbours: Neighbours) -> str:
    no_noise = "so it has no proved sensitivity and no noise can be calibrated to it"
    if isinstance(stage, Weights):
        return (
            f"'{part}' is weighted by clients' own counts of their samples, {no_noise}: give the"
            " training weighting='uniform' (training.weighting: uniform in a config)."
        )
    if isinstance(stage, Stable):
        return (
            f"{name_of(stage)} proves no bound on how far one client moves '{part}' under"
            f" {neighbours.relation}, {no_noise}."
        )
    return (
        f"{name_of(stage)} does not declare how far one client moves what it makes of '{part}',"
        f" {no_noise}: leave it out, or give it a stability(moves, neighbours)."
    )
