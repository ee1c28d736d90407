"""What nodes learn of each other, as combinations of what each node's training made (El Mrini,
Cyffers, Bellet 2024, the knowledge matrix, for averaging and for gradients).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, TypeAlias

from privfl.gossip.graph import GossipGraph
from privfl.gossip.span import Combination, RowSpace

Unknown: TypeAlias = tuple[int, int]
"""What the training of a node changed in a round, noise included: (node, round)."""
Heard: TypeAlias = tuple[int, int, int | None]
"""What a node was told in a round: (round, node, sender), the sender None for a sum."""
Trains: TypeAlias = Literal["once", "every round"]
"""Whether nodes bring a value each and then average alone, or train in every round, so that each
round brings as many unknowns more.
"""


@dataclass(frozen=True)
class Meeting:
    """Who took part in a round: ``through`` names by node the neighbours that got through to it (a
    node without an entry opened nothing), ``away`` the nodes that trained nothing, ``still`` those
    that did not move.
    """

    through: Mapping[int, tuple[int, ...]]
    away: frozenset[int] = frozenset()
    still: frozenset[int] = frozenset()

    @classmethod
    def of_all(cls, graph: GossipGraph) -> Meeting:
        """Everybody's."""
        return cls(dict(enumerate(graph.neighbours)))


@dataclass
class Propagation:
    """The rounds of gossip with the mean, computed on combinations of unknowns in the place of
    values. The start is public, so it is nothing. ``changes`` collects what every node had for each
    neighbour, whether it got through or not.
    """

    graph: GossipGraph
    summed: bool
    trains: Trains = "once"
    unknowns: list[Unknown] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._number: dict[Unknown, int] = {}
        self._models: list[Combination] = [{} for _ in range(self.graph.n)]
        self._sent: dict[tuple[int, int], Combination] = {}
        self._round = 0
        self.changes: dict[Heard, Combination] = {}

    def number(self, unknown: Unknown) -> int:
        """The number of an unknown in combinations."""
        if unknown not in self._number:
            self._number[unknown] = len(self.unknowns)
            self.unknowns.append(unknown)
        return self._number[unknown]

    def play(self, meeting: Meeting) -> Mapping[Heard, Combination]:
        """One round: what every node was told in it."""
        graph, now = self.graph, self._round
        self._round += 1
        half = list(self._models)
        if self.trains == "every round" or now == 0:
            for i in range(graph.n):
                if i not in meeting.away:
                    half[i] = added(half[i], {self.number((i, now)): Fraction(1)})
        told: dict[Heard, Combination] = {}
        before = dict(self._sent)
        for i, neighbours in enumerate(graph.neighbours):
            for k in neighbours:
                self.changes[now, i, k] = added(half[k], before.get((k, i), {}), Fraction(-1))
        for i, through in meeting.through.items():
            total: Combination = {}
            for k in through:
                change = self.changes[now, i, k]
                told[now, i, k] = change
                total = added(total, change, graph.weight(i, k))
                self._sent[k, i] = half[k]
            if self.summed:
                for k in through:
                    del told[now, i, k]
                told[now, i, None] = total
        self._models = half
        for i, through in meeting.through.items():
            if i in meeting.still:
                continue
            model = half[i]
            for k in graph.neighbours[i] if self.summed else through:
                weight = graph.weight(i, k)
                model = added(model, self._sent.get((k, i), {}), weight)
                model = added(model, self._sent.get((i, k), {}), -weight)
            self._models[i] = model
        return told


def added(one: Combination, other: Combination, times: Fraction = Fraction(1)) -> Combination:
    """One combination and so many times another.

    >>> added({0: Fraction(1)}, {0: Fraction(2), 1: Fraction(1)}, Fraction(-1, 2))
    {1: Fraction(-1, 2)}
    """
    out = dict(one)
    for number, value in other.items():
        left = out.get(number, Fraction(0)) + times * value
        if left:
            out[number] = left
        else:
            out.pop(number, None)
    return out


@dataclass(frozen=True)
class KnowledgeMatrix:
    """All that nodes are told in some rounds, and what follows from it for those that tell each
    other everything. ``changes`` are the single rows (round, receiver, sender) that were on their
    way, which some read who were told sums, or whose own run ended early.
    """

    unknowns: tuple[Unknown, ...]
    told: Mapping[Heard, Combination] = field(repr=False)
    changes: Mapping[Heard, Combination] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, graph: GossipGraph, meetings: Sequence[Meeting], *, summed: bool, trains: Trains
    ) -> KnowledgeMatrix:
        """Of these rounds.

        >>> ring = GossipGraph.ring(5)
        >>> four = KnowledgeMatrix.of(ring, [Meeting.of_all(ring)] * 2, summed=False, trains="once")
        >>> four.solved({0})
        [(1, 0), (2, 0), (3, 0), (4, 0)]
        """
        rounds = Propagation(graph, summed, trains)
        told: dict[Heard, Combination] = {}
        for meeting in meetings:
            told |= rounds.play(meeting)
        return cls(tuple(rounds.unknowns), told, rounds.changes)

    def heard_by(self, coalition: Collection[int]) -> Mapping[Heard, Combination]:
        """What these nodes were told."""
        return {heard: what for heard, what in self.told.items() if heard[1] in coalition}

    def own(self, coalition: Collection[int]) -> Mapping[Unknown, Combination]:
        """What these nodes know of themselves."""
        return {
            one: {number: Fraction(1)}
            for number, one in enumerate(self.unknowns)
            if one[0] in coalition
        }

    def span(self, coalition: Collection[int]) -> RowSpace:
        """All that follows for these nodes together."""
        span = RowSpace()
        for known in (*self.own(coalition).values(), *self.heard_by(coalition).values()):
            span.add(known)
        return span

    def solved(self, coalition: Collection[int]) -> list[Unknown]:
        """What others' training made whose value follows for these nodes together."""
        found = [self.unknowns[number] for number in self.span(coalition).solved()]
        return sorted(one for one in found if one[0] not in coalition)
