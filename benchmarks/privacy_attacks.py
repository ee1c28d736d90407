"""Attacks that only look: what they recover, how fast, and what knowing the defence is worth. One
thread, means over seeds.

Rows without a peer measure against the figure that must be reached: ``theirs`` is that figure.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.breaching_env import breaching
from benchmarks.harness import Case, Row, cost, gain, main
from privfl import Federation
from privfl.attacks import (
    Forward,
    GaussNewton,
    GradientInversion,
    Inference,
    Knowledge,
    LabelCounts,
    LinearLeakage,
    LossThreshold,
    ShadowMembership,
    UpdateMembership,
)
from privfl.audit import Shadows
from privfl.audit.score import membership, null_membership, pictures
from privfl.config import AuditConfig
from privfl.core import Dataset, FlatModel, LocalPlan, RoundPlan, View
from privfl.data import load
from privfl.dp import Clip
from privfl.models import initialised, lenet, mlp
from privfl.training import FedSGD, LocalSGD, cross_entropy
from privfl.training.stacked import Stacked

MEAN, STD = 0.3053, 0.3761
LOW, HIGH = -MEAN / STD, (1 - MEAN) / STD


def large(*, scaled: bool) -> Dataset:
    """The digits at 32 x 32: scaled to mean 0 and deviation 1 as loaders hand them out, or as
    pixels in [0, 1].
    """
    digits = load("digits").train
    x = functional.interpolate(digits.x, size=(32, 32), mode="bilinear")
    return Dataset(x if scaled else (x * STD + MEAN).clamp(0, 1), digits.y, 10)


def convnet(seed: int, channels: int = 1) -> nn.Module:
    """A ReLU net of three convolutions."""

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        convolutions = [
            nn.Conv2d(channels, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, 1, 1),
            nn.ReLU(),
        ]
        return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(2048, classes))

    return initialised(build, (channels, 32, 32), 10, seed=seed)


def play(
    net: nn.Module,
    clients: list[Dataset],
    training: LocalSGD,
    l2: float = float("inf"),
    rounds: int = 1,
) -> list[View]:
    """The server's views of a run over the plain channel."""
    run = Federation(
        net,
        clients,
        clients[0],
        rounds=rounds,
        training=training,
        executor="sequential",
        audit=AuditConfig(keep="all"),
        bound=Clip(l2=l2) if l2 < float("inf") else None,
    ).run()
    return [run.view("server", number) for number in range(rounds)]


def recipe(
    net: nn.Module,
    shape: tuple[int, ...],
    training: LocalSGD,
    l2: float = float("inf"),
    *,
    scaled: bool = True,
) -> Forward:
    """The public recipe, with the range of the digits' pixels."""
    plan = training.plan
    low, high = (LOW, HIGH) if scaled else (0.0, 1.0)
    return Forward(
        net,
        cross_entropy,
        shape,
        10,
        lr=training.lr,
        low=(low,),
        high=(high,),
        l2=l2,
        batch_size=plan.batch_size,
        epochs=plan.epochs,
        steps=plan.steps,
    )


def decibels(attack: Inference, view: View, true: Tensor, knows: Knowledge) -> tuple[float, float]:
    """Mean PSNR in dB of pixels in [0, 1] after matching, and CPU seconds."""
    began = time.process_time()
    result = attack.run(view, knows)
    seconds = time.process_time() - began
    return float(pictures(result.samples, true).psnr.mean()), seconds  # type: ignore[attr-defined]


def mean(values: list[float]) -> float:
    """The mean."""
    return sum(values) / len(values)


def chance(scores: Tensor, truth: Tensor, seed: int, deals: int = 20) -> list[float]:
    """Whether the interval holds .5 where membership is dealt out at random, deal by deal: 95 % of
    them should.
    """
    return [
        float(null_membership(scores, truth, seed=deals * seed + deal).auc.holds(0.5))
        for deal in range(deals)
    ]


