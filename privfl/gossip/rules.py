"""What a node makes of its neighbours' models: rules in the node's own coordinates.

A row is a neighbour's model minus the node's own, so that the node itself is the zero vector, and
what a rule returns is how far the node moves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.base import ToleratesByzantine
from privfl.core import ConfigError, Rows, Rule, RuleWithMemory, TooManyByzantine, Vector, require
from privfl.gossip.graph import GossipGraph

OwnLoss: TypeAlias = Callable[[Vector], float]
"""The mean loss, on a node's own data, of the model that is this vector [d] away from its own."""
_TINY = 1e-9
"""Sums of weights that differ by less are the same."""


@runtime_checkable
class GossipRule(Protocol):
    """How a node moves, from its neighbours' rows. ``linear``: whether it is the weighted mean, for
    which sums of neighbours suffice and which linear algebra can undo. ``asks_data``: whether it
    asks the node's own data, which noise on the node's training then does not hide.
    """

    linear: ClassVar[bool]
    asks_data: ClassVar[bool]

    def check(self, graph: GossipGraph) -> None:
        """Refuse a graph in which a node has too few neighbours.

        Raises:
            ConfigError: it has.
        """
        ...

    def __call__(self, rows: Rows, loss: OwnLoss) -> Vector:
        """The node's move [d], from its neighbours' rows [k, d], weighted by the graph."""
        ...


@dataclass(frozen=True, slots=True)
class GossipMean:
    """x_i + sum_j W_ij (x_j - x_i): decentralised SGD (Lian et al. 2017, D-PSGD, algorithm 1).

    One liar moves it anywhere.

    >>> GossipMean()(Rows.of([[3.0], [6.0]], weights=[1 / 3, 1 / 3]), lambda move: 0.0)
    tensor([3.])
    """

    linear: ClassVar[bool] = True
    asks_data: ClassVar[bool] = False

    def check(self, graph: GossipGraph) -> None:
        """Every graph will do."""

    def __call__(self, rows: Rows, loss: OwnLoss) -> Vector:
        """The weighted sum of the rows [d]."""
        return rows.weights.to(rows.values.dtype) @ rows.values


@dataclass(frozen=True, slots=True)
class ClippedGossip:
    """x_i + sum_j W_ij Clip(x_j - x_i, tau_i) (He, Karimireddy, Jaggi 2022, algorithm 1).

    ``delta`` is the most weight that liars have at one node. tau_i is the distance of the farthest
    row that is left when the farthest 2 delta of weight are cut to it, and 0 where none is left:
    liars then move a node by 2 delta tau_i at most.

    >>> far = Rows.of([[1.0], [1e9]], weights=[0.25, 0.25])
    >>> ClippedGossip(delta=0.125)(far, lambda move: 0.0)
    tensor([0.5000])
    """

    linear: ClassVar[bool] = False
    asks_data: ClassVar[bool] = False

    delta: float = 0.1

    def __post_init__(self) -> None:
        require.within(0, 0.5, delta=self.delta)

    def check(self, graph: GossipGraph) -> None:
        """Refuse a node all of whose neighbours are cut: it would learn alone.

        Raises:
            ConfigError: a node has no weight beyond 2 delta at its neighbours.
        """
        for node in range(graph.n):
            among = float(1 - graph.weight(node, node))
            if among <= 2 * self.delta + _TINY:
                raise ConfigError(
                    f"clipped gossip with delta {self.delta:.3g} cuts everything that node {node}"
                    f" hears: its neighbours weigh {among:.3g} together, and that must be over"
                    " twice delta. Give a smaller delta, or more neighbours."
                )

    def radius(self, rows: Rows) -> float:
        """Tau: what no row of these moves the node by more than."""
        lengths = torch.linalg.vector_norm(rows.values, dim=1, dtype=torch.float64)
        order = torch.argsort(lengths, descending=True)
        cut = rows.weights.double()[order].cumsum(0) - rows.weights.double()[order]
        left = order[cut >= 2 * self.delta - _TINY]
        return float(lengths[left].max()) if len(left) else 0.0

    def __call__(self, rows: Rows, loss: OwnLoss) -> Vector:
        """The weighted sum of the clipped rows [d]."""
        lengths = torch.linalg.vector_norm(rows.values, dim=1, dtype=torch.float64)
        scale = (self.radius(rows) / lengths.clamp(min=1e-300)).clamp(max=1.0)
        move: Vector = (rows.weights.double() * scale).to(rows.values.dtype) @ rows.values
        return move


