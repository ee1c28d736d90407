"""What hybrids give away over rounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from sklearn.metrics import roc_auc_score

from benchmarks.harness import Row, gain
from privfl import Federation
from privfl.attacks import ClientUpdates, GradientDisaggregation, PropertyScores, SelectionProfile

LEAKY: dict[str, Any] = {
    "data": {
        "name": "digits",
        "clients": 18,
        "partition": {"name": "dirichlet", "alpha": 0.3, "min_size": 20},
    },
    "model": "softmax",
    "training": {"name": "sgd", "lr": 0.02, "epochs": 1, "weighting": "uniform"},
    "bound": {"name": "clip", "l2": 1.0},
    "executor": "sequential",
    "audit": {"keep": "all", "evaluate_every": 12},
}
"""Clients with little, uneven data, whose updates are much the same from round to round."""


def leaks(quick: bool) -> Iterator[Row]:
    """What group means give away over rounds (a cosine), and what selections do (an AUC)."""
    for size in (2, 3, 6):
        channel = {"name": "bucketed_secagg", "size": size}
        run = Federation.from_config({**LEAKY, "rounds": 12, "channel": channel}).run()
        for rounds in (2, 4, 8, 12):
            found = GradientDisaggregation().run(
                [run.view("server", number) for number in range(rounds)]
            )
            if not isinstance(found, ClientUpdates):
                raise RuntimeError(str(found))
            sent = torch.stack(
                [
                    torch.stack([run.transcript(n).updates[c].delta for n in range(rounds)]).mean(0)
                    for c in found.clients
                ]
            )
            cosine = float(
                torch.cosine_similarity(found.updates, sent - sent.mean(dim=0), dim=1).mean()
            )
            yield gain(
                f"groups of {size}",
                "what was sent",
                f"cosine of what {rounds} rounds give away",
                cosine,
                1.0,
            )
    config = {
        **LEAKY,
        "rounds": 10,
        "channel": {"name": "two_server", "security": "semi_honest"},
        "aggregator": {"name": "krum", "f": 4, "m": 10},
    }
    config |= {
        "data": {**LEAKY["data"], "clients": 20},
        "training": {**LEAKY["training"], "lr": 0.1},
    }
    for seed in (0, 1, 2):
        federation = Federation.from_config({**config, "seed": seed})
        run, workload = federation.run(), federation.scenario.workload
        told = SelectionProfile().run([run.view("server", number) for number in range(10)])
        if not isinstance(told, PropertyScores):
            raise RuntimeError(str(told))
        shares = torch.stack(
            [
                workload.data.take(i).y.bincount(minlength=10) / len(i)
                for i in federation.scenario.clients.values()
            ]
        )
        variety = -(shares * (shares + 1e-9).log()).sum(dim=1)
        auc = float(roc_auc_score((variety > variety.median()).numpy(), told.scores[-1].numpy()))
        yield gain(
            f"selections of multi-Krum, seed {seed}",
            "chance",
            "AUC: whose labels are varied",
            auc,
            0.5,
        )
