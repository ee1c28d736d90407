"""GradInversion against a network with BatchNorm: with the batch's statistics, which clients send,
and without them, beside breaching's; and what the statistics give away by themselves.
"""

from __future__ import annotations

import contextlib
import copy
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
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
from privfl.data import Split, load
from privfl.models import initialised, resnet20
from privfl.training import LocalSGD

LR = 0.1
"""The rate of a client's one step."""


@dataclass(frozen=True, slots=True)
class Theirs:
    """A setting of breaching's: which of its attacks, whether it is given the batch's statistics in
    the buffers (then it computes with them as fixed ones), and weights of their distance and of the
    total variation (None: its default).
    """

    attack: str = "seethroughgradients"
    buffers: bool = True
    statistics: float | None = None
    tv: float | None = None


THEIRS = (
    Theirs(),
    Theirs("invertinggradients", buffers=False),
    *(Theirs("invertinggradients", statistics=weight) for weight in (1e-3, 1e-2, 0.1)),
)
"""What is tried of breaching's; then the best of them with other weights of the total variation."""
VARIATIONS = (0.1, 0.01)
"""Multiples of that weight."""


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
    without, at priors tuned on other photographs; and breaching's: as it comes, and at the best of
    its settings by an update of other photographs.
    """
    for b in (1, 4, 8):
        yield from inverted_at(b, 100 if quick else 300)


def inverted_at(b: int, iterations: int) -> Iterable[Row]:
    """The rows of one size of batch."""
    split = load("cifar10")
    middle, spread = (torch.tensor(part).view(1, 3, 1, 1) for part in (split.mean, split.std))

    def pixels(x: Tensor) -> Tensor:
        return x.detach() * spread + middle

    auxiliary = split.train.take(range(10_000, 10_400))
    client = split.test.take(range(50, 50 + b))
    view = view_of(network(b), [client], split.test.take(range(8)))
    knows = Knowledge(labels=client.y, auxiliary=auxiliary, seed=b)
    blind = pixels(auxiliary.x).mean(dim=0, keepdim=True).expand(b, -1, -1, -1)
    quality, seconds = {"blind": score(blind, pixels(client.x))}, {"blind": 0.0}

    def keep(name: str, attack: Callable[[], Tensor]) -> None:
        began = time.process_time()
        quality[name] = score(pixels(attack()), pixels(client.x))
        spent = time.process_time() - began
        seconds[name] = min(spent, seconds.get(name, spent))
        print(b, name, quality[name], seconds[name], file=sys.stderr)

    # on own photographs, before the target is looked at
    tuned = GradInversion(iterations=100, seeds=1, tune=True).prepared((view,), knows)
    print(b, tuned, file=sys.stderr)
    ours = replace(tuned, iterations=iterations)
    keep("with", lambda: ours.run(view, knows).samples)
    keep("without", lambda: ours.run(_blinded(view), knows).samples)
    brief = replace(tuned, iterations=iterations // 2)
    keep("half", lambda: brief.run(view, knows).samples)

    def theirs(how: Theirs) -> Tensor:
        return _theirs(view, network(b), client, split, iterations, b, how)

    practice = auxiliary.take(range(b))
    chosen = _best_of_theirs(network(b), practice, split, iterations, b)
    for _ in range(3):  # in turn, the quickest of each
        keep("with", lambda: ours.run(view, knows).samples)
        keep("half", lambda: brief.run(view, knows).samples)
        keep("breaching", lambda: theirs(Theirs()))
        keep("breaching, tuned", lambda: theirs(chosen))
    case = f"BatchNorm ConvNet, b={b}, {iterations} iterations"
    for name, what in (
        ("without", "without statistics"),
        ("blind", "the mean image"),
        ("breaching", "breaching 0.1.2, as it comes"),
        ("breaching, tuned", "breaching 0.1.2, tuned"),
    ):
        wanted = None if name == "without" else 1.0
        yield gain(case, what, "PSNR, dB", quality["with"], quality[name], wanted)
    for name, what in (("breaching", "as it comes"), ("breaching, tuned", "tuned")):
        yield cost(case, f"breaching 0.1.2, {what}", "CPU s", seconds["with"], seconds[name], 1.3)
    half, peer = f"{case}, ours in half of them", "breaching 0.1.2, tuned"
    theirs_is, theirs_took = quality["breaching, tuned"], seconds["breaching, tuned"]
    yield gain(half, peer, "PSNR, dB", quality["half"], theirs_is, 1.0)
    yield cost(half, peer, "CPU s", seconds["half"], theirs_took, 1.3)


def score(found: Tensor, true: Tensor) -> float:
    """Mean PSNR after matching."""
    return float(pictures(found, true).psnr.mean())


def _blinded(view: View) -> View:
    """The view of somebody who does not read the statistics."""
    opened = {name: part for name, part in view.opened.items() if name == "delta"}
    return replace(view, opened=opened, extra={}, extra_after={})


def _tv(how: Theirs) -> float:
    """The weight of the total variation that breaching's attack comes with."""
    with contextlib.redirect_stdout(sys.stderr):
        config = breaching().get_attack_config(how.attack)
    return float(config.regularization.total_variation.scale)


