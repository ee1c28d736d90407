"""Adversaries who do more than look, and what stops whom: active servers, a pushing participant,
words, properties, noise.

One thread, means over seeds. Rows without a peer measure against the figure that must be reached,
or are shown only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Case, Row, gain, main
from benchmarks.privacy_attacks import HIGH, LOW, convnet, decibels, large, mean, play, recipe
from privfl import Federation
from privfl.aggregators import Quantise, Sparsify
from privfl.attacks import (
    DLG,
    IDLG,
    EmbeddingLeakage,
    Fishing,
    GradientAscent,
    GradientInversion,
    Imprint,
    Knowledge,
    LabelCounts,
    LinearLeakage,
    LossThreshold,
    MultiTask,
    PropertyInference,
    SourceInference,
    SubjectMembership,
    UpdateMembership,
    WhiteBoxMembership,
    imprinted,
)
from privfl.audit import Shadows
from privfl.audit.score import membership, pictures
from privfl.config import AuditConfig
from privfl.core import Dataset, LocalPlan
from privfl.crypto import SecAgg
from privfl.data import files, load
from privfl.data.shakespeare import speeches
from privfl.dp import Clip
from privfl.engine import Attacker
from privfl.models import initialised, lenet, lstm, mlp
from privfl.training import FedSGD, LocalSGD, Soteria

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


def active_server(quick: bool) -> Iterable[Row]:
    """Planted bins against what SecAgg opens of 8 clients; class fishing of one client in clear,
    and what of it is in a SecAgg sum: the bait is another model than the others are sent, and who
    was sent another model is in no sum with them. A planted layer is sent to everybody alike.
    """
    data = large(scaled=True)
    filled, caught, out = [], [], []
    for seed in range(2 if quick else 5):
        index = torch.randperm(data.n, generator=torch.Generator().manual_seed(seed))
        clients = [data.take(part) for part in index[:64].chunk(8)]
        net = initialised(
            lambda shape, classes: imprinted(mlp(shape, classes, hidden=(32,)), shape, 1024),
            (1, 32, 32),
            10,
            seed=seed,
        )
        attack = Imprint(inputs=1024, bins=1024, outputs=1024).fitted(data.take(index[64:564]))
        played = run(
            net,
            clients,
            ONE,
            attackers=[Attacker("imprint", attack, frozenset(range(8)))],
            **SUMMED,
        )
        found = pictures(
            attack.run(played.view("server", 0)).samples, data.x[index[:64]], peak=HIGH - LOW
        )  # type: ignore[attr-defined]
        filled.append(float((found.psnr > 40).float().mean()))
        wanted = int((torch.bincount(clients[3].y, minlength=10) == 1).nonzero()[0])
        net = initialised(mlp, (1, 32, 32), 10, seed=seed, hidden=(64,))
        bait = Fishing(features=64, classes=10, wanted=wanted, victim=3)
        fishing = [Attacker("fishing", bait, frozenset(range(8)))]
        hidden = run(net, clients, ONE, attackers=fishing, **SUMMED)
        opened = hidden.transcripts[0].carried.opened["delta"]
        out.append(float(opened is None or 3 not in opened.survivors))
        net = initialised(mlp, (1, 32, 32), 10, seed=seed, hidden=(64,))
        played = run(net, clients, ONE, attackers=fishing)
        true = clients[3].x[clients[3].y == wanted]
        caught.append(
            float(pictures(bait.run(played.view("server", 0)).samples, true, peak=HIGH - LOW).psnr)
        )  # type: ignore[attr-defined]
    yield gain(
        "Robbing the Fed, SecAgg sum of 8 x 8, 1,024 bins",
        "shown",
        "share over 40 dB",
        mean(filled),
        1.0,
    )
    yield gain(
        "fishing one sample of one client, in clear, MLP",
        "shown",
        "PSNR, dB",
        mean(caught),
        40.0,
    )
    yield gain(
        "fishing one client out of SecAgg",
        "all",
        "share of baited clients that are in no sum",
        mean(out),
        1.0,
        1.0,
    )


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
                )  # type: ignore[arg-type]
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
                told[name].append(auc(attack.run(views).scores, truth))  # type: ignore[attr-defined]
                if by == "server" and not active:
                    asked = torch.ones(100, dtype=torch.bool)
                    asked[0:50:2] = False
                    knows = Knowledge(
                        forward=forward,
                        candidates=targets,
                        members=data.take(range(0, 50, 2)),
                        auxiliary=data.take(range(600, 1000)),
                    )
                    white = WhiteBoxMembership(client=0).run(views, knows).scores  # type: ignore[attr-defined]
                    told["white"].append(auc(white[asked], truth[asked]))
                    told["loss"].append(auc(LossThreshold().run(views, knows).scores, truth))  # type: ignore[attr-defined]
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
        told["source"].append(_named(SourceInference().run(views, members).scores, owner))  # type: ignore[attr-defined]
        told["whitened"].append(_named(UpdateMembership().run(views, members).scores, owner))  # type: ignore[attr-defined]
        fresh = torch.cat([index[20:45] for index in own[:20]])
        people = torch.cat(
            [torch.full((len(index[20:45]),), k) for k, index in enumerate(own[:20])]
        )
        asked = Dataset(train.x[fresh], train.y[fresh], 10, {"writer": people})
        knows = Knowledge(candidates=asked, auxiliary=held)
        truth = torch.unique(people) < 10
        told["person"].append(auc(SubjectMembership().run(views, knows).scores, truth))  # type: ignore[attr-defined]
        summed = SubjectMembership(base=UpdateMembership(target="sum"))
        told["person in the sum"].append(auc(summed.run(views, knows).scores, truth))  # type: ignore[attr-defined]
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


def words(quick: bool) -> Iterable[Row]:
    """The words of eight roles of Shakespeare (400 each), next-word LSTM, 2 local epochs."""
    path = files.find("shakespeare", "tinyshakespeare/input.txt", None)
    spoken = {
        role: re.findall(r"[a-z']+", " ".join(lines).lower())
        for role, lines in speeches(files.read_text(path), path).items()
    }
    code = {
        word: i
        for i, (word, _) in enumerate(
            Counter(w for said in spoken.values() for w in said).most_common(3000)
        )
    }
    clients = []
    for role in sorted(spoken, key=lambda r: -len(spoken[r]))[:8]:
        said = torch.tensor([code[w] for w in spoken[role] if w in code][:401])
        clients.append(Dataset(said[:-1].view(40, 10), said[1:].view(40, 10), 3000))
    training = LocalSGD(lr=0.5, plan=LocalPlan(batch_size=8, epochs=2))
    for name, target, options in (("one client", "client", {}), ("SecAgg sum of 8", "sum", SUMMED)):
        view = run(
            initialised(lstm, (10,), 3000, seed=0, hidden=32), clients, training, **options
        ).view("server", 0)
        found = set(EmbeddingLeakage(target=target).run(view).tokens.tolist())  # type: ignore[arg-type,attr-defined]
        true = set(
            (clients[0].x if target == "client" else torch.cat([c.x for c in clients]))
            .flatten()
            .tolist()
        )
        yield gain(
            f"words of {name}, of a vocabulary of 3,000",
            "shown",
            "precision",
            len(found & true) / max(len(found), 1),
            1.0,
        )
        yield gain(
            f"words of {name}, of a vocabulary of 3,000",
            "shown",
            "recall",
            len(found & true) / len(true),
            1.0,
        )


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
            return auc(result.scores[:, :10].flatten(), truth)  # type: ignore[attr-defined]

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
            scores.append(float(result.scores))  # type: ignore[attr-defined]
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
            told.append(auc(result.scores.flatten(), (torch.arange(10) % 2 == 1).repeat(4)))  # type: ignore[attr-defined]
        yield gain(f"{name}: {note}", "chance", "AUC", mean(told), 0.5)


def published(quick: bool) -> Iterable[Row]:
    """What the papers report: DLG fails on ReLU and on large batches, iDLG reads the label, Geiping
    stands training.
    """
    data = large(scaled=False)
    seeds = range(2 if quick else 4)
    for name, b, smooth, attack in (
        ("DLG, sigmoid LeNet, b=1", 1, True, DLG(restarts=3)),
        ("iDLG, sigmoid LeNet, b=1", 1, True, IDLG(restarts=3)),
        ("DLG, ReLU ConvNet, b=1", 1, False, DLG(restarts=1)),
        ("DLG, sigmoid LeNet, b=8", 8, True, DLG(restarts=1, iterations=200)),
    ):
        quality, right = [], []
        for seed in seeds:
            client = data.take(range(seed * b, seed * b + b))
            net = initialised(lenet, (1, 32, 32), 10, seed=seed) if smooth else convnet(seed)
            view = play(net, [client], ONE)[0]
            result = attack.run(
                view, Knowledge(forward=recipe(net, (1, 32, 32), ONE, scaled=False), seed=seed)
            )
            quality.append(float(pictures(result.samples.clamp(0, 1), client.x).psnr.mean()))  # type: ignore[attr-defined]
            right.append(
                float((result.labels.sort().values == client.y.sort().values).float().mean())
            )  # type: ignore[attr-defined]
        yield gain(name, "shown", "PSNR, dB", mean(quality), 20.0)
        yield gain(name, "shown", "share of labels", mean(right), 1.0)
    for steps in (0, 50, 300):
        quality = []
        for seed in seeds:
            net, client = convnet(seed), data.take([seed])
            descent = torch.optim.SGD(net.parameters(), lr=0.1)
            for step in range(steps):
                batch = torch.arange(step * 32, step * 32 + 32) % 1000 + 400
                loss = nn.functional.cross_entropy(net(data.x[batch]), data.y[batch])
                descent.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                descent.step()
            view = play(net, [client], ONE)[0]
            knows = Knowledge(forward=recipe(net, (1, 32, 32), ONE, scaled=False), seed=seed)
            quality.append(decibels(GradientInversion(iterations=500), view, client.x, knows)[0])
        yield gain(
            f"Inverting Gradients, ReLU ConvNet, {steps} steps of training",
            "shown",
            "PSNR, dB",
            mean(quality),
            20.0,
        )


def noise(quick: bool) -> Iterable[Row]:
    """At which local noise (deviation over the clip, in every entry) each attack dies, and what is
    left of the model.
    """
    from privfl.dp import LocalGaussian

    training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=50, epochs=2), weighting="uniform")
    for z in (0.0, 1e-4, 1e-3, 1e-2, 0.05, 0.3):
        told: dict[str, list[float]] = {
            name: [] for name in ("closed", "matching", "labels", "stream", "accuracy")
        }
        for seed in range(2 if quick else 4):
            data = shuffled(seed)
            layer: dict[str, Any] = {"bound": Clip(l2=1.0)}
            if z:
                layer |= {"mechanism": LocalGaussian(noise_multiplier=z / 2)}
            small = [data.take(range(4 * i, 4 * i + 4)) for i in range(10)]
            wide = initialised(mlp, (1, 8, 8), 10, seed=seed, hidden=(320,))
            step = FedSGD(lr=1.0, weighting="uniform")
            view = run(wide, small, step, **layer).view("server", 0)
            for name, attack in (
                ("closed", LinearLeakage(starts=32, tries=4)),
                ("matching", GradientInversion(iterations=300)),
            ):
                result = attack.run(view, Knowledge(labels=small[0].y, seed=seed))
                told[name].append(
                    float(pictures(result.samples, small[0].x, peak=HIGH - LOW).psnr.mean())
                )  # type: ignore[attr-defined]
            counts = (
                LabelCounts(target="sum")
                .run(view, Knowledge(auxiliary=data.take(range(1200, 1700))))
                .counts
            )  # type: ignore[attr-defined]
            true = torch.bincount(torch.cat([c.y for c in small]), minlength=10)
            told["labels"].append(float(torch.minimum(counts, true).sum()) / 40)
            net = initialised(mlp, (1, 8, 8), 10, seed=seed, hidden=(64,))
            clients = [data.take(range(50 * i, 50 * i + 50)) for i in range(10)]
            played = Federation(
                net,
                clients,
                data.take(range(1200, 1797)),
                rounds=12,
                training=training,
                executor="sequential",
                audit=AuditConfig(keep="all"),
                **layer,
            ).run()
            knows = Knowledge(
                candidates=data.take(range(1000)), auxiliary=data.take(range(1000, 1600))
            )
            each = (
                UpdateMembership().run([played.view("server", n) for n in range(12)], knows).scores
            )  # type: ignore[attr-defined]
            owner = torch.arange(1000) // 50
            mine = owner == torch.arange(10)[:, None]
            asked = mine | (owner >= 10)
            told["stream"].append(auc(each[asked], mine[asked]))
            told["accuracy"].append(played.accuracy)
        for name, metric in (
            ("closed", "PSNR, dB"),
            ("matching", "PSNR, dB"),
            ("labels", "share right"),
            ("stream", "AUC"),
            ("accuracy", "accuracy"),
        ):
            label = {
                "closed": "closed form, b=4",
                "matching": "Inverting Gradients, b=4",
                "labels": "label counts of the sum of 10 x 4",
                "stream": "update stream per client",
                "accuracy": "test accuracy after 12 rounds",
            }[name]
            yield gain(f"noise {z:g} of the clip: {label}", "shown", metric, mean(told[name]), 1.0)


def defences(quick: bool) -> Iterable[Row]:
    """Practical defences without a guarantee, against Inverting Gradients that knows of them (ours)
    and that does not (theirs).
    """
    data = large(scaled=False)
    table: tuple[tuple[str, FedSGD, list[Any]], ...] = (
        ("none", ONE, []),
        ("90 % pruned", ONE, [Sparsify(keep=0.1)]),
        ("99 % pruned", ONE, [Sparsify(keep=0.01)]),
        ("8 bits", ONE, [Quantise(8)]),
        ("4 bits", ONE, [Quantise(4)]),
        ("Soteria, half of the features", FedSGD(lr=0.1, gradient=Soteria(0.5)), []),
        ("Soteria, 80 % of the features", FedSGD(lr=0.1, gradient=Soteria(0.8)), []),
    )
    for name, training, seats in table:
        quality: dict[bool, list[float]] = {True: [], False: []}
        for seed in range(2 if quick else 4):
            client, net = data.take([seed]), convnet(seed)
            view = run(net, [client], training, defences=seats).view("server", 0)
            knows = Knowledge(forward=recipe(net, (1, 32, 32), ONE, scaled=False), seed=seed)
            for adaptive, found in quality.items():
                found.append(
                    decibels(
                        GradientInversion(iterations=500, adaptive=adaptive), view, client.x, knows
                    )[0]
                )
        yield gain(
            f"ReLU ConvNet, b=1, {name}",
            "not adaptive",
            "PSNR, dB",
            mean(quality[True]),
            mean(quality[False]),
        )


CASES: dict[str, Case] = {
    "active_server": active_server,
    "pushing": pushing,
    "whose": whose,
    "words": words,
    "properties": properties,
    "published": published,
    "noise": noise,
    "defences": defences,
}

if __name__ == "__main__":
    main("active_attacks", CASES)
