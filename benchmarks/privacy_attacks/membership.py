"""Membership from the updates of a run."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from benchmarks.harness import Row, gain
from benchmarks.privacy_attacks.runs import chance, mean, play, recipe
from privfl.attacks import Forward, Knowledge, UpdateMembership
from privfl.audit.score import membership
from privfl.core import Dataset, LocalPlan
from privfl.data import load
from privfl.models import initialised, mlp
from privfl.training import LocalSGD, cross_entropy


def stream(quick: bool) -> Iterable[Row]:
    """Membership from the updates of 10 clients x 50 digits, 15 rounds of 2 local epochs; small
    batches blur what a step says.
    """
    split = load("digits")
    x, y = torch.cat([split.train.x, split.test.x]), torch.cat([split.train.y, split.test.y])
    for batch in (50, 16):
        scores: dict[str, list[float]] = {"client": [], "sum": [], "control": []}
        for seed in range(1 if quick else 3):
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
            data = Dataset(x[order], y[order], 10)
            net = initialised(mlp, (1, 8, 8), 10, seed=seed, hidden=(64,))
            training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=batch, epochs=2))
            forward, held = recipe(net, (1, 8, 8), training), data.take(range(1000, data.n))
            knows = Knowledge(forward=forward, candidates=data.take(range(1000)), auxiliary=held)
            views = play(
                net, [data.take(range(50 * i, 50 * i + 50)) for i in range(10)], training, rounds=15
            )
            owner = torch.arange(1000) // 50
            each = UpdateMembership().run(views, knows).scores
            mine = owner == torch.arange(10)[:, None]
            asked = mine | (owner >= 10)
            whole = UpdateMembership(target="sum").run(views, knows).scores
            scores["client"].append(membership(each[asked], mine[asked]).auc.value)
            scores["sum"].append(membership(whole, owner < 10).auc.value)
            scores["control"] += chance(whole, owner < 10, seed)
        target = 1.0 if batch == 50 else None
        yield gain(
            f"update stream, batches of {batch}, per client",
            "must reach",
            "AUC",
            mean(scores["client"]),
            0.98,
            target,
        )
        yield gain(
            f"update stream, batches of {batch}, sum",
            "must reach",
            "AUC",
            mean(scores["sum"]),
            0.75,
            target,
        )
        yield gain(
            f"null control, batches of {batch}",
            "must reach",
            "share of intervals with .5",
            mean(scores["control"]),
            0.95,
        )


def writers(quick: bool) -> Iterable[Row]:
    """Membership from the updates of 10 clients who each are a writer of MNIST, 12 rounds of 2
    local epochs on half of their digits.

    Who is no member: digits of ten other writers, or the other half of the same hands, which is
    harder.
    """
    train = load("mnist").train
    writer = train.attributes["writer"]
    kinds = {-1: "strangers", -2: "the same hands"}
    scores: dict[str, list[float]] = {
        f"{name}{kind}": [] for name in ("client", "sum") for kind in kinds
    } | {"control": []}
    for seed in range(1 if quick else 3):
        some = torch.unique(writer)[
            torch.randperm(539, generator=torch.Generator().manual_seed(seed))
        ]
        own = [(writer == who).nonzero().squeeze(1) for who in some[:20]]
        member = [index[: len(index) // 2] for index in own[:10]]
        same, others = (
            [index[len(index) // 2 :] for index in own[:10]],
            [index[: len(index) // 2] for index in own[10:]],
        )
        pool = train.take(torch.cat([*member, *same, *others]))
        owner = torch.cat(
            [torch.full((len(index),), k) for k, index in enumerate(member)]
            + [torch.full((len(index),), -2) for index in same]
            + [torch.full((len(index),), -1) for index in others]
        )
        held = train.take(
            torch.cat([(writer == who).nonzero().squeeze(1)[:10] for who in some[20:120]])
        )
        net = initialised(mlp, (1, 28, 28), 10, seed=seed, hidden=(32,))
        training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=1 << 20, epochs=2))
        knows = Knowledge(
            forward=Forward(net, cross_entropy, (1, 28, 28), 10, lr=0.1, epochs=2),
            candidates=pool,
            auxiliary=held,
        )
        views = play(net, [train.take(index) for index in member], training, rounds=12)
        each = UpdateMembership().run(views, knows).scores
        whole = UpdateMembership(target="sum").run(views, knows).scores
        mine = owner == torch.arange(10)[:, None]
        for kind in kinds:
            asked, some_of = mine | (owner == kind), (owner >= 0) | (owner == kind)
            scores[f"client{kind}"].append(membership(each[asked], mine[asked]).auc.value)
            scores[f"sum{kind}"].append(membership(whole[some_of], owner[some_of] >= 0).auc.value)
        scores["control"] += chance(whole, owner >= 0, seed)
    for kind, named in kinds.items():
        target = 1.0 if kind == -1 else None
        yield gain(
            f"update stream, MNIST by writer against {named}, per client",
            "must reach",
            "AUC",
            mean(scores[f"client{kind}"]),
            0.98,
            target,
        )
        yield gain(
            f"update stream, MNIST by writer against {named}, sum",
            "must reach",
            "AUC",
            mean(scores[f"sum{kind}"]),
            0.75,
            target,
        )
    yield gain(
        "null control, MNIST by writer",
        "must reach",
        "share of intervals with .5",
        mean(scores["control"]),
        0.95,
    )
