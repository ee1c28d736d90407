"""Who speaks with whom, and what each neighbour weighs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import ConfigError, require

_TRIES = 1000
"""How many random graphs are drawn before none is taken for connected."""
_SEEDS = 2**63 - 1
"""The largest seed that a generator of torch takes."""
_NODE = re.compile("[0-9]{1,9}")


@dataclass(frozen=True)
class GossipGraph:
    """An undirected, connected graph of nodes 0..n-1: the neighbours of each, in ascending order.

    Raises:
        ConfigError: fewer than two nodes, a node beside itself or of no number, an edge in one
            direction alone, or nodes that no path joins.

    >>> GossipGraph.ring(4).neighbours
    ((1, 3), (0, 2), (1, 3), (0, 2))
    """

    neighbours: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ConfigError(f"a graph has two nodes at least, and this has {self.n}.")
        for node, others in enumerate(self.neighbours):
            wrong = [other for other in others if not 0 <= other < self.n or other == node]
            if wrong or list(others) != sorted(set(others)):
                raise ConfigError(
                    f"node {node} has the neighbours {list(others)}: they must be other nodes of"
                    f" 0 to {self.n - 1}, each once and in ascending order."
                )
            alone = [other for other in others if node not in self.neighbours[other]]
            if alone:
                raise ConfigError(
                    f"node {node} has the neighbour {alone[0]}, and node {alone[0]} does not have"
                    f" {node}: an edge joins both ways."
                )
        parts = self.parts_without()
        if len(parts) > 1:
            raise ConfigError(
                f"no path joins node {parts[0][0]} and node {parts[1][0]}: what one of them has"
                " learnt never reaches the other; add an edge."
            )

    @classmethod
    def of_edges(cls, n: int, edges: Iterable[tuple[int, int]]) -> GossipGraph:
        """The graph of these edges, each named once or twice.

        Raises:
            ConfigError: a number that no node has, or as the class.
        """
        beside: list[set[int]] = [set() for _ in range(n)]
        for a, b in edges:
            if not (0 <= a < n and 0 <= b < n):
                raise ConfigError(f"the edge {a} {b} is of no two nodes of 0 to {n - 1}.")
            beside[a].add(b)
            beside[b].add(a)
        return cls(tuple(tuple(sorted(others)) for others in beside))

    @classmethod
    def complete(cls, nodes: int) -> GossipGraph:
        """Everybody beside everybody: where all take part, the mean of such a round is that of
        federated averaging with equal weights.
        """
        return cls(tuple(tuple(j for j in range(nodes) if j != i) for i in range(nodes)))

    @classmethod
    def ring(cls, nodes: int) -> GossipGraph:
        """Each node between two others."""
        return cls.of_edges(nodes, ((i, (i + 1) % nodes) for i in range(nodes)))

    @classmethod
    def regular(cls, nodes: int, degree: int, seed: int = 0) -> GossipGraph:
        """A random connected graph in which every node has ``degree`` neighbours, by the pairing
        model with repairs (Steger, Wormald 1999).

        Raises:
            ConfigError: there is none of so many nodes, or none was found.

        >>> {len(others) for others in GossipGraph.regular(10, 4).neighbours}
        {4}
        """
        require.within(1, nodes - 1, degree=degree)
        require.within(0, _SEEDS, seed=seed)
        if nodes * degree % 2:
            raise ConfigError(
                f"no graph of {nodes} nodes has {degree} neighbours at each: one of the two numbers"
                " must be even."
            )
        rng = torch.Generator().manual_seed(seed)
        for _ in range(_TRIES):
            edges = _paired(nodes, degree, rng)
            if edges is not None and _connected(nodes, edges):
                return cls.of_edges(nodes, edges)
        raise ConfigError(
            f"no connected graph of {nodes} nodes with {degree} neighbours each was found from seed"
            f" {seed}: give more neighbours."
        )

    @classmethod
    def erdos_renyi(cls, nodes: int, p: float, seed: int = 0) -> GossipGraph:
        """Every edge with probability ``p``, drawn again until the graph is connected.

        Raises:
            ConfigError: a probability outside of [0, 1], or no connected graph in a thousand draws.
        """
        require.within(0, 1, p=p)
        require.within(0, _SEEDS, seed=seed)
        pairs = torch.combinations(torch.arange(nodes), 2)
        rng = torch.Generator().manual_seed(seed)
        for _ in range(_TRIES):
            there = torch.rand(len(pairs), generator=rng) < p
            edges = {(int(a), int(b)) for a, b in pairs[there]}
            if _connected(nodes, edges):
                return cls.of_edges(nodes, edges)
        raise ConfigError(
            f"no connected graph of {nodes} nodes was found with an edge of probability {p}: raise"
            " p."
        )

    @classmethod
    def from_file(cls, path: Path, nodes: int | None = None) -> GossipGraph:
        """The graph of a text file with an edge in each line, two nodes by number; lines that begin
        with # say nothing. ``nodes`` None: one more than the largest number.

        Raises:
            ConfigError: no such file, or a line that names no edge.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the graph's file '{path}' cannot be read: {error}.") from None
        edges = []
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2 or not all(_NODE.fullmatch(word) for word in words):
                raise ConfigError(
                    f"'{path}', line {number}: an edge is two nodes by number, as in '0 5', and"
                    f" this is '{line.strip()}'."
                )
            edges.append((int(words[0]), int(words[1])))
        if not edges:
            raise ConfigError(f"'{path}' holds no edge.")
        largest = max(max(edge) for edge in edges)
        return cls.of_edges(largest + 1 if nodes is None else nodes, edges)

    @property
    def n(self) -> int:
        """How many nodes."""
        return len(self.neighbours)

    def degree(self, node: int) -> int:
        """How many neighbours a node has."""
        return len(self.neighbours[node])

    def weight(self, i: int, j: int) -> Fraction:
        """The Metropolis weight of two nodes, exactly: 1 / (1 + the larger degree) for neighbours,
        what is left to 1 for a node and itself, else nothing (Xiao, Boyd, Lall 2005).

        >>> GossipGraph.ring(4).weight(0, 1)
        Fraction(1, 3)
        """
        if i == j:
            return 1 - sum((self.weight(i, k) for k in self.neighbours[i]), Fraction(0))
        if j not in self.neighbours[i]:
            return Fraction(0)
        return Fraction(1, 1 + max(self.degree(i), self.degree(j)))

    @cached_property
    def weights(self) -> Float[Tensor, "n n"]:
        """All Metropolis weights, in float64: symmetric, and every row sums to 1."""
        rows = [[float(self.weight(i, j)) for j in range(self.n)] for i in range(self.n)]
        return torch.tensor(rows, dtype=torch.float64)

    def parts_without(self, node: int | None = None) -> tuple[tuple[int, ...], ...]:
        """The nodes that paths still join where one node is taken out, part by part."""
        left = {i for i in range(self.n) if i != node}
        parts = []
        while left:
            reached, edge = set[int](), {min(left)}
            while edge:
                reached |= edge
                edge = {k for i in edge for k in self.neighbours[i] if k in left} - reached
            left -= reached
            parts.append(tuple(sorted(reached)))
        return tuple(parts)

    @cached_property
    def cut_nodes(self) -> tuple[int, ...]:
        """The nodes without which the graph falls apart.

        >>> GossipGraph.of_edges(5, [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 2)]).cut_nodes
        (2,)
        """
        return tuple(i for i in range(self.n) if len(self.parts_without(i)) > 1)

    def describe(self) -> str:
        """The graph in a few words."""
        degrees = sorted({self.degree(i) for i in range(self.n)})
        span = f"{degrees[0]}" if len(degrees) == 1 else f"{degrees[0]} to {degrees[-1]}"
        return f"{self.n} nodes with {span} neighbours each"


