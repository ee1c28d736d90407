"""The linear-combination attack: one liar who knows all others sets any linear rule's result
(Blanchard et al. 2017, lemma 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import BadUpdate, Knows, RoundKnowledge, UpdatePoison, Vector


@dataclass(frozen=True, slots=True, eq=False)
class LinearCombination(UpdatePoison):
    """Make the weighted mean exactly T (Blanchard, El Mhamdi, Guerraoui, Stainer 2017, lemma 1):
    send (T - sum_i lambda_i u_i) / lambda_b.

    lambda are the weights that the mean really uses, which in federated averaging are numbers of
    samples. T is ``target`` [d], or ``factor`` times the honest weighted mean. MultiBackdoor
    attackers share the work and send the same row.

    Seat: updates. Knows all honest updates and weights (omniscient).

    >>> from privfl.core import RoundPlan, Rows
    >>> known = RoundKnowledge(
    ...     RoundPlan(0, (1, 2), d=1, l2=9.0), torch.zeros(1), benign=Rows.of([[3.0]])
    ... )
    >>> LinearCombination(factor=-1.0).poison_updates(
    ...     torch.ones(1, 1), known, torch.Generator()
    ... )  # and the mean of 3 and -9 is -3
    tensor([[-9.]])
    """

    factor: float = -1.0
    target: Vector | None = None

    @property
    def knows(self) -> Knows:
        """All honest updates."""
        return "benign"

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """The row that makes up the rest, once for each attacker [f, d].

        Raises:
            BadUpdate: the target has another length than the updates.
        """
        benign = knowledge.honest("LinearCombination")
        weights = torch.ones(len(own)) if knowledge.weights is None else knowledge.weights
        honest = benign.weights.double() @ benign.values.double()
        mine = float(weights.sum())
        total = float(benign.weights.sum()) + mine
        if self.target is None:
            target = self.factor * honest / float(benign.weights.sum())
        elif self.target.shape == own.shape[1:]:
            target = self.target.double()
        else:
            raise BadUpdate(
                f"LinearCombination: the target has shape {tuple(self.target.shape)}, and updates"
                f" have {tuple(own.shape[1:])}."
            )
        return ((target * total - honest) / mine).to(own).expand(own.shape).clone()