def closed_form(quick: bool) -> Iterable[Row]:
    """Samples out of a linear first layer, from one client and from a sum."""
    data = large(scaled=True)
    for b, clients, limit in ((8, 1, 0.5), (16, 1, 5.0), (16, 8, 5.0)):
        exact, seconds = [], []
        for seed in range(2 if quick else 4):
            index = torch.randperm(data.n, generator=torch.Generator().manual_seed(seed))[:b]
            net = initialised(mlp, (1, 32, 32), 10, seed=seed, hidden=(512,))
            view = play(net, [data.take(part) for part in index.chunk(clients)], FedSGD(lr=0.1))[0]
            attack = LinearLeakage(target="sum" if clients > 1 else "client")
            began = time.process_time()
            result = attack.run(view, Knowledge(forward=recipe(net, (1, 32, 32), FedSGD(lr=0.1))))
            seconds.append(time.process_time() - began)
            found = pictures(result.samples, data.x[index], peak=HIGH - LOW)  # type: ignore[attr-defined]
            exact.append(float((found.psnr > 60).float().mean()))
        name = f"closed form, b={b}" + (f" as the sum of {clients}" if clients > 1 else "")
        yield gain(name, "must reach", "share exact", mean(exact), 1.0, 1.0)
        yield cost(name, "must reach", "CPU s", mean(seconds), limit, 1.0)


def reconstruction(quick: bool) -> Iterable[Row]:
    """Gradient matching on a smooth and on a ReLU net that read pixels in [0, 1]."""
    data, one = large(scaled=False), FedSGD(lr=0.1)
    strokes = GradientInversion(tv=0.003, iterations=700)
    cases = (
        ("sigmoid LeNet, b=1, Gauss-Newton", 1, GaussNewton(inner=150), True, 100.0, 6.0),
        ("ReLU ConvNet, b=1, Inverting Gradients", 1, strokes, False, 32.0, 3.0),
        (
            "ReLU ConvNet, b=8, Inverting Gradients",
            8,
            GradientInversion(tv=0.03, lr=0.05),
            False,
            20.0,
            40.0,
        ),
    )
    for name, b, attack, smooth, wanted, limit in cases:
        quality, seconds = [], []
        for seed in range(2 if quick else 4):
            client = data.take(range(seed * b, seed * b + b))
            net = initialised(lenet, (1, 32, 32), 10, seed=seed) if smooth else convnet(seed)
            view = play(net, [client], one)[0]
            knows = Knowledge(forward=recipe(net, (1, 32, 32), one, scaled=False), seed=seed)
            dB, spent = decibels(attack, view, client.x, knows)
            quality.append(dB)
            seconds.append(spent)
        yield gain(name, "must reach", "PSNR, dB", mean(quality), wanted, 1.0)
        yield cost(name, "must reach", "CPU s", mean(seconds), limit, 1.0 if b == 1 else None)


def peers(quick: bool) -> Iterable[Row]:
    """Inverting Gradients on photographs: the same net, update, iterations and recovered label as
    breaching's.
    """
    peer = breaching()
    from omegaconf import OmegaConf, open_dict  # comes with it

    split, one, iterations = load("cifar10"), FedSGD(lr=0.1), 300
    middle, spread = torch.tensor(split.mean), torch.tensor(split.std)
    low, high = (tuple(((edge - middle) / spread).tolist()) for edge in (0.0, 1.0))

    def pixels(x: Tensor) -> Tensor:
        return x.detach() * spread.view(1, 3, 1, 1) + middle.view(1, 3, 1, 1)

    with contextlib.redirect_stdout(sys.stderr):
        config = peer.get_attack_config("invertinggradients")
    with open_dict(config):
        config.optim.max_iterations, config.optim.callback = iterations, 10**9
    public = {"shape": [3, 32, 32], "classes": 10, "task": "classification", "modality": "vision"}
    meta = OmegaConf.create({**public, "mean": list(split.mean), "std": list(split.std)})
    quality: dict[str, list[float]] = {"ours": [], "theirs": []}
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for seed in range(4 if quick else 10):
        net, client = convnet(seed, channels=3), split.train.take([7 * seed + 3])
        view = play(net, [client], one)[0]
        forward = Forward(net, cross_entropy, (3, 32, 32), 10, lr=0.1, low=low, high=high, steps=1)
        began = time.process_time()
        result = GradientInversion(iterations=iterations, tv=0.1).run(
            view, Knowledge(forward=forward, seed=seed, labels=client.y)
        )
        seconds["ours"].append(time.process_time() - began)
        quality["ours"].append(
            float(pictures(pixels(result.samples), pixels(client.x)).psnr.mean())
        )  # type: ignore[attr-defined]
        model = FlatModel(convnet(seed, channels=3))
        model.write(view.before)
        parameters = [leaf.detach().clone() for leaf in model.module.parameters()]
        pieces = torch.split(-view.rows.values[0] / 0.1, [leaf.numel() for leaf in parameters])
        gradients = [
            piece.view(leaf.shape).clone() for piece, leaf in zip(pieces, parameters, strict=True)
        ]
        torch.manual_seed(seed)
        setup = {"device": torch.device("cpu"), "dtype": torch.float}
        attack = peer.attacks.prepare_attack(model.module, nn.CrossEntropyLoss(), config, setup)
        told = {"num_data_points": 1, "labels": client.y.clone(), "local_hyperparams": None}
        sent = [{"parameters": parameters, "buffers": [], "metadata": meta}]
        began = time.process_time()
        with contextlib.redirect_stdout(sys.stderr):
            found, _ = attack.reconstruct(
                sent, [{"gradients": gradients, "buffers": None, "metadata": told}], {}
            )
        seconds["theirs"].append(time.process_time() - began)
        quality["theirs"].append(
            float(pictures(pixels(found["data"]), pixels(client.x)).psnr.mean())
        )
    case = f"one photograph, ReLU ConvNet, {iterations} iterations"
    yield gain(
        case, "breaching 0.1.2", "PSNR, dB", mean(quality["ours"]), mean(quality["theirs"]), 1.0
    )
    yield cost(case, "breaching 0.1.2", "CPU s", min(seconds["ours"]), min(seconds["theirs"]), 1.3)


