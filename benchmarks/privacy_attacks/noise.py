"""Membership from updates that carry noise: a filter that knows the noise, beside the plain
cosine.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from benchmarks.harness import Row, gain
from benchmarks.privacy_attacks.runs import mean
from privfl import Federation
from privfl.attacks import ClientScores, Knowledge, Scores, UpdateMembership
from privfl.audit.score import membership
from privfl.config import AuditConfig
from privfl.core import Dataset, LocalPlan, View
from privfl.data import load
from privfl.dp import Clip, LocalGaussian
from privfl.models import initialised, mlp
from privfl.training import LocalSGD

CLIENTS, EACH = 10, 50


def noisy_views(
    deviation: float, seed: int, rounds: int, *, repeatable: bool = False
) -> tuple[list[View], Knowledge]:
    """The server's views of clients who clip to 1 and add noise, and a pool of which the first half
    are members, client by client; each client's others follow in the same order. The noise is the
    operating system's, or ``repeatable``: of the seed.
    """
    split = load("digits")
    x, y = torch.cat([split.train.x, split.test.x]), torch.cat([split.train.y, split.test.y])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    data = Dataset(x[order], y[order], 10)
    n = CLIENTS * EACH
    clients = [data.take(range(EACH * k, EACH * k + EACH)) for k in range(CLIENTS)]
    noise = LocalGaussian(deviation / 2) if deviation else None
    run = Federation(
        initialised(mlp, (1, 8, 8), 10, seed=seed, hidden=(64,)),
        clients,
        data.take(range(2 * n, 2 * n + 50)),
        rounds=rounds,
        training=LocalSGD(lr=0.1, plan=LocalPlan(batch_size=EACH, epochs=2), weighting="uniform"),
        bound=Clip(l2=1.0),
        mechanism=noise,
        relation="replace_one",
        executor="sequential",
        audit=AuditConfig(keep="all"),
        seed=seed,
        repeatable=repeatable,
    ).run()
    views = [run.view("server", number) for number in range(rounds)]
    held = data.take(range(2 * n, data.n))
    return views, Knowledge(candidates=data.take(range(2 * n)), auxiliary=held)


def scored(views: list[View], knows: Knowledge, attack: UpdateMembership) -> float:
    """The AUC of members against as many other samples, client by client."""
    told = attack.run(views, knows)
    truth = torch.arange(2 * CLIENTS * EACH) < CLIENTS * EACH
    owner = torch.arange(CLIENTS).repeat_interleave(EACH).repeat(2)
    if isinstance(told, ClientScores):
        scores = told.scores[owner, torch.arange(len(owner))]
    elif isinstance(told, Scores):
        scores = told.scores
    else:
        raise TypeError(str(told))
    return membership(scores, truth, clusters=owner).auc.value


def noise(quick: bool) -> Iterable[Row]:
    """The whitened filter against the cosine, per client and of the sum, over the deviation of the
    noise that each client adds to a value after its clip to 1.
    """
    for deviation in (0.0, 0.02, 0.05, 0.1, 0.2):
        played = [noisy_views(deviation, seed, 15) for seed in range(1 if quick else 3)]
        for target in ("client", "sum"):
            aware, plain = (
                mean(
                    [
                        scored(*one, UpdateMembership(statistic=statistic, target=target))
                        for one in played
                    ]
                )
                for statistic in ("whitened", "cosine")
            )
            case = f"noise of {deviation} at each client, {target}"
            yield gain(case, "cosine less .02", "AUC", aware, plain - 0.02, 1.0)
            if deviation == 0.02 and target == "client":
                yield gain(case, "cosine and .10", "AUC", aware, plain + 0.1, 1.0)
