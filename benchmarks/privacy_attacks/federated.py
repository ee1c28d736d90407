"""Shadow federations against shadows trained in one place."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch

from benchmarks.harness import Row, cost, gain
from benchmarks.privacy_attacks.runs import mean, play, recipe
from privfl.attacks import Knowledge, Scores, ShadowMembership
from privfl.audit.score import membership
from privfl.audit.shadows import FederatedShadows, Shadows
from privfl.core import Dataset, LocalPlan
from privfl.data import load
from privfl.models import initialised, mlp
from privfl.training import LocalSGD

CLIENTS, EACH, ROUNDS = 10, 50, 15


def federated(quick: bool) -> Iterable[Row]:
    """RMIA and LiRA on the released model of 10 clients x 50 digits after 15 rounds of 2 epochs,
    with 16 shadows of either kind; and what the shadows cost.
    """
    split = load("digits")
    x, y = torch.cat([split.train.x, split.test.x]), torch.cat([split.train.y, split.test.y])
    n = CLIENTS * EACH
    areas: dict[tuple[str, str], list[float]] = {}
    seconds: dict[str, list[float]] = {"federated": [], "central": []}
    for seed in range(1 if quick else 3):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        data = Dataset(x[order], y[order], 10)
        net = initialised(mlp, (1, 8, 8), 10, seed=seed, hidden=(64,))
        training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=16, epochs=2))
        clients = [data.take(range(EACH * k, EACH * k + EACH)) for k in range(CLIENTS)]
        views = play(net, clients, training, rounds=ROUNDS)
        shadows = Shadows(net, training)
        knows = Knowledge(
            forward=recipe(net, (1, 8, 8), training),
            candidates=data.take(range(2 * n)),
            auxiliary=data.take(range(2 * n, data.n)),
            trainer=shadows,
            federated=FederatedShadows(shadows),
            seed=seed,
        )
        truth = torch.arange(2 * n) < n
        for train in ("federated", "central"):
            for statistic in ("rmia", "lira_online"):
                attack = ShadowMembership(statistic, train=train, epochs=2 * ROUNDS)
                began = time.process_time()
                told = attack.run(views, knows)
                seconds[train].append(time.process_time() - began)
                if not isinstance(told, Scores):
                    raise TypeError(str(told))
                area = membership(told.scores, truth).auc.value
                areas.setdefault((statistic, train), []).append(area)
    for statistic in ("rmia", "lira_online"):
        ours, theirs = (mean(areas[statistic, train]) for train in ("federated", "central"))
        case = f"{statistic}, 16 shadow federations"
        yield gain(case, "16 central shadows", "AUC", ours, theirs)
        if statistic == "rmia":
            yield gain(case, "central and .06", "AUC", ours, theirs + 0.06, 1.0)
    yield cost(
        "16 shadow federations",
        "16 central shadows",
        "CPU s",
        min(seconds["federated"]),
        min(seconds["central"]),
    )
