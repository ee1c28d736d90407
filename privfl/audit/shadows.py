"""Shadow training for adversaries: the project's own local training, many copies at once where the
model and the device allow.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privfl.core import (
    Broadcast,
    Buffers,
    Dataset,
    FlatModel,
    LocalPlan,
    Loss,
    Seeds,
    UnsupportedModel,
    Vector,
    exact_products,
)
from privfl.training import (
    Executor,
    LocalSGD,
    Sequential,
    Task,
    Workload,
    cross_entropy,
    several,
)


@dataclass(frozen=True)
class Shadows:
    """A `Trainer` (privfl.attacks): trains K shadow clients from one start by a method, several at
    once where `several` has a way. ``buffers`` is what becomes of running statistics, which are not
    among the changes. What is given and what comes back lie on the CPU, whatever ``device`` trains.

    >>> data = Dataset(torch.randn(6, 4), torch.tensor([0, 1] * 3), classes=2)
    >>> train = Shadows(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), LocalSGD(lr=0.1))
    >>> train(torch.zeros(10), data, [torch.arange(3), torch.arange(6)], epochs=2).shape
    torch.Size([2, 10])
    """

    module: nn.Module
    method: LocalSGD
    loss: Loss | None = None
    buffers: Buffers | None = None
    device: torch.device | str = "cpu"

    def __call__(
        self,
        start: Vector,
        data: Dataset,
        subsets: Sequence[Tensor],
        *,
        epochs: int | None = None,
        seed: int = 0,
    ) -> Float[Tensor, "K d"]:
        """The changes of the flat parameters [K, d] from ``start``."""
        plan = (
            self.method.plan if epochs is None else LocalPlan(self.method.plan.batch_size, epochs)
        )
        workload = Workload(
            FlatModel(copy.deepcopy(self.module), self.device),
            self.loss or cross_entropy,
            replace(self.method, plan=plan),
            data.to(self.device),
            self.buffers,
        )
        executor: Executor
        try:
            executor = several(workload)
        except UnsupportedModel:
            executor = Sequential(workload)
        tasks = [Task(client, index) for client, index in enumerate(subsets)]
        out = torch.empty(len(tasks), workload.model.d)
        beside = workload.method.broadcast(workload.method.init(workload.model.d))
        with exact_products():  # as in the run
            executor.train(Broadcast(0, start, beside), tasks, out, Seeds(seed))
        return out


@dataclass(frozen=True)
class FederatedShadows:
    """A `FederatedTrainer` (privfl.attacks): federated averaging (McMahan et al. 2017) of shadow
    clients, with the clip and each client's noise of the run's recipe.

    >>> data = Dataset(torch.randn(8, 4), torch.tensor([0, 1] * 4), classes=2)
    >>> shadows = Shadows(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), LocalSGD(lr=0.1))
    >>> deal = [[torch.arange(4), torch.arange(4, 8)], [torch.arange(8)]]
    >>> FederatedShadows(shadows)(torch.zeros(10), data, deal, rounds=2).shape
    torch.Size([2, 10])
    """

    shadows: Shadows
    l2: float = float("inf")
    noise: float = 0.0

    def __call__(
        self,
        start: Vector,
        data: Dataset,
        dealt: Sequence[Sequence[Tensor]],
        *,
        rounds: int,
        seed: int = 0,
    ) -> Float[Tensor, "K d"]:
        """The changes of the flat parameters [K, d] from ``start``."""
        rng = torch.Generator().manual_seed(seed)
        models = start.expand(len(dealt), -1).clone()
        for number in range(rounds):
            for k, clients in enumerate(dealt):
                there = [index for index in clients if len(index)]
                rows = self.shadows(models[k], data, there, seed=seed * 1009 + number)
                norms = rows.norm(dim=1, keepdim=True).clamp(min=1e-30)
                rows = rows * (self.l2 / norms).clamp(max=1)
                rows += self.noise * torch.randn(rows.shape, generator=rng)
                weights = torch.tensor([float(len(index)) for index in there])
                models[k] += weights @ rows / weights.sum()
        return models - start
