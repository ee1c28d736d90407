"""What a coalition of nodes reads of a gossip run, really computed from its own mail; and after how
many rounds linear algebra reads through sums.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, combinations, islice

from privfl.core import Adversary, ConfigError, NotVisible, Rows, Total, Vector, client_party
from privfl.gossip.gossip import Gossip, GossipRound
from privfl.gossip.graph import GossipGraph
from privfl.gossip.knowledge import (
    Heard,
    KnowledgeMatrix,
    Meeting,
    Propagation,
    Trains,
    Unknown,
    added,
)
from privfl.gossip.span import Combination, RowSpace, multipliers


def nodes_of(adversary: str) -> frozenset[int]:
    """The nodes of an adversary's name: ``node/3``, or ``colluders(node/3, node/5)``.

    Raises:
        ConfigError: it names somebody who is no node.

    >>> sorted(nodes_of("colluders(node/3, node/5)"))
    [3, 5]
    """
    found = set()
    for party in Adversary.parse(adversary).parties or {adversary}:
        kind, _, number = party.partition("/")
        if kind != "node" or not number.isdigit():
            raise ConfigError(
                f"nobody called '{party}' is in a graph: use node/3, or colluders(node/3, node/5)."
            )
        found.add(int(number))
    return frozenset(found)


@dataclass(frozen=True)
class GossipView:
    """What a coalition of nodes saw of a run: ``heard`` by (round, node, sender) the change [d]
    that a row holds, or by (round, node, None) the weighted sum of several, each decoded from the
    coalition's own mail by its own members; ``own`` what its own training made, by (node, round).
    ``counts`` says of how many rows each sum is.
    """

    nodes: frozenset[int]
    heard: Mapping[Heard, Vector] = field(repr=False)
    own: Mapping[Unknown, Vector] = field(repr=False)
    counts: Mapping[Heard, int] = field(default_factory=dict, repr=False)


def view(gossip: Gossip, rounds: Sequence[GossipRound], adversary: str) -> GossipView:
    """What these nodes saw of rounds whose messages were kept, each as the server of its own run
    and as a client of its neighbours', together.

    Raises:
        ConfigError: as `nodes_of`.
        NotVisible: no message of a run was kept, or there is no such node.
    """
    nodes, channel = nodes_of(adversary), gossip.scenario.channel
    strangers = [node for node in nodes if node >= gossip.scenario.graph.n]
    if strangers:
        raise NotVisible(f"nobody called 'node/{strangers[0]}' is in this graph.")
    heard: dict[Heard, Vector] = {}
    counts: dict[Heard, int] = {}
    own: dict[Unknown, Vector] = {}
    for one in rounds:
        own |= {(node, one.number): one.trained[node] for node in nodes}
        for run in one.runs.values():
            mine = {client_party(k) for k in run.plan.cohort if k in nodes}
            mine |= {"server"} if run.node in nodes else set()
            if not mine:
                continue
            if any(message.body is None for message in run.outcome.messages):
                raise NotVisible(
                    f"the messages of round {one.number} were not kept: play it with keep=True."
                )
            members = gossip.sessions[run.node].members
            seen = channel.decode(
                run.outcome.received(mine, mine), {who: members[who] for who in mine}
            )
            if isinstance(seen, Rows):
                for sender, row in zip(seen.ids or (), seen.values, strict=True):
                    heard[one.number, run.node, sender] = row.double()
            if isinstance(seen, Rows) and run.opened is not None and run.node in nodes:
                seen = run.opened.what
            if isinstance(seen, Total):
                heard[one.number, run.node, None] = seen.value.double()
                counts[one.number, run.node, None] = seen.count
    return GossipView(nodes, heard, own, counts)


@dataclass(frozen=True)
class Recovered:
    """What others' training made, solved from a view: the changes [d] by (node, round), and by how
    much the rounding of what was sent can be lengthened in each.
    """

    values: Mapping[Unknown, Vector] = field(repr=False)
    lengthened: Mapping[Unknown, float]


def solve(gossip: Gossip, rounds: Sequence[GossipRound], seen: GossipView) -> Recovered:
    """Solve a view for what others' training made, from the first round on (El Mrini, Cyffers,
    Bellet 2024). Exact: no approximation of one round's training by another's.

    Raises:
        ConfigError: the rule is not the mean, a node lied, what was sent was cut to its bound, the
            first round is missing, or the view holds a sum of nobody knows whom: then what nodes
            send is no known combination.
    """
    scenario = gossip.scenario
    if not scenario.rule.linear or scenario.liars:
        raise ConfigError(
            "linear algebra solves for what the mean makes of honest nodes: another rule, or a"
            " liar, leaves combinations that nobody knows."
        )
    if [one.number for one in rounds] != list(range(len(rounds))):
        raise ConfigError("the rounds must be all from the first one on, in order.")
    cut = [one.number for one in rounds if one.cut]
    if cut:
        raise ConfigError(
            f"in round {cut[0]} what a node sent was cut to message_bound, by a factor that others"
            " do not know: raise message_bound to solve for what was sent."
        )
    known = KnowledgeMatrix.of(
        scenario.graph,
        [meeting_of(one) for one in rounds],
        summed=scenario.summed,
        trains="every round",
    )
    numbers = {unknown: number for number, unknown in enumerate(known.unknowns)}
    rows: list[tuple[Combination, Vector]]
    rows = [({numbers[one]: Fraction(1)}, seen.own[one]) for one in seen.own if one in numbers]
    rows += [
        (_combined(gossip, rounds, seen, known, heard), value)
        for heard, value in seen.heard.items()
    ]
    others = [number for one, number in numbers.items() if one[0] not in seen.nodes]
    values: dict[Unknown, Vector] = {}
    lengthened: dict[Unknown, float] = {}
    for number, by in multipliers([combination for combination, _ in rows], others).items():
        parts = [float(times) * rows[position][1] for position, times in by.items()]
        values[known.unknowns[number]] = sum(parts[1:], parts[0])
        lengthened[known.unknowns[number]] = float(sum(abs(times) for times in by.values()))
    return Recovered(values, lengthened)


def _combined(
    gossip: Gossip,
    rounds: Sequence[GossipRound],
    seen: GossipView,
    known: KnowledgeMatrix,
    heard: Heard,
) -> Combination:
    """What a value of a view is made of: also a row that colluders read out of a sum, and mail of
    a run whose own server fell silent before it opened it.
    """
    if heard in known.told:
        return known.told[heard]
    number, node, sender = heard
    if sender is not None:
        return known.changes[heard]
    one, graph, count = rounds[number], gossip.scenario.graph, seen.counts[heard]
    until = {k: one.silent.get(k, math.inf) for k in graph.neighbours[node]}
    longest = sorted((k for k in until if until[k] > 0), key=lambda k: -until[k])
    inside = longest[:count]
    if len(inside) < count or any(until[k] == until[inside[-1]] for k in longest[count:]):
        raise ConfigError(
            f"node {node} was silent before it opened its sum of {count} in round {number}, and who"
            " is in it is not known: leave that round out, or view other nodes."
        )
    total: Combination = {}
    for k in inside:
        total = added(total, known.changes[number, node, k], graph.weight(node, k))
    return total


def meeting_of(one: GossipRound) -> Meeting:
    """Who took part in a round, which everybody beside a node comes to know."""
    return Meeting(
        {i: run.survivors for i, run in one.runs.items() if run.opened is not None},
        away=frozenset(i for i, at in one.silent.items() if at == 0),
        still=frozenset(one.silent),
    )


@dataclass(frozen=True)
class Exposure:
    """What nodes learn of each other where each brings one value and all average alone, which is
    what gossip comes to when training moves little; by exact ranks.

    ``shares`` is by number of rounds the share of others' values that one node solves, on average;
    ``limit`` the most rounds after which no node alone has solved any (None: not within those that
    were looked at); ``first`` the nodes that solve first, with how many values each. ``cuts`` are
    the nodes through which all passes that their sides learn of each other, with these sides.
    """

    shares: tuple[float, ...]
    limit: int | None
    first: Mapping[int, int]
    cuts: Mapping[int, tuple[tuple[int, ...], ...]]

    def describe(self) -> str:
        """The exposure in sentences."""
        looked = len(self.shares)
        if self.limit is None:
            said = f"In {looked} rounds of averaging no node alone solves for another's value"
        else:
            node, count = next(iter(self.first.items()))
            said = (
                f"ROUND LIMIT {self.limit}: after {self.limit} rounds of averaging no node alone"
                f" has solved for another's value, and in round {self.limit + 1} node {node} solves"
                f" for {count} (exact linear algebra); after {looked} rounds a node has solved for"
                f" {self.shares[-1]:.0%} of the others on average"
            )
        cuts = "".join(
            f" All that {' and '.join(_span(side) for side in sides)} learn of each other passes"
            f" through node {node}, a cut node."
            for node, sides in self.cuts.items()
        )
        return (
            f"{said}.{cuts} That is where all take part in every round; where nodes train in"
            " between, what they bring follows later or never."
        )


def exposure(graph: GossipGraph, rounds: int, *, summed: bool, trains: Trains = "once") -> Exposure:
    """What single nodes solve, round by round.

    >>> ring = exposure(GossipGraph.ring(16), 9, summed=True)
    >>> ring.limit, sorted(ring.first)[:2]
    (7, [0, 1])
    """
    propagation = Propagation(graph, summed, trains)
    spans = [RowSpace() for _ in range(graph.n)]
    shares: list[float] = []
    limit: int | None = None
    first: dict[int, int] = {}
    meeting = Meeting.of_all(graph)
    for number in range(rounds):
        told = propagation.play(meeting)
        for i, span in enumerate(spans):
            if (i, number) in propagation.unknowns:
                span.add({propagation.number((i, number)): Fraction(1)})
        for (_, i, _), what in told.items():
            spans[i].add(what)
        solved = [
            sum(propagation.unknowns[one][0] != i for one in span.solved())
            for i, span in enumerate(spans)
        ]
        others = len(propagation.unknowns) * (graph.n - 1) / graph.n
        shares.append(sum(solved) / graph.n / others)
        if limit is None and any(solved):
            limit, first = number, {i: count for i, count in enumerate(solved) if count}
    return Exposure(
        tuple(shares), limit, first, {node: graph.parts_without(node) for node in graph.cut_nodes}
    )


def opening_sets(graph: GossipGraph, size: int, *, summed: bool) -> list[tuple[int, ...]]:
    """The sets of so many nodes that solve for somebody's value in a single round.

    >>> len(opening_sets(GossipGraph.ring(16), 2, summed=True))
    16
    """
    known = KnowledgeMatrix.of(graph, [Meeting.of_all(graph)], summed=summed, trains="once")
    return [who for who in combinations(range(graph.n), size) if known.solved(who)]


def least_coalition(
    graph: GossipGraph, *, summed: bool, most: int = 5000
) -> tuple[int, ...] | None:
    """The fewest nodes that solve for another's value in one round in which all take part; None
    where ``most`` sets, the smallest first, hold none. Where nodes are away it can be smaller.

    >>> least_coalition(GossipGraph.ring(8), summed=True)
    (0, 1)
    """
    known = KnowledgeMatrix.of(graph, [Meeting.of_all(graph)], summed=summed, trains="once")
    sets = chain.from_iterable(combinations(range(graph.n), k) for k in range(1, graph.n))
    return next((who for who in islice(sets, most) if known.solved(who)), None)


def _span(nodes: Collection[int]) -> str:
    return "{" + ", ".join(map(str, sorted(nodes))) + "}"
