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
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.breaching_env import breaching
from benchmarks.harness import Case, Row, cost, gain
from benchmarks.privacy_attacks.runs import mean
from privfl import Federation
from privfl.attacks import GradInversion, Knowledge, LabelCounts, StatisticCounts
from privfl.audit.score import pictures
from privfl.config import AuditConfig
from privfl.core import Dataset, FlatModel, LocalPlan, Rows, View
from privfl.data import Split, load
from privfl.models import initialised, resnet20
from privfl.training import LocalSGD

ITERATIONS = 300
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
        copy.deepcopy(net),  # which a run trains
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


def narrow(seed: int) -> nn.Module:
    """The same of half the width."""
    return initialised(resnet20, (3, 32, 32), 10, seed=seed, norm="batch", width=8)


def inverted(
    name: str, built: Callable[[int], nn.Module], b: int, targets: int, quick: bool
) -> Iterable[Row]:
    """Held-out photographs from one step, ``b`` at a time, labels known: the same attack with the
    statistics and without, at priors tuned on other photographs; and breaching's: as it comes, and
    at the best of its settings by an update of other photographs. Means over so many batches (one
    alone if ``quick``), and seconds at the first of them.
    """
    iterations, targets = ITERATIONS, 1 if quick else targets
    split = load("cifar10")
    middle, spread = (torch.tensor(part).view(1, 3, 1, 1) for part in (split.mean, split.std))
    auxiliary = split.train.take(range(10_000, 10_400))
    mean_image = auxiliary.x.mean(dim=0, keepdim=True).expand(b, -1, -1, -1)
    # on own photographs, before a target is looked at
    chosen = _best_of_theirs(built(b), _practice(auxiliary, b), split, iterations, b)
    quality: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    tuned: GradInversion | None = None
    for target in range(targets):
        client = split.test.take(range(50 + target * b, 50 + target * b + b))
        view = view_of(built(b), [client], split.test.take(range(8)))
        knows = Knowledge(labels=client.y, auxiliary=auxiliary, seed=b + target)
        if tuned is None:
            tuned = GradInversion(iterations=iterations, seeds=1, tune=True).prepared(
                (view,), knows
            )
            print(b, tuned, file=sys.stderr)
        ours = tuned
        attacks: dict[str, Callable[[], Tensor]] = {
            "with": partial(_samples, ours, view, knows),
            "half": partial(_samples, replace(ours, iterations=iterations // 2), view, knows),
            "without": partial(_samples, ours, _blinded(view), knows),
            "breaching": partial(_theirs, view, built(b), client, split, iterations, b, Theirs()),
            "breaching, tuned": partial(
                _theirs, view, built(b), client, split, iterations, b, chosen
            ),
            "blind": partial(torch.clone, mean_image),
        }
        for turn in range(3 if target == 0 else 1):  # in turn, the quickest of each
            for how, attack in attacks.items():
                began = time.process_time()
                found = attack().detach()
                spent = time.process_time() - began
                if target == 0:
                    seconds[how] = min(spent, seconds.get(how, spent))
                if turn == 0:
                    psnr = score(found * spread + middle, client.x * spread + middle)
                    quality.setdefault(how, []).append(psnr)
                    print(b, target, how, psnr, spent, file=sys.stderr)
    reached = {how: mean(values) for how, values in quality.items()}
    case = f"{name}, b={b}, {iterations} iterations, {targets} batches"
    for how, what in (
        ("without", "without statistics"),
        ("blind", "the mean image"),
        ("breaching", "breaching 0.1.2, as it comes"),
        ("breaching, tuned", "breaching 0.1.2, tuned"),
    ):
        wanted = None if how == "without" else 1.0
        yield gain(case, what, "PSNR, dB", reached["with"], reached[how], wanted)
    for how, what in (("breaching", "as it comes"), ("breaching, tuned", "tuned")):
        yield cost(case, f"breaching 0.1.2, {what}", "CPU s", seconds["with"], seconds[how], 1.3)
    half, peer = f"{case}, ours in half of them", "breaching 0.1.2, tuned"
    yield gain(half, peer, "PSNR, dB", reached["half"], reached["breaching, tuned"], 1.0)
    yield cost(half, peer, "CPU s", seconds["half"], seconds["breaching, tuned"], 1.3)


def _practice(own: Dataset, b: int) -> list[Dataset]:
    """Batches of own photographs, four photographs at least."""
    return [own.take(range(b * k, b * k + b)) for k in range(max(1, 4 // b))]


def _samples(attack: GradInversion, view: View, knows: Knowledge) -> Tensor:
    return attack.run(view, knows).samples


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
    net: nn.Module, practice: list[Dataset], split: Split, iterations: int, seed: int
) -> Theirs:
    """The setting of breaching's that does best by updates of other photographs."""
    middle, spread = (torch.tensor(part).view(1, 3, 1, 1) for part in (split.mean, split.std))
    heard = [(one, view_of(net, [one], split.test.take(range(8)))) for one in practice]

    def told(how: Theirs) -> float:
        values = []
        for one, view in heard:
            found = _theirs(view, net, one, split, iterations, seed, how)
            values.append(score(found * spread + middle, one.x * spread + middle))
        print(practice[0].n, how, values, file=sys.stderr)
        return mean(values)

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


INVERTED: Mapping[str, Case] = {
    f"batch_norm{named}_{b}": partial(inverted, name, built, b, targets)
    for name, named, built, sizes in (
        ("BatchNorm ConvNet", "", network, {1: 8, 4: 3, 8: 2}),
        ("ResNet-20 with BatchNorm", "_resnet", narrow, {1: 8, 4: 2}),
    )
    for b, targets in sizes.items()
}
"""By network and size of batch; several batches, since photographs differ more than attacks do."""


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
