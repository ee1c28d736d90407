"""Samples and labels from updates, in closed form and by gradient matching."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from benchmarks.breaching_env import breaching
from benchmarks.harness import Row, cost, gain
from benchmarks.privacy_attacks.runs import (
    HIGH,
    LOW,
    blurred,
    convnet,
    decibels,
    large,
    mean,
    play,
    recipe,
)
from privfl.attacks import (
    SPEAR,
    Forward,
    GaussNewton,
    GradientInversion,
    Knowledge,
    LabelCounts,
    LinearLeakage,
    Reconstruction,
)
from privfl.audit.score import pictures
from privfl.core import FlatModel, LocalPlan
from privfl.data import load
from privfl.models import initialised, lenet, mlp
from privfl.training import FedSGD, LocalSGD, cross_entropy


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
            found = pictures(result.samples, data.x[index], peak=HIGH - LOW)
            exact.append(float((found.psnr > 60).float().mean()))
        name = f"closed form, b={b}" + (f" as the sum of {clients}" if clients > 1 else "")
        yield gain(name, "must reach", "share exact", mean(exact), 1.0, 1.0)
        yield cost(name, "must reach", "CPU s", mean(seconds), limit, 1.0)


def spear(quick: bool) -> Iterable[Row]:
    """Batches of pictures as loaders hand them out, exactly or not at all: by batch and width, and
    what noise of so many times the entries' deviation and two local steps leave of it.
    """
    two = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=1 << 20, steps=2))
    for name, hidden, b, noise, training in (
        ("mnist", (200, 200), 4, 0.0, FedSGD(lr=0.1)),
        ("mnist", (200, 200), 8, 0.0, FedSGD(lr=0.1)),
        ("cifar10", (200, 200), 8, 0.0, FedSGD(lr=0.1)),
        ("cifar10", (200, 200), 16, 0.0, FedSGD(lr=0.1)),
        ("cifar10", (200, 200), 24, 0.0, FedSGD(lr=0.1)),
        ("cifar10", (512, 200), 32, 0.0, FedSGD(lr=0.1)),
        ("cifar10", (200, 200), 8, 1e-3, FedSGD(lr=0.1)),
        ("cifar10", (200, 200), 8, 0.0, two),
    ):
        split, sharp, seconds = load(name), [], []
        for seed in range(2 if quick else 5):
            rng = torch.Generator().manual_seed(seed)
            client = split.train.take(torch.randperm(split.train.n, generator=rng)[:b])
            net = initialised(mlp, split.shape, split.classes, seed=seed, hidden=hidden)
            view = play(net, [client], training)[0]
            plan = training.plan
            forward = Forward(
                net,
                cross_entropy,
                split.shape,
                split.classes,
                lr=0.1,
                batch_size=plan.batch_size,
                steps=plan.steps or 1,
            )
            if noise:
                view, forward = blurred(view, forward, noise, rng)
            began = time.process_time()
            told = SPEAR().run(view, Knowledge(forward=forward, seed=seed))
            seconds.append(time.process_time() - began)
            peak = float(client.x.max() - client.x.min())
            found = told.samples if isinstance(told, Reconstruction) else None
            shown = None if found is None else pictures(found, client.x, peak=peak).psnr
            sharp.append(0.0 if shown is None else float((shown > 40).float().mean()))
        steps = f", {training.plan.steps} local steps" if training is two else ""
        case = f"SPEAR, {name}, b={b}, layers of {hidden}" + (f", noise {noise:g}" * bool(noise))
        yield gain(case + steps, "all", "share over 40 dB", mean(sharp), 1.0)
        yield cost(case + steps, "shown", "CPU s", mean(seconds), 20.0)


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
        )
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
            right.append(float(torch.minimum(true, result.counts).sum()) / b)
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
