"""Attacks that only look: what they recover, how fast, and what knowing the defence is worth. One thread, means over seeds.

Rows without a peer measure against the figure that must be reached: ``theirs`` is that figure.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

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
    """The digits at 32 x 32: scaled to mean 0 and deviation 1 as loaders hand them out, or as pixels in [0, 1]."""
    digits = load("digits").train
    x = functional.interpolate(digits.x, size=(32, 32), mode="bilinear")
    return Dataset(x if scaled else (x * STD + MEAN).clamp(0, 1), digits.y, 10)


def convnet(seed: int) -> nn.Module:
    """A ReLU net of three convolutions."""

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        convolutions = [nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU()]
        return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(2048, classes))

    return initialised(build, (1, 32, 32), 10, seed=seed)


def play(net: nn.Module, clients: list[Dataset], training: LocalSGD, l2: float = float("inf"), rounds: int = 1) -> list[View]:
    """The server's views of a run over the plain channel."""
    run = Federation(
        net, clients, clients[0], rounds=rounds, training=training, executor="sequential", audit=AuditConfig(keep="all"),
        bound=Clip(l2=l2) if l2 < float("inf") else None,
    ).run()  # fmt: skip
    return [run.view("server", number) for number in range(rounds)]


def recipe(net: nn.Module, shape: tuple[int, ...], training: LocalSGD, l2: float = float("inf"), *, scaled: bool = True) -> Forward:
    """The public recipe, with the range of the digits' pixels."""
    plan = training.plan
    low, high = (LOW, HIGH) if scaled else (0.0, 1.0)
    return Forward(
        net, cross_entropy, shape, 10, lr=training.lr, low=(low,), high=(high,), l2=l2, batch_size=plan.batch_size, epochs=plan.epochs,
        steps=plan.steps,
    )  # fmt: skip


def decibels(attack: Inference, view: View, true: Tensor, knows: Knowledge) -> tuple[float, float]:
    """Mean PSNR in dB of pixels in [0, 1] after matching, and CPU seconds."""
    began = time.process_time()
    result = attack.run(view, knows)
    seconds = time.process_time() - began
    return float(pictures(result.samples, true).psnr.mean()), seconds  # type: ignore[attr-defined]


def mean(values: list[float]) -> float:
    """The mean."""
    return sum(values) / len(values)


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
    cases = (
        ("sigmoid LeNet, b=1, Gauss-Newton", 1, GaussNewton(inner=150), True, 100.0, 6.0),
        ("ReLU ConvNet, b=1, Inverting Gradients", 1, GradientInversion(), False, 32.0, 3.0),
        ("sigmoid LeNet, b=8, Gauss-Newton", 8, GaussNewton(inner=150, restarts=1, seconds=60.0), True, 20.0, 40.0),
    )
    for name, b, attack, smooth, wanted, limit in cases:
        quality, seconds = [], []
        for seed in range(1 if b > 1 and quick else 2 if quick else 4):
            client = data.take(range(seed * b, seed * b + b))
            net = initialised(lenet, (1, 32, 32), 10, seed=seed) if smooth else convnet(seed)
            view = play(net, [client], one)[0]
            knows = Knowledge(forward=recipe(net, (1, 32, 32), one, scaled=False), labels=client.y if b > 1 else None, seed=seed)
            dB, spent = decibels(attack, view, client.x, knows)
            quality.append(dB)
            seconds.append(spent)
        yield gain(name, "must reach", "PSNR, dB", mean(quality), wanted, 1.0)
        yield cost(name, "must reach", "CPU s", mean(seconds), limit, 1.0 if b == 1 else None)


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
            result = LabelCounts().run(view, Knowledge(forward=recipe(net, (1, 8, 8), FedSGD(lr=0.1)), auxiliary=split.test))
            true = torch.bincount(client.y, minlength=10)
            right.append(float(torch.minimum(true, result.counts).sum()) / b)  # type: ignore[attr-defined]
        yield gain(f"label counts, B={b}", "must reach", "share right", mean(right), 0.99, 1.0)


def adaptive(quick: bool) -> Iterable[Row]:
    """What it is worth to know the defence: PSNR of an adaptive attack less that of a naive one."""
    data = large(scaled=False)
    plain, steps = FedSGD(lr=0.1), LocalSGD(lr=0.1, plan=LocalPlan(batch_size=1, steps=5))
    for name, training, l2, wanted in (("gradients clipped to .05", plain, 0.005, 20.0), ("five local steps", steps, float("inf"), 15.0)):
        gaps = []
        for seed in range(2 if quick else 4):
            client, net = data.take([seed]), convnet(seed)
            view = play(net, [client], training, l2)[0]
            knows = Knowledge(forward=recipe(net, (1, 32, 32), training, l2, scaled=False), seed=seed)
            known, naive = (decibels(GradientInversion(adaptive=a), view, client.x, knows)[0] for a in (True, False))
            gaps.append(known - naive)
        yield gain(f"adaptive gain, {name}", "must reach", "dB", mean(gaps), wanted, 1.0)


