"""What stops an attack: noise, and defences without a guarantee."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from benchmarks.active_attacks.runs import ONE, auc, run, shuffled
from benchmarks.harness import Row, gain
from benchmarks.privacy_attacks.runs import HIGH, LOW, convnet, decibels, large, mean, recipe
from privfl import Federation
from privfl.aggregators import Quantise, Sparsify
from privfl.attacks import (
    GradientInversion,
    Knowledge,
    LabelCounts,
    LinearLeakage,
    UpdateMembership,
)
from privfl.audit.score import pictures
from privfl.config import AuditConfig
from privfl.core import LocalPlan
from privfl.dp import Clip
from privfl.models import initialised, mlp
from privfl.training import FedSGD, LocalSGD, Soteria


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
                )
            counts = (
                LabelCounts(target="sum")
                .run(view, Knowledge(auxiliary=data.take(range(1200, 1700)), samples=40))
                .counts
            )
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
            )
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
