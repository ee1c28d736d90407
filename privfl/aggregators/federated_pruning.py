"""Federated pruning (Wu, Yang, Zhu, Mitra 2020): prune the units that clients find dormant, then
cut extreme weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
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

Activations: TypeAlias = Callable[[Vector, Context], Float[Tensor, "clients units"]]
"""Each client's mean activation of every prunable unit, for the model with these parameters [d]."""
Accuracy: TypeAlias = Callable[[Vector, Context], float]
"""Validation accuracy of the model with these parameters [d]."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """Which parameters [d] are pruned for good, None before the pruning."""

    away: Bool[Tensor, " d"] | None = None


@dataclass(frozen=True, slots=True)
class FederatedPruning(After[Pruned]):
    """After round ``at``, prune dormant units in the clients' order until validation accuracy
    falls, and zero the layer's extreme weights.

    Every client ranks the units by activation. ``method="rank"`` (RAP) orders units by mean rank,
    ``"vote"`` (MVP) by how many clients have them among their ``share`` most dormant. Units go one
    at a time while accuracy stays within ``tolerance`` of what it was. Then weights of ``extreme``
    (the last convolution's positions in the flat vector) with |w - mean| > Delta std are set to
    zero, Delta falling from ``delta_from`` to ``delta_to`` in steps of 0.5 while accuracy allows.
    What is pruned stays zero in later rounds.

    ``units[u]`` lists the positions [d] of unit u's parameters. A minority of lying clients shifts
    ranks and votes by its share only.

    Raises:
        ConfigError: an unknown method, or a number out of range.

    >>> from privfl.core import RoundPlan
    >>> context = Context(
    ...     RoundPlan(0, (1,), d=3, l2=1.0), torch.tensor([1.0, 2.0, 3.0]), torch.Generator()
    ... )
    >>> activations = lambda w, context: torch.tensor([[5.0, 0.0, 4.0]])
    >>> accuracy = lambda w, context: float(w[0] != 0 and w[2] != 0)
    >>> prune = FederatedPruning([torch.tensor([i]) for i in range(3)], activations, accuracy)
    >>> prune.after(Released(torch.zeros(3)), prune.init(), context)[0]
    tensor([ 0., -2.,  0.])
    """

    needs: ClassVar[Needs] = {
        "units": Oracle.UNITS,
        "activations": Oracle.ACTIVATIONS,
        "accuracy": Oracle.ACCURACY,
        "extreme": Oracle.LAST_HIDDEN,
    }

    units: Sequence[Tensor]
    activations: Activations
    accuracy: Accuracy
    at: int = 0
    method: Literal["rank", "vote"] = "rank"
    share: float = 0.5
    tolerance: float = 0.01
    extreme: Tensor | None = None
    delta_from: float = 5.0
    delta_to: float = 2.0

    def __post_init__(self) -> None:
        require.at_least(0, at=self.at, tolerance=self.tolerance)
        require.within(0, 1, share=self.share)
        require.positive(delta_to=self.delta_to)
        require.at_least(self.delta_to, delta_from=self.delta_from)
        if self.method not in ("rank", "vote"):
            raise ConfigError(f"method is 'rank' or 'vote', and is '{self.method}'.")

    def init(self) -> Pruned:
        """Nothing is pruned."""
        return Pruned()

    def judge_after(
        self, released: Released, state: Pruned, context: Context
    ) -> tuple[Verdict[Vector], Pruned]:
        """The change that leads to the pruned model; before round ``at`` the vector itself."""
        vector = released.vector
        if context.plan.number < self.at and state.away is None:
            return Verdict(vector), state
        model = context.parameters + vector
        away = state.away
        if away is None:
            away = self.prune(model, context)
        out = torch.where(away, -context.parameters, vector)
        return Verdict(out, touched=int(away.sum())), Pruned(away)

    def order(self, model: Vector, context: Context) -> list[int]:
        """The units, most dormant first.

        Raises:
            ConfigError: ``activations`` returned another number of units.
        """
        seen = self.activations(model, context)
        if seen.ndim != 2 or seen.shape[1] != len(self.units):
            raise ConfigError(
                f"FederatedPruning: activations must be [clients, {len(self.units)}], and returned"
                f" shape {tuple(seen.shape)}."
            )
        ranks = (
            seen.argsort(dim=1, stable=True).argsort(dim=1).to(torch.float64)
        )  # 0: the most dormant
        if self.method == "rank":
            return [int(u) for u in ranks.mean(dim=0).argsort(stable=True)]
        dormant = (ranks < round(self.share * len(self.units))).sum(dim=0)
        return [int(u) for u in dormant.argsort(descending=True, stable=True)]

    def prune(self, model: Vector, context: Context) -> Bool[Tensor, " d"]:
        """Which parameters go."""
        enough = self.accuracy(model, context) - self.tolerance
        away = torch.zeros(len(model), dtype=torch.bool, device=model.device)
        for unit in self.order(model, context):
            more = away.clone()
            more[self.units[unit]] = True
            if self.accuracy(model.masked_fill(more, 0.0), context) < enough:
                break
            away = more
        if self.extreme is None:
            return away
        weights = model[self.extreme]
        deviation = (weights - weights.mean()).abs() / weights.std(correction=0).clamp(min=1e-30)
        delta = self.delta_from
        while delta >= self.delta_to:
            more = away.clone()
            more[self.extreme] |= deviation > delta
            if self.accuracy(model.masked_fill(more, 0.0), context) < enough:
                break
            away, delta = more, delta - 0.5
        return away