def labels(quick: bool) -> Iterable[Row]:
    """Label counts on an untrained model."""
    split = load("digits")
    for b in (128, 512):
        right = []
        for seed in range(3):
            index = torch.randperm(split.train.n, generator=torch.Generator().manual_seed(seed))[:b]
            net = initialised(mlp, (1, 8, 8), 10, seed=seed, hidden=(64,))
            client = split.train.take(index)
            view = play(net, [client], FedSGD(lr=0.1))[0]
            result = LabelCounts().run(
                view,
                Knowledge(forward=recipe(net, (1, 8, 8), FedSGD(lr=0.1)), auxiliary=split.test),
            )
            true = torch.bincount(client.y, minlength=10)
            right.append(float(torch.minimum(true, result.counts).sum()) / b)  # type: ignore[attr-defined]
        yield gain(f"label counts, B={b}", "must reach", "share right", mean(right), 0.99, 1.0)


def adaptive(quick: bool) -> Iterable[Row]:
    """What it is worth to know the defence: PSNR of an adaptive attack less that of a naive one."""
    data = large(scaled=False)
    plain, steps = FedSGD(lr=0.1), LocalSGD(lr=0.1, plan=LocalPlan(batch_size=1, steps=5))
    for name, training, l2, wanted in (
        ("gradients clipped to .05 (updates to .005 at rate .1)", plain, 0.005, 20.0),
        ("five local steps", steps, float("inf"), 15.0),
    ):
        gaps = []
        for seed in range(2 if quick else 4):
            client, net = data.take([seed]), convnet(seed)
            view = play(net, [client], training, l2)[0]
            knows = Knowledge(
                forward=recipe(net, (1, 32, 32), training, l2, scaled=False), seed=seed
            )
            known, naive = (
                decibels(GradientInversion(adaptive=a), view, client.x, knows)[0]
                for a in (True, False)
            )
            gaps.append(known - naive)
        yield gain(f"adaptive gain, {name}", "must reach", "dB", mean(gaps), wanted, 1.0)


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
            each = UpdateMembership().run(views, knows).scores  # type: ignore[attr-defined]
            mine = owner == torch.arange(10)[:, None]
            asked = mine | (owner >= 10)
            whole = UpdateMembership(target="sum").run(views, knows).scores  # type: ignore[attr-defined]
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
        each = UpdateMembership().run(views, knows).scores  # type: ignore[attr-defined]
        whole = UpdateMembership(target="sum").run(views, knows).scores  # type: ignore[attr-defined]
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
        found = ShadowMembership(epochs=40).run(view, knows).scores  # type: ignore[attr-defined]
        ours.append(membership(found, inside).at_hundredth.value)
        theirs.append(
            membership(LossThreshold().run(view, knows).scores, inside).at_hundredth.value
        )  # type: ignore[attr-defined]
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


CASES: dict[str, Case] = {
    "closed_form": closed_form,
    "reconstruction": reconstruction,
    "peers": peers,
    "labels": labels,
    "adaptive": adaptive,
    "stream": stream,
    "writers": writers,
    "shadows": shadows,
}

if __name__ == "__main__":
    main("privacy_attacks", CASES)
