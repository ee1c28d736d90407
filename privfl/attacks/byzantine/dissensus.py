"""Dissensus: keep nodes of a graph from agreeing (He, Karimireddy, Jaggi 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import ConfigError, Knows, RoundKnowledge, UpdatePoison, require


@dataclass(frozen=True, slots=True)
class Dissensus(UpdatePoison):
    """Send a node -epsilon times what its honest neighbours pull it by, over the liars' own weight
    (He, Karimireddy, Jaggi 2022, section 4, dissensus attack): the node moves by 1 - epsilon times
    their pull, away from them where epsilon > 1.

    In gossip every receiver is sent another row, in its own coordinates; to one server of federated
    averaging it is a row that cancels the honest mean (epsilon 1).

    Seat: updates, in collusion. Knows the honest updates and their weights.

    >>> from privfl.core import RoundPlan, Rows
    >>> pull = Rows.of([[1.0], [3.0]], weights=[0.25, 0.25])
    >>> plan = RoundPlan(0, (1, 2, 3), d=1, l2=9.0)
    >>> known = RoundKnowledge(plan, torch.zeros(1), benign=pull, weights=torch.tensor([0.25]))
    >>> Dissensus(epsilon=1.0).poison_updates(torch.ones(1, 1), known, torch.Generator())
    tensor([[-4.]])
    """

    epsilon: float = 1.5

    def __post_init__(self) -> None:
        require.positive(epsilon=self.epsilon)

    @property
    def knows(self) -> Knows:
        """All honest updates."""
        return "benign"

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """The same row for every attacker [f, d].

        Raises:
            ConfigError: as `RoundKnowledge.honest`, or the liars weigh nothing.
        """
        honest = knowledge.honest("Dissensus")
        weight = len(own) if knowledge.weights is None else float(knowledge.weights.sum())
        if not weight > 0:
            raise ConfigError("Dissensus divides by the liars' weight, and they weigh nothing.")
        pull = honest.weights.to(honest.values.dtype) @ honest.values
        return (pull * (-self.epsilon / weight)).to(own.dtype).expand(own.shape).clone()
