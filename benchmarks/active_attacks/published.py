"""What papers report of attacks that look."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from benchmarks.active_attacks.runs import ONE
from benchmarks.harness import Row, gain
from benchmarks.privacy_attacks.runs import convnet, decibels, large, mean, play, recipe
from privfl.attacks import DLG, IDLG, GradientInversion, Knowledge
from privfl.audit.score import pictures
from privfl.models import initialised, lenet


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
            quality.append(float(pictures(result.samples.clamp(0, 1), client.x).psnr.mean()))
            right.append(
                float((result.labels.sort().values == client.y.sort().values).float().mean())
            )
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
                loss.backward()
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