@dataclass(frozen=True, slots=True)
class Bridge:
    """Of every coordinate drop the ``f`` highest and the ``f`` lowest of the neighbours' values,
    and average the rest with the own one (Fang, Yang, Bajwa 2022, BRIDGE-T).

    Needs 2f + 1 neighbours at every node.

    >>> rows = Rows.of([[-1e9], [3.0], [1e9]])
    >>> Bridge(f=1)(rows, lambda move: 0.0)
    tensor([1.5000])
    """

    linear: ClassVar[bool] = False
    asks_data: ClassVar[bool] = False

    f: int = 1

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def check(self, graph: GossipGraph) -> None:
        """Refuse a node with 2f neighbours or fewer.

        Raises:
            ConfigError: there is one.
        """
        for node in range(graph.n):
            if graph.degree(node) < 2 * self.f + 1:
                raise ConfigError(
                    f"BRIDGE with f = {self.f} needs {2 * self.f + 1} neighbours at every node, and"
                    f" node {node} has {graph.degree(node)}: give a smaller f, or more neighbours."
                )

    def __call__(self, rows: Rows, loss: OwnLoss) -> Vector:
        """The mean of what is left and of zero [d]; no move where fewer than 2f + 1 spoke."""
        if rows.n < 2 * self.f + 1:
            return rows.values.new_zeros(rows.d)
        kept = rows.values.sort(dim=0).values[self.f : rows.n - self.f]
        return kept.sum(dim=0) / (len(kept) + 1)


@dataclass(frozen=True, slots=True)
class UBAR:
    """Of the ``rho`` nearest share of the neighbours, average those that do no worse on the node's
    own data than its own model (none: the best one), and move ``1 - alpha`` of the way (Guo et al.
    2021, UBAR).

    >>> rows = Rows.of([[1.0], [2.0], [50.0]])
    >>> UBAR(rho=0.7, alpha=0.5)(rows, lambda move: abs(float(move) - 1.0))
    tensor([0.7500])
    """

    linear: ClassVar[bool] = False
    asks_data: ClassVar[bool] = True

    rho: float = 0.5
    alpha: float = 0.5

    def __post_init__(self) -> None:
        require.within(0, 1, rho=self.rho, alpha=self.alpha)
        require.positive(rho=self.rho)

    def check(self, graph: GossipGraph) -> None:
        """Every graph will do: one neighbour is looked at, at least."""

    def __call__(self, rows: Rows, loss: OwnLoss) -> Vector:
        """The move [d] towards the mean of the chosen."""
        lengths = torch.linalg.vector_norm(rows.values, dim=1, dtype=torch.float64)
        near = torch.argsort(lengths)[: max(1, int(self.rho * rows.n))]
        own = loss(rows.values.new_zeros(rows.d))
        losses = [loss(rows.values[k]) for k in near]
        good = [int(k) for k, one in zip(near, losses, strict=True) if one <= own]
        finite = [(one, int(k)) for k, one in zip(near, losses, strict=True) if not math.isnan(one)]
        if not good and not finite:
            return rows.values.new_zeros(rows.d)
        chosen = good or [min(finite)[1]]
        return (1 - self.alpha) * rows.values[chosen].mean(dim=0)


@dataclass(frozen=True, slots=True)
class Screened:
    """A rule of federated averaging over the neighbours' rows and the node's own, the zero vector:
    the node moves to what the rule makes of them.

    Raises:
        ConfigError: a rule that remembers, that reads sums alone, or that needs what a server has.

    >>> from privfl.aggregators import Median
    >>> Screened(Median())(Rows.of([[1.0], [1e9]]), lambda move: 0.0)
    tensor([1.])
    """

    linear: ClassVar[bool] = False
    asks_data: ClassVar[bool] = False

    rule: Rule[Any] | RuleWithMemory[Any, Any]

    def __post_init__(self) -> None:
        name = type(self.rule).__name__
        if self.rule.remembers or self.rule.needs:
            raise ConfigError(
                f"{name} remembers rounds, or needs samples of a server's own, and no node of a"
                " graph is a server: use a rule without both, clipped, bridge or ubar."
            )
        if self.rule.reads == "total" or self.rule.needs_ids:
            raise ConfigError(f"{name} reads no rows of unknown sets of neighbours: use another.")

    def check(self, graph: GossipGraph) -> None:
        """Refuse a node with too few neighbours for the rule.

        Raises:
            TooManyByzantine: the rule tolerates fewer liars than it is set to.
        """
        if not isinstance(self.rule, ToleratesByzantine):
            return
        for node in range(graph.n):
            self.rule.max_byzantine(graph.degree(node) + 1)

    def __call__(self, rows: Rows, loss: OwnLoss) -> Vector:
        """What the rule makes of the rows and of zero [d]; no move where too few spoke for the
        liars that it tolerates.

        Raises:
            ConfigError: as the class.
        """
        own: Float[Tensor, "1 d"] = rows.values.new_zeros(1, rows.d)
        if self.rule.remembers:
            raise ConfigError("a rule that remembers was refused when this was made.")
        try:
            return self.rule(Rows(torch.cat([own, rows.values]), torch.ones(rows.n + 1)))
        except TooManyByzantine:  # of neighbours that are away, or whose rows were refused
            return rows.values.new_zeros(rows.d)
