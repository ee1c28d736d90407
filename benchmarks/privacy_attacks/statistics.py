"""GradInversion against a network with BatchNorm: with the batch's statistics, which clients send,
and without them, beside breaching's; and what the statistics give away by themselves.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.breaching_env import breaching
from benchmarks.harness import Row, cost, gain
from benchmarks.privacy_attacks.runs import mean
from privfl import Federation
from privfl.attacks import GradInversion, Knowledge, LabelCounts, StatisticCounts
from privfl.audit.score import pictures
from privfl.config import AuditConfig
from privfl.core import Dataset, FlatModel, LocalPlan, Rows, View
from privfl.data import load
from privfl.models import initialised, resnet20
from privfl.training import LocalSGD

LR = 0.1
"""The rate of a client's one step."""


def view_of(net: nn.Module, clients: list[Dataset], test: Dataset) -> View:
    """What the server sees of one round of one step at each client."""
    size = max(client.n for client in clients)
    run = Federation(
        net,
        clients,
        test,
        training=LocalSGD(lr=LR, plan=LocalPlan(size, steps=1)),
        rounds=1,
        buffers="averaged",
        executor="sequential",
        audit=AuditConfig(keep="all"),
    ).run()
    return run.view("server", 0)


def network(seed: int) -> nn.Module:
    """A fresh ReLU net of three convolutions with BatchNorm."""

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        layers: list[nn.Module] = []
        for before in (3, 32, 32):
            layers += [nn.Conv2d(before, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)]
            layers += [nn.ReLU(), *([nn.MaxPool2d(2)] if before > 3 else [])]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, classes))

    return initialised(build, (3, 32, 32), 10, seed=seed)


def residual(seed: int) -> nn.Module:
    """ResNet-20 with BatchNorm."""
    return initialised(resnet20, (3, 32, 32), 10, seed=seed, norm="batch")


def inverted(quick: bool) -> Iterable[Row]:
    """Held-out photographs from one step, labels known: the same attack with the statistics and
    without, both at priors tuned on other photographs, and breaching's at its own.
    """
    split = load("cifar10")
    middle, spread = (torch.tensor(part).view(1, 3, 1, 1) for part in (split.mean, split.std))

    def pixels(x: Tensor) -> Tensor:
        return x.detach() * spread + middle

    iterations = 100 if quick else 300
    auxiliary = split.train.take(range(10_000, 10_400))
    for b in (1, 4) if quick else (1, 4, 8):
        client = split.test.take(range(50, 50 + b))
        view = view_of(network(b), [client], split.test.take(range(8)))
        knows = Knowledge(labels=client.y, auxiliary=auxiliary, seed=b)
        base = GradInversion(iterations=100, seeds=1, tune=True)
        quality: dict[str, float] = {}
        seconds: dict[str, float] = {}
        blind = pixels(auxiliary.x).mean(dim=0, keepdim=True).expand(b, -1, -1, -1)
        quality["blind"] = score(blind, pixels(client.x))
        for name in ("with", "without"):
            shown = view if name == "with" else _blinded(view)
            tuned = base.prepared((shown,), knows)
            attack = replace(tuned, iterations=iterations)
            began = time.process_time()
            found = attack.run(shown, knows)
            seconds[name] = time.process_time() - began
            quality[name] = score(pixels(found.samples), pixels(client.x))
            print(b, name, found.notes, quality[name], file=sys.stderr)
        began = time.process_time()
        quality["breaching"] = score(
            pixels(_theirs(view, client, split.mean, split.std, iterations, b)), pixels(client.x)
        )
        seconds["breaching"] = time.process_time() - began
        case = f"BatchNorm ConvNet, b={b}, {iterations} iterations"
        for name in ("without", "blind", "breaching"):
            peers = {"without": "without statistics", "blind": "the mean image"}
            what, wanted = peers.get(name, "breaching 0.1.2"), None if name == "blind" else 1.0
            yield gain(case, what, "PSNR, dB", quality["with"], quality[name], wanted)
        yield cost(case, "breaching 0.1.2", "CPU s", seconds["with"], seconds["breaching"], 1.0)


