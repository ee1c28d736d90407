"""LiRA with shadow models, and training them stacked."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from benchmarks.harness import Row, cost, gain
from benchmarks.privacy_attacks.runs import mean, recipe
from privfl.attacks import Knowledge, LossThreshold, ShadowMembership
from privfl.audit import Shadows
from privfl.audit.score import membership
from privfl.core import Dataset, FlatModel, LocalPlan, RoundPlan, View
from privfl.data import load
from privfl.models import initialised, mlp
from privfl.training import LocalSGD, cross_entropy
from privfl.training.stacked import Stacked


def shadows(quick: bool) -> Iterable[Row]:
    """LiRA against the loss threshold on 500 digits and their true labels; shadows stacked against
    one by one.
    """
    split = load("digits")
    x, y = torch.cat([split.train.x, split.test.x]), torch.cat([split.train.y, split.test.y])
    ours, theirs = [], []
    training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=16, epochs=40))
    net = initialised(mlp, (1, 8, 8), 10, seed=0, hidden=(128,))
    train = Shadows(net, training)
    start = FlatModel(net).read()
    for seed in range(3 if quick else 6):
        coins = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(x), generator=coins)
        data = Dataset(x[order], y[order], 10)
        after = start + train(start, data, [torch.arange(500)], seed=99 + seed)[0]
        view = View("server", RoundPlan(0, (0,), len(start), float("inf")), start, after, {})
        knows = Knowledge(
            forward=recipe(net, (1, 8, 8), training),
            candidates=data.take(range(1000)),
            auxiliary=data.take(range(1000, data.n)),
            trainer=train,
            seed=seed,
        )
        inside = torch.arange(1000) < 500
        found = ShadowMembership(epochs=40).run(view, knows).scores
        ours.append(membership(found, inside).at_hundredth.value)
        theirs.append(
            membership(LossThreshold().run(view, knows).scores, inside).at_hundredth.value
        )
    yield gain(
        "LiRA online, K=16, 500 digits, MLP of 128, 40 epochs",
        "loss threshold",
        "TPR at 1 % FPR",
        mean(ours),
        max(mean(theirs), 0.002),
        5.0,
    )
    yield from _stacking(net, data, start)


def _stacking(net: nn.Module, data: Dataset, start: Tensor) -> Iterable[Row]:
    """64 shadows at once and one by one."""
    from privfl.core import Broadcast, Seeds
    from privfl.training import Sequential, Task, Workload

    training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=16, epochs=2))
    workload = Workload(FlatModel(net), cross_entropy, training, data)
    tasks = [
        Task(k, torch.randperm(1000, generator=torch.Generator().manual_seed(k))[:500])
        for k in range(64)
    ]
    out = torch.empty(64, workload.model.d)
    broadcast = Broadcast(0, start)
    seconds = {}
    for name, executor in (("stacked", Stacked(workload)), ("sequential", Sequential(workload))):
        began = time.process_time()
        executor.train(broadcast, tasks, out, Seeds(0))
        seconds[name] = time.process_time() - began
    yield cost("64 shadows", "one by one", "CPU s", seconds["stacked"], seconds["sequential"], 4.0)
