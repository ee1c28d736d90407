"""How far a rule says that one client moves its result: the one place that asks it."""

from __future__ import annotations

from privfl.core import Moves, NeighbourRelation, Neighbours
from privfl.engine.compatibility import AnyRule


def declared_sensitivity(rule: AnyRule, n: int, relation: NeighbourRelation) -> float:
    """What a rule declares for n rows in the unit ball, of which one client makes one; inf where it
    proves nothing.
    """
    neighbours = Neighbours("client", relation)
    return rule.sensitivity(Moves.of_one_row(n).bounded(1.0, neighbours), neighbours)
