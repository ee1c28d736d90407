"""What lasts between rounds of gossip: every node's model, and what has travelled along each
edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import Vector
from privfl.gossip.graph import GossipGraph

Edge: TypeAlias = tuple[int, int]
"""From a sender to a receiver."""


@dataclass(frozen=True)
class GossipState:
    """``models`` [n, d] in float64; ``sent`` by edge all that its sender has sent along it and its
    receiver has taken, added up onto the start; ``sums`` by node what its opened sums add up to
    (where rows are opened, a receiver's copy of its neighbour is what the neighbour sent).
    """

    round: int
    models: Float[Tensor, "n d"]
    sent: Mapping[Edge, Vector] = field(repr=False)
    sums: Mapping[int, Vector] = field(repr=False)

    @classmethod
    def begin(cls, graph: GossipGraph, start: Vector) -> GossipState:
        """Everybody at the same public model [d], which everybody takes everybody to have sent.

        >>> GossipState.begin(GossipGraph.ring(3), torch.ones(2)).models.sum()
        tensor(6., dtype=torch.float64)
        """
        base = start.detach().cpu().double()
        sent = {(j, i): base for i in range(graph.n) for j in graph.neighbours[i]}
        sums = {i: base * float(1 - graph.weight(i, i)) for i in range(graph.n)}
        return cls(0, base.repeat(graph.n, 1), sent, sums)


def spread(models: Float[Tensor, "n d"]) -> float:
    """How far apart models are: their mean distance from their mean, over its norm.

    >>> spread(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    0.5
    """
    mean = models.double().mean(dim=0)
    apart = torch.linalg.vector_norm(models.double() - mean, dim=1).mean()
    return float(apart / torch.linalg.vector_norm(mean).clamp(min=1e-300))
