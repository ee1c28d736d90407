"""What a client's data has in common beside its labels, planted and real."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from benchmarks.active_attacks.runs import SUMMED, auc, run, shuffled
from benchmarks.harness import Row, gain
from benchmarks.privacy_attacks.runs import mean
from privfl.attacks import Knowledge, MultiTask, PropertyInference
from privfl.audit import Shadows
from privfl.core import Dataset, LocalPlan
from privfl.data import load
from privfl.engine import Attacker
from privfl.models import initialised, mlp
from privfl.training import LocalSGD


def marked(data: Dataset, share: float) -> Dataset:
    """The first images mirrored, which is noted."""
    some = torch.arange(data.n) < round(share * data.n)
    return Dataset(
        torch.where(some.view(-1, 1, 1, 1), data.x.flip(-1), data.x),
        data.y,
        data.classes,
        {"mirrored": some.long()},
    )


def properties(quick: bool) -> Iterable[Row]:
    """Melis et al.: whose digits are mirrored (10 or 30 %), per client, from sums, with a
    participant who teaches the model; real facts.
    """
    training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=16, epochs=2))
    told: dict[str, list[float]] = {name: [] for name in ("30", "passive", "active", "sum")}
    for seed in range(3 if quick else 6):
        data = shuffled(seed)
        held, me = marked(data.take(range(500, 1100)), 0.5), marked(data.take(range(400, 480)), 0.5)

        def scored(
            share: float,
            active: bool,
            data: Dataset = data,
            held: Dataset = held,
            me: Dataset = me,
            seed: int = seed,
        ) -> float:
            clients = [
                marked(data.take(range(40 * i, 40 * i + 40)), share if i % 2 else 0.0)
                for i in range(10)
            ]
            net = initialised(mlp, (1, 8, 8), 10, seed=seed, hidden=(32,))
            attackers = (
                [Attacker("teacher", MultiTask("mirrored"), frozenset([10]))] if active else []
            )
            played = run(net, [*clients, me], training, 10, attackers=attackers)
            knows = Knowledge(
                auxiliary=held, attribute="mirrored", trainer=Shadows(net, training), seed=seed
            )
            result = PropertyInference(share=share).run(
                [played.view("server", number) for number in range(6, 10)], knows
            )
            truth = (torch.arange(10) % 2 == 1).repeat(4)
            return auc(result.scores[:, :10].flatten(), truth)

        told["30"].append(scored(0.3, False))
        told["passive"].append(scored(0.1, False))
        told["active"].append(scored(0.1, True))
        told["sum"].append(_appears(data, held, training, seed))
    yield gain("30 % mirrored, per client", "chance", "AUC", mean(told["30"]), 0.5)
    yield gain(
        "10 % mirrored, per client, a participant teaches",
        "passive",
        "AUC",
        mean(told["active"]),
        mean(told["passive"]),
    )
    yield gain(
        "one of 10 clients mirrors in some rounds: which, from SecAgg sums",
        "chance",
        "AUC",
        mean(told["sum"]),
        0.5,
    )
    yield from _real(quick)


def _appears(data: Dataset, held: Dataset, training: LocalSGD, seed: int) -> float:
    """The property appears in rounds 3 to 5 of 8 at one client; the sum's score round by round
    tells when.
    """
    net = initialised(mlp, (1, 8, 8), 10, seed=seed, hidden=(32,))
    knows = Knowledge(
        auxiliary=held, attribute="mirrored", trainer=Shadows(net, training), seed=seed
    )
    plain = [marked(data.take(range(40 * i, 40 * i + 40)), 0.0) for i in range(10)]
    with_it = [marked(plain[0], 0.5), *plain[1:]]
    scores: list[float] = []
    for held_by in (plain, with_it, plain):
        played = run(net, held_by, training, 3, **SUMMED)
        for number in range(3):
            result = PropertyInference(share=0.5, target="sum").run(
                played.view("server", number), knows
            )
            scores.append(float(result.scores))
    return auc(torch.tensor(scores), torch.tensor([False] * 3 + [True] * 3 + [False] * 3))


def _real(quick: bool) -> Iterable[Row]:
    """Facts nobody planted: whether an MNIST client is a student or staff, whether an Adult
    client's people are mostly men.
    """
    for name, attribute, model, options, note in (
        ("mnist", "group", mlp, {"hidden": (32,)}, "students' or staff's digits"),
        ("adult", "sex", mlp, {"hidden": (32,)}, "80 % or 20 % men"),
    ):
        train = load(name).train
        fact = train.attributes[attribute]
        kinds = torch.bincount(fact).argsort(descending=True)[:2]
        is_one = fact == kinds[0]
        told = []
        for seed in range(2 if quick else 4):
            coins = torch.Generator().manual_seed(seed)
            one, two = (
                index[torch.randperm(len(index), generator=coins)]
                for index in (is_one.nonzero()[:, 0], (~is_one).nonzero()[:, 0])
            )
            share = 1.0 if name == "mnist" else 0.8
            clients = []
            for i in range(10):
                k = round(100 * (share if i % 2 else 1 - share))
                clients.append(
                    train.take(
                        torch.cat([one[100 * i : 100 * i + k], two[100 * i : 100 * i + 100 - k]])
                    )
                )
            held = train.take(torch.cat([one[1000:1800], two[1000:1800]]))
            known = Dataset(
                held.x, held.y, held.classes, {attribute: (torch.arange(1600) < 800).long()}
            )
            training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=20, epochs=2))
            net = initialised(model, tuple(train.x.shape[1:]), train.classes, seed=seed, **options)
            played = run(net, [Dataset(c.x, c.y, c.classes) for c in clients], training, 4)
            knows = Knowledge(
                auxiliary=known, attribute=attribute, trainer=Shadows(net, training), seed=seed
            )
            result = PropertyInference(share=share, contrast=1 - share).run(
                [played.view("server", n) for n in range(4)], knows
            )
            told.append(auc(result.scores.flatten(), (torch.arange(10) % 2 == 1).repeat(4)))
        yield gain(f"{name}: {note}", "chance", "AUC", mean(told), 0.5)
