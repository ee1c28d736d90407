"""Digits, nets and runs that attacks look at, and how well they saw."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from privfl import Federation
from privfl.attacks import Forward, Inference, Knowledge
from privfl.audit.score import null_membership, pictures
from privfl.config import AuditConfig
from privfl.core import Dataset, Rows, View
from privfl.data import load
from privfl.dp import Clip
from privfl.models import initialised
from privfl.training import LocalSGD, cross_entropy

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
    return float(pictures(result.samples, true).psnr.mean()), seconds


def blurred(
    view: View, forward: Forward, relative: float, rng: torch.Generator
) -> tuple[View, Forward]:
    """The view with noise of so many times the deviation of the update's entries, and the recipe
    that says so.
    """
    rows = view.rows
    deviation = relative * float(rows.values.norm()) / rows.values.numel() ** 0.5
    values = rows.values + deviation * torch.randn(rows.values.shape, generator=rng)
    opened = {"delta": Rows(values, rows.weights, rows.ids)}
    return replace(view, opened=opened), replace(forward, local_noise=deviation)


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