def _best_of_theirs(
    net: nn.Module, practice: Dataset, split: Split, iterations: int, seed: int
) -> Theirs:
    """The setting of breaching's that does best by an update of other photographs."""
    heard = view_of(net, [practice], split.test.take(range(8)))
    middle, spread = (torch.tensor(part).view(1, 3, 1, 1) for part in (split.mean, split.std))

    def told(how: Theirs) -> float:
        found = _theirs(heard, net, practice, split, iterations, seed, how)
        value = score(found * spread + middle, practice.x * spread + middle)
        print(practice.n, how, value, file=sys.stderr)
        return value

    tried = {how: told(how) for how in THEIRS}
    first = max(tried, key=lambda how: tried[how])
    others = [replace(first, tv=weight * _tv(first)) for weight in VARIATIONS]
    tried |= {how: told(how) for how in others}
    return max(tried, key=lambda how: tried[how])


def _theirs(
    view: View,
    net: nn.Module,
    client: Dataset,
    split: Split,
    iterations: int,
    seed: int,
    how: Theirs,
) -> Tensor:
    """What an attack of breaching's makes of the same gradient."""
    peer = breaching()
    from omegaconf import OmegaConf, open_dict  # comes with it

    with contextlib.redirect_stdout(sys.stderr):
        config = peer.get_attack_config(how.attack)
    with open_dict(config):
        config.optim.max_iterations, config.optim.callback = iterations, 10**9
        config.restarts.num_trials = 1
        if how.statistics is not None:
            config.regularization.deep_inversion = {"scale": how.statistics}
        if how.tv is not None:
            config.regularization.total_variation.scale = how.tv
    public: Mapping[str, Any] = {
        "shape": [3, 32, 32],
        "classes": 10,
        "task": "classification",
        "modality": "vision",
    }
    meta = OmegaConf.create({**public, "mean": list(split.mean), "std": list(split.std)})
    model = FlatModel(copy.deepcopy(net))
    model.write(view.before)
    sent = view.opened["buffers"]
    if not isinstance(sent, Rows):
        raise SystemExit("statistics: the plain channel opened no rows of statistics.")
    model.write_state(view.extra["buffers"] + sent.values[0] / 0.1)  # the batch's own
    parameters = [leaf.detach().clone() for leaf in model.module.parameters()]
    pieces = torch.split(-view.rows.values[0] / LR, [leaf.numel() for leaf in parameters])
    gradients = [p.view(leaf.shape).clone() for p, leaf in zip(pieces, parameters, strict=True)]
    buffers = [one.clone() for one in model.module.buffers()] if how.buffers else None
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


def deeper(quick: bool) -> Iterable[Row]:
    """ResNet-20 of width 8, a fresh one, labels known: at priors tuned on other photographs, beside
    breaching's at its best by another photograph, both beside the mean of all own samples (which is
    what somebody guesses who saw nothing); and descents that are not tuned.
    """
    for b in (1,) if quick else (1, 4):
        yield from deeper_at(b, 100 if quick else 800)


def deeper_at(b: int, iterations: int) -> Iterable[Row]:
    """The rows of one size of batch."""
    split = load("cifar10")
    middle, spread = (torch.tensor(part).view(1, 3, 1, 1) for part in (split.mean, split.std))
    auxiliary = split.train.take(range(10_000, 10_400))
    net = initialised(resnet20, (3, 32, 32), 10, seed=b, norm="batch", width=8)
    client = split.test.take(range(50, 50 + b))
    view = view_of(net, [client], split.test.take(range(8)))
    knows = Knowledge(labels=client.y, auxiliary=auxiliary, seed=b)
    true = client.x * spread + middle
    guess = auxiliary.x.mean(dim=0, keepdim=True).expand(b, -1, -1, -1)
    blind = score(guess * spread + middle, true)
    case = f"ResNet-20 with BatchNorm, b={b}, {iterations} iterations"

    def told(attack: Callable[[], Tensor]) -> tuple[float, float]:
        """PSNR, and CPU seconds."""
        began = time.process_time()
        found = attack().detach() * spread + middle
        return score(found, true), time.process_time() - began

    base = GradInversion(iterations=iterations, seeds=1)
    near = replace(base, start="own", lr=0.01, tv=0.1, statistics=1.0)
    for name, attack in (
        ("from noise", base),
        ("from own samples", replace(base, start="own")),
        ("from own samples, smaller steps, more of both priors, chosen on the target", near),
    ):
        psnr, _ = told(lambda attack=attack: attack.run(view, knows).samples)
        yield gain(f"{case}, {name}", "the mean image", "PSNR, dB", psnr, blind)
    tuned = replace(base, iterations=100, tune=True).prepared((view,), knows)
    print(b, tuned, file=sys.stderr)
    ours = replace(tuned, iterations=iterations)
    chosen = _best_of_theirs(net, auxiliary.take(range(b)), split, iterations, b)
    mine, peer = [], []
    for _ in range(3):  # in turn, the quickest of each
        mine.append(told(lambda: ours.run(view, knows).samples))
        peer.append(told(lambda: _theirs(view, net, client, split, iterations, b, chosen)))
    case = f"{case}, priors tuned on other photographs"
    yield gain(case, "the mean image", "PSNR, dB", mine[0][0], blind)
    yield gain(case, "breaching 0.1.2, tuned", "PSNR, dB", mine[0][0], peer[0][0], 1.0)
    took = [min(seconds for _, seconds in side) for side in (mine, peer)]
    yield cost(case, "breaching 0.1.2, tuned", "CPU s", *took, 1.3)


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
