"""Runs that are kept whole, and what is read off them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from privfl import Federation
from privfl.audit.score import membership
from privfl.config import AuditConfig
from privfl.core import Dataset
from privfl.crypto import SecAgg
from privfl.data import load
from privfl.dp import Clip
from privfl.training import FedSGD, LocalSGD

SUMMED: Mapping[str, Any] = {"bound": Clip(l2=1.0), "channel": SecAgg(fidelity="ideal", bits=24)}
ONE = FedSGD(lr=0.1)


def run(
    net: nn.Module, clients: list[Dataset], training: LocalSGD, rounds: int = 1, **options: Any
) -> Any:
    """A federation kept whole."""
    options = {"executor": "sequential", "audit": AuditConfig(keep="all"), **options}
    return Federation(net, clients, clients[0], rounds=rounds, training=training, **options).run()


def shuffled(seed: int) -> Dataset:
    """All 1,797 digits."""
    split = load("digits")
    x, y = torch.cat([split.train.x, split.test.x]), torch.cat([split.train.y, split.test.y])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return Dataset(x[order], y[order], 10)


def auc(scores: Tensor, truth: Tensor) -> float:
    """Area under the ROC."""
    return membership(scores, truth).auc.value
