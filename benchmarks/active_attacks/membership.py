"""Who takes part, and whose a sample is: a participant that pushes, source inference."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from benchmarks.active_attacks.runs import auc, run, shuffled
from benchmarks.harness import Row, gain
from benchmarks.privacy_attacks.runs import mean, recipe
from privfl.attacks import (
    GradientAscent,
    Knowledge,
    LossThreshold,
    SourceInference,
    SubjectMembership,
    UpdateMembership,
    WhiteBoxMembership,
)
from privfl.core import Dataset, LocalPlan
from privfl.data import load
from privfl.engine import Attacker
from privfl.models import initialised, mlp
from privfl.training import LocalSGD


def pushing(quick: bool) -> Iterable[Row]:
    """Nasr et al.: 50 digits of one client of 10 against 50 strangers, 10 rounds of 10 local
    epochs; each target asked in 2 rounds.
    """
    training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=16, epochs=10))
    told: dict[str, list[float]] = {
        name: [] for name in ("passive", "active", "white", "loss", "in passive", "in active")
    }
    for seed in range(3 if quick else 8):
        data = shuffled(seed)
        clients = [data.take(range(50 * i, 50 * i + 50)) for i in range(10)]
        truth = torch.arange(100) < 50
        forward = recipe(
            initialised(mlp, (1, 8, 8), 10, seed=seed, hidden=(64,)), (1, 8, 8), training
        )
        for by, member, targets in (
            ("server", 0, data.take([*range(50), *range(500, 550)])),
            ("participant", 9, data.take([*range(0, 450, 9), *range(500, 550)])),
        ):
            for active in (False, True):
                net = initialised(mlp, (1, 8, 8), 10, seed=seed, hidden=(64,))
                gamma = 10.0 if by == "server" else 1.0
                attack = GradientAscent(
                    targets,
                    forward,
                    gamma,
                    by=by,
                    client=0 if by == "server" else None,
                    active=active,
                )
                played = run(
                    net,
                    clients,
                    training,
                    10,
                    attackers=[Attacker("push", attack, frozenset([member]))],
                )
                views = [
                    played.view("server" if by == "server" else "client(9)", number)
                    for number in range(10)
                ]
                name = ("" if by == "server" else "in ") + ("active" if active else "passive")
                told[name].append(auc(attack.run(views).scores, truth))
                if by == "server" and not active:
                    asked = torch.ones(100, dtype=torch.bool)
                    asked[0:50:2] = False
                    knows = Knowledge(
                        forward=forward,
                        candidates=targets,
                        members=data.take(range(0, 50, 2)),
                        auxiliary=data.take(range(600, 1000)),
                    )
                    white = WhiteBoxMembership(client=0).run(views, knows).scores
                    told["white"].append(auc(white[asked], truth[asked]))
                    told["loss"].append(auc(LossThreshold().run(views, knows).scores, truth))
    yield gain(
        "white-box features, server, half of the members known",
        "loss threshold",
        "AUC",
        mean(told["white"]),
        mean(told["loss"]),
    )
    yield gain(
        "gradient ascent by the server",
        "passive, same rounds",
        "AUC",
        mean(told["active"]),
        mean(told["passive"]),
        1.0,
    )
    yield gain(
        "gradient ascent by a participant",
        "passive, same rounds",
        "AUC",
        mean(told["in active"]),
        mean(told["in passive"]),
        1.0,
    )


def whose(quick: bool) -> Iterable[Row]:
    """Ten writers of MNIST train, 8 rounds of 2 local epochs on 20 digits each: whose a digit is,
    and whether a person takes part.
    """
    train = load("mnist").train
    writer = train.attributes["writer"]
    told: dict[str, list[float]] = {
        name: [] for name in ("source", "whitened", "person", "person in the sum")
    }
    for seed in range(2 if quick else 4):
        some = torch.unique(writer)[
            torch.randperm(539, generator=torch.Generator().manual_seed(seed))
        ]
        own = [(writer == who).nonzero().squeeze(1) for who in some[:120]]
        clients = [train.take(index[:20]) for index in own[:10]]
        net = initialised(mlp, (1, 28, 28), 10, seed=seed, hidden=(16,))
        played = run(net, clients, LocalSGD(lr=0.1, plan=LocalPlan(batch_size=32, epochs=2)), 8)
        views = [played.view("server", number) for number in range(8)]
        held = train.take(torch.cat([index[:8] for index in own[20:]]))
        members = Knowledge(
            candidates=train.take(torch.cat([index[:20] for index in own[:10]])), auxiliary=held
        )
        owner = torch.arange(200) // 20
        told["source"].append(_named(SourceInference().run(views, members).scores, owner))
        told["whitened"].append(_named(UpdateMembership().run(views, members).scores, owner))
        fresh = torch.cat([index[20:45] for index in own[:20]])
        people = torch.cat(
            [torch.full((len(index[20:45]),), k) for k, index in enumerate(own[:20])]
        )
        asked = Dataset(train.x[fresh], train.y[fresh], 10, {"writer": people})
        knows = Knowledge(candidates=asked, auxiliary=held)
        truth = torch.unique(people) < 10
        told["person"].append(auc(SubjectMembership().run(views, knows).scores, truth))
        summed = SubjectMembership(base=UpdateMembership(target="sum"))
        told["person in the sum"].append(auc(summed.run(views, knows).scores, truth))
    yield gain(
        "whose digit, by the least loss (Hu et al.)",
        "chance",
        "share named",
        mean(told["source"]),
        0.1,
    )
    yield gain(
        "whose digit, by the whitened filter", "chance", "share named", mean(told["whitened"]), 0.1
    )
    yield gain(
        "whether a writer takes part, by digits never trained on, per client",
        "chance",
        "AUC",
        mean(told["person"]),
        0.5,
    )
    yield gain("the same, from sums", "chance", "AUC", mean(told["person in the sum"]), 0.5)


def _named(scores: Tensor, owner: Tensor) -> float:
    return float((scores.argmax(dim=0) == owner).float().mean())
