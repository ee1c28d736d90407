"""Teachers, each trained on one client's data alone, and what they say of public samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from privfl.core import Broadcast, ConfigError, Dataset, FlatModel, Seeds
from privfl.training import (
    Failed,
    LocalSGD,
    Task,
    Workload,
    cross_entropy,
    executors,
)


def trained_alone(
    module: nn.Module,
    clients: Sequence[Dataset],
    method: LocalSGD,
    *,
    seed: int = 0,
    executor: str = "auto",
) -> Float[Tensor, "n d"]:
    """The parameters of one model for each client, trained from the module's own on that client's
    data and on nothing else: teachers, or a student. A training that fails leaves the start.

    The module itself stays as it was. Its parameters must be public.

    Raises:
        ConfigError: no clients.

    >>> data = Dataset(torch.eye(2), torch.tensor([0, 1]), classes=2)
    >>> trained_alone(nn.Linear(2, 2), [data] * 3, LocalSGD(), executor="sequential").shape
    torch.Size([3, 6])
    """
    if not clients:
        raise ConfigError("there is nobody to train: give at least one client's data.")
    model = FlatModel(module)
    start = model.read()
    whole = Dataset(
        torch.cat([one.x for one in clients]),
        torch.cat([one.y for one in clients]),
        clients[0].classes,
    )
    ends = torch.tensor([one.n for one in clients]).cumsum(0).tolist()
    index = {
        i: torch.arange(end - one.n, end)
        for i, (one, end) in enumerate(zip(clients, ends, strict=True))
    }
    trainer, _ = executors(
        Workload(model, cross_entropy, method, whole), index, executor, seed=seed
    )
    out = torch.empty(len(clients), model.d)
    tasks = [Task(i, at) for i, at in index.items()]
    try:
        results = trainer.train(Broadcast(0, start), tasks, out, Seeds(seed))
    finally:
        trainer.close()
        model.write(start)
    for row, result in enumerate(results):
        if isinstance(result, Failed):
            out[row] = 0.0
    return out.add_(start)


def votes_of(
    module: nn.Module, teachers: Float[Tensor, "n d"], x: Tensor, batch: int = 1024
) -> Int[Tensor, "n q"]:
    """The class that each teacher holds likeliest for each sample of x [q, ...]."""
    model = FlatModel(module)
    start, training = model.read(), module.training
    module.eval()
    votes = torch.empty(len(teachers), len(x), dtype=torch.int64)
    try:
        with torch.inference_mode():
            for row, parameters in enumerate(teachers):
                model.write(parameters)
                parts = [module(part).argmax(dim=1) for part in torch.split(x, batch)]
                votes[row] = torch.cat(parts)
    finally:
        model.write(start)
        module.train(training)
    return votes