def score(found: Tensor, true: Tensor) -> float:
    """Mean PSNR after matching."""
    return float(pictures(found, true).psnr.mean())


def _blinded(view: View) -> View:
    """The view of somebody who does not read the statistics."""
    opened = {name: part for name, part in view.opened.items() if name == "delta"}
    return replace(view, opened=opened, extra={}, extra_after={})


def _theirs(
    view: View, client: Dataset, middle: Any, spread: Any, iterations: int, seed: int
) -> Tensor:
    """What breaching's GradInversion ("see through gradients") makes of the same gradient, with the
    batch's statistics in the buffers that it is sent.
    """
    peer = breaching()
    from omegaconf import OmegaConf, open_dict  # comes with it

    with contextlib.redirect_stdout(sys.stderr):
        config = peer.get_attack_config("seethroughgradients")
    with open_dict(config):
        config.optim.max_iterations, config.optim.callback = iterations, 10**9
        config.restarts.num_trials = 1
        config.regularization.pop("group_consistency", None)
    public: Mapping[str, Any] = {
        "shape": [3, 32, 32],
        "classes": 10,
        "task": "classification",
        "modality": "vision",
    }
    meta = OmegaConf.create({**public, "mean": list(middle), "std": list(spread)})
    model = FlatModel(network(seed))
    model.write(view.before)
    sent = view.opened["buffers"]
    if not isinstance(sent, Rows):
        raise SystemExit("statistics: the plain channel opened no rows of statistics.")
    model.write_state(view.extra["buffers"] + sent.values[0] / 0.1)  # the batch's own
    parameters = [leaf.detach().clone() for leaf in model.module.parameters()]
    pieces = torch.split(-view.rows.values[0] / LR, [leaf.numel() for leaf in parameters])
    gradients = [p.view(leaf.shape).clone() for p, leaf in zip(pieces, parameters, strict=True)]
    buffers = [one.clone() for one in model.module.buffers()]
    torch.manual_seed(seed)
    setup = {"device": torch.device("cpu"), "dtype": torch.float}
    attack = peer.attacks.prepare_attack(model.module, nn.CrossEntropyLoss(), config, setup)
    told = {"num_data_points": client.n, "labels": client.y.clone(), "local_hyperparams": None}
    with contextlib.redirect_stdout(sys.stderr):
        found, _ = attack.reconstruct(
            [{"parameters": parameters, "buffers": buffers, "metadata": meta}],
            [{"gradients": gradients, "buffers": buffers, "metadata": told}],
            {},
        )
    data: Tensor = found["data"]
    return data


def counted(quick: bool) -> Iterable[Row]:
    """Labels of batches of 16 from the statistics alone, of a client and of a sum of four, beside
    those from the gradient and the prior.
    """
    split = load("cifar10")
    auxiliary = split.train.take(range(10_000, 12_000))
    prior = torch.full((10,), 1.6)
    told: dict[str, list[float]] = {}
    for seed in range(4 if quick else 8):
        rng = torch.Generator().manual_seed(seed)
        pool = torch.randperm(8_000, generator=rng)
        skewed = pool[split.test.y[pool] < 5][:32], pool[split.test.y[pool] >= 5][:32]
        clients = [split.test.take(part) for half in skewed for part in half.chunk(2)]
        view = view_of(residual(seed), clients, split.test.take(range(8_000, 8_064)))
        knows = Knowledge(auxiliary=auxiliary, seed=seed)
        true = torch.bincount(clients[0].y, minlength=10)
        for name, attack in (
            ("statistics", StatisticCounts(shadows=120, client=0)),
            ("gradient", LabelCounts(client=0)),
        ):
            found = attack.run(view, knows)
            told.setdefault(name, []).append(overlap(found.counts, true))
        told.setdefault("prior", []).append(overlap(prior, true))
    case = "ResNet-20 with BatchNorm, labels of 16 samples from statistics alone"
    for other in ("prior", "gradient"):
        yield gain(
            case, f"{other}", "share right", mean(told["statistics"]), mean(told[other]), None
        )


def overlap(guess: Tensor, true: Tensor) -> float:
    """The share of labels that a guess has right."""
    return float(torch.minimum(guess.float(), true.float()).sum() / true.sum())