def _connected(n: int, edges: Iterable[tuple[int, int]]) -> bool:
    beside: dict[int, set[int]] = {i: set() for i in range(n)}
    for a, b in edges:
        beside[a].add(b)
        beside[b].add(a)
    reached, edge = set[int](), {0}
    while edge:
        reached |= edge
        edge = {k for i in edge for k in beside[i]} - reached
    return len(reached) == n


def _paired(n: int, degree: int, rng: torch.Generator) -> set[tuple[int, int]] | None:
    """Edges of a random pairing of every node's ends; pairs that make no edge are shuffled again,
    and None is what comes of one that cannot be mended.
    """
    edges = set[tuple[int, int]]()
    ends = [i for i in range(n) for _ in range(degree)]
    while ends:
        order = torch.randperm(len(ends), generator=rng).tolist()
        shuffled, left = [ends[k] for k in order], []
        for a, b in zip(shuffled[::2], shuffled[1::2], strict=True):
            edge = (min(a, b), max(a, b))
            if a == b or edge in edges:
                left += [a, b]
            else:
                edges.add(edge)
        if len(left) == len(ends):
            distinct = sorted(set(left))
            free = [
                (a, b)
                for k, a in enumerate(distinct)
                for b in distinct[k + 1 :]
                if (a, b) not in edges
            ]
            if not free:
                return None
        ends = left
    return edges
