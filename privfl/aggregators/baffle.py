"""BaFFLe: clients throw out an aggregate whose errors they find odd."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.base import After
from privfl.aggregators.verdict import Verdict
from privfl.core import (
    ConfigError,
    Context,
    Needs,
    Oracle,
    Released,
    Vector,
    require,
)

ErrorRates: TypeAlias = Callable[
    [list[Vector], Context], Float[Tensor, "evaluators models features"]
]
"""Each evaluating client's error rates, by class, of each of these models (parameters [d])."""


@dataclass(frozen=True, slots=True)
class AcceptedModels:
    """The last accepted models [d], oldest first."""

    models: tuple[Vector, ...] = ()


def local_outlier_factor(
    point: Float[Tensor, " k"], others: Float[Tensor, "m k"], neighbours: int
) -> float:
    """How much less dense it is around a point than around its nearest neighbours (Breunig et al.
    2000); about 1 for an ordinary point.

    >>> crowd = torch.tensor([[0.0], [0.1], [0.2], [0.3]])
    >>> local_outlier_factor(torch.tensor([5.0]), crowd, 2) > 5 > local_outlier_factor(
    ...     torch.tensor([0.15]), crowd, 2
    ... )
    True
    """
    k = min(neighbours, len(others) - 1)
    among = torch.cdist(others, others, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(
        math.inf
    )
    reach, near = among.sort(dim=1, stable=True)
    k_distance = reach[:, k - 1]
    density = 1 / (torch.maximum(reach[:, :k], k_distance[near[:, :k]]).mean(dim=1) + 1e-10)
    away, nearest = torch.linalg.vector_norm(others - point, dim=1).sort(stable=True)
    own = 1 / (torch.maximum(away[:k], k_distance[nearest[:k]]).mean() + 1e-10)
    return float(density[nearest[:k]].mean() / own)


@dataclass(frozen=True, slots=True)
class BaFFLe(After[AcceptedModels]):
    """BaFFLe (Andreina, Marson, Moellering, Karame 2021, Algorithms 1 and 2): clients compare how
    the model's errors changed, and vote.

    Each evaluator takes the changes of its error rates by class from one accepted model to the
    next, and the new model's change. It votes against where the local outlier factor (ceil(l / 2)
    neighbours) of the new change exceeds the mean factor of the last l / 4 accepted changes. With
    ``quorum`` votes against, the aggregate is refused: the model stays and the rejected one never
    enters the history. Votes begin when the history holds ``history`` + 1 models.
    Tolerates fewer than ``quorum`` lying evaluators that would block good models, and
    number of evaluators - quorum that would let bad ones through.

    >>> BaFFLe(
    ...     lambda models, context: torch.zeros(3, len(models), 2), history=4, quorum=2
    ... ).init().models
    ()
    """

    needs: ClassVar[Needs] = {"errors": Oracle.ERRORS}

    errors: ErrorRates
    history: int = 20
    quorum: int = 5

    def __post_init__(self) -> None:
        require.at_least(4, history=self.history)
        require.at_least(1, quorum=self.quorum)

    def init(self) -> AcceptedModels:
        """No model was accepted yet."""
        return AcceptedModels()

    def judge_after(
        self, released: Released, state: AcceptedModels, context: Context
    ) -> tuple[Verdict[Vector], AcceptedModels]:
        """The vector, or zero where the clients refuse it.

        Raises:
            ConfigError: ``errors`` returned rates of another number of models.
        """
        vector = released.vector
        models = state.models or (context.parameters.clone(),)
        candidate = context.parameters + vector
        if len(models) <= self.history:
            return Verdict(vector), AcceptedModels((*models, candidate))
        rates = self.errors([*models, candidate], context).to(torch.float64).cpu()
        if rates.shape[1] != len(models) + 1:
            raise ConfigError(
                f"BaFFLe: errors must rate {len(models) + 1} models, and returned shape"
                f" {tuple(rates.shape)}."
            )
        against = sum(self.objects(rate) for rate in rates)
        scores = {"against": torch.tensor(against)}
        if against >= self.quorum:
            why = f"{against} of {len(rates)} clients find its errors odd"
            return Verdict(
                torch.zeros_like(vector), touched=len(vector), scores=scores, refused=why
            ), AcceptedModels(models)
        return Verdict(vector, scores=scores), AcceptedModels((*models[1:], candidate))

    def objects(self, rates: Float[Tensor, "models features"]) -> bool:
        """Whether one evaluator votes against the last of these models."""
        changes = rates[1:] - rates[:-1]
        known, new = changes[:-1], changes[-1]
        neighbours = math.ceil(self.history / 2)
        recent = range(len(known) - max(self.history // 4, 1), len(known))
        usual = [
            local_outlier_factor(known[i], torch.cat([known[:i], known[i + 1 :]]), neighbours)
            for i in recent
        ]
        return local_outlier_factor(new, known, neighbours) > sum(usual) / len(usual)