def stream(quick: bool) -> Iterable[Row]:
    """Membership from the updates of 10 clients x 50 digits, 15 rounds of 2 local epochs; small batches blur what a step says."""
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
            views = play(net, [data.take(range(50 * i, 50 * i + 50)) for i in range(10)], training, rounds=15)
            owner = torch.arange(1000) // 50
            each = UpdateMembership().run(views, knows).scores  # type: ignore[attr-defined]
            mine = owner == torch.arange(10)[:, None]
            asked = mine | (owner >= 10)
            whole = UpdateMembership(target="sum").run(views, knows).scores  # type: ignore[attr-defined]
            scores["client"].append(membership(each[asked], mine[asked]).auc.value)
            scores["sum"].append(membership(whole, owner < 10).auc.value)
            scores["control"].append(float(null_membership(whole, owner < 10, seed=seed).auc.holds(0.5)))
        target = 1.0 if batch == 50 else None
        yield gain(f"update stream, batches of {batch}, per client", "must reach", "AUC", mean(scores["client"]), 0.98, target)
        yield gain(f"update stream, batches of {batch}, sum", "must reach", "AUC", mean(scores["sum"]), 0.75, target)
        yield gain(f"null control, batches of {batch}", "must reach", "share of intervals with .5", mean(scores["control"]), 1.0)


def shadows(quick: bool) -> Iterable[Row]:
    """LiRA against the loss threshold on a model that overfits labels of which a fifth is wrong; shadows stacked against one by one."""
    split = load("digits")
    x, y = torch.cat([split.train.x, split.test.x]), torch.cat([split.train.y, split.test.y])
    ours, theirs = [], []
    training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=16, epochs=40))
    net = initialised(mlp, (1, 8, 8), 10, seed=0, hidden=(128,))
    train = Shadows(net, training)
    start = FlatModel(net).read()
    for seed in range(2 if quick else 6):
        coins = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(x), generator=coins)
        wrong = torch.where(torch.rand(len(x), generator=coins) < 0.2, torch.randint(10, (len(x),), generator=coins), y[order])
        data = Dataset(x[order], wrong, 10)
        after = start + train(start, data, [torch.arange(500)], seed=99 + seed)[0]
        view = View("server", RoundPlan(0, (0,), len(start), float("inf")), start, after, {})
        knows = Knowledge(
            forward=recipe(net, (1, 8, 8), training), candidates=data.take(range(1000)), auxiliary=data.take(range(1000, data.n)),
            trainer=train, seed=seed,
        )  # fmt: skip
        inside = torch.arange(1000) < 500
        found = ShadowMembership(epochs=40).run(view, knows).scores  # type: ignore[attr-defined]
        ours.append(membership(found, inside).at_hundredth.value)
        theirs.append(membership(LossThreshold().run(view, knows).scores, inside).at_hundredth.value)  # type: ignore[attr-defined]
    yield gain("LiRA online, K=16", "loss threshold", "TPR at 1 % FPR", mean(ours), max(mean(theirs), 1e-9), 5.0)
    yield from _stacking(net, data, start)


def _stacking(net: nn.Module, data: Dataset, start: Tensor) -> Iterable[Row]:
    """64 shadows at once and one by one."""
    from privfl.core import Broadcast, Seeds
    from privfl.training import Sequential, Task, Workload

    training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=16, epochs=2))
    workload = Workload(FlatModel(net), cross_entropy, training, data)
    tasks = [Task(k, torch.randperm(1000, generator=torch.Generator().manual_seed(k))[:500]) for k in range(64)]
    out = torch.empty(64, workload.model.d)
    broadcast = Broadcast(RoundPlan(0, tuple(range(64)), workload.model.d, float("inf")), start)
    seconds = {}
    for name, executor in (("stacked", Stacked(workload)), ("sequential", Sequential(workload))):
        began = time.process_time()
        executor.train(broadcast, tasks, out, Seeds(0))
        seconds[name] = time.process_time() - began
    yield cost("64 shadows", "one by one", "CPU s", seconds["stacked"], seconds["sequential"], 4.0)


CASES: dict[str, Case] = {
    "closed_form": closed_form,
    "reconstruction": reconstruction,
    "labels": labels,
    "adaptive": adaptive,
    "stream": stream,
    "shadows": shadows,
}

if __name__ == "__main__":
    main("privacy_attacks", CASES)
