"""Adversarial training beside none: clean accuracy, accuracy under an attack that is stronger than
the training's (PGD-20 with five restarts), and whether attackers that see less do better, which
would say that gradients are masked.

Digits by 10 clients (a perceptron, eps .3 where grey values have deviation 1), MNIST by 10 clients
of 1,200 samples (two convolutions, eps .1 of a white pixel). Everybody takes as many forward and
backward passes through a sample as the paper of its method says; the free form divides its epochs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.harness import Case, Row, cost, gain, main, say
from privfl import Federation
from privfl.config import AuditConfig
from privfl.core import Dataset, LocalPlan, Perturbation
from privfl.data import Split, load
from privfl.dp import DPGradient
from privfl.training import (
    FGSM,
    PGD,
    Ball,
    Climb,
    FreeAdversarial,
    LocalSGD,
    robust_accuracy,
    searched_accuracy,
)

CLIENTS, RESTARTS, QUERIES = 10, 5, 1000


@dataclass(frozen=True)
class Setting:
    """A data set, how much of it trains and tests, and the ball."""

    data: str
    train: int
    test: int
    eps: float
    rounds: int
    lr: float

    def model(self) -> nn.Module:
        """The network, from one seed."""
        torch.manual_seed(0)
        if self.data == "digits":
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        return nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(1568, 100),
            nn.ReLU(),
            nn.Linear(100, 10),
        )

    def ball(self, data: Split) -> Ball:
        """Within the public range of the features."""
        (low,), (high,) = data.train.span or ((-1.0,), (1.0,))
        return Ball(self.eps, low, high)


DIGITS = Setting("digits", train=1440, test=355, eps=0.3, rounds=20, lr=0.2)
MNIST = Setting("mnist", train=12_000, test=500, eps=0.1 / 0.3081, rounds=8, lr=0.1)


def seats(ball: Ball) -> Mapping[str, Perturbation | None]:
    """What is compared."""
    spread = {"eps": ball.eps, "low": ball.low, "high": ball.high}
    return {
        "undefended": None,
        "fgsm": FGSM(**spread),
        "pgd-7": PGD(steps=7, **spread),
        "free, 4 replays": FreeAdversarial(replays=4, **spread),
    }


def trained(setting: Setting, data: Split, seat: Perturbation | None, **more: Any) -> nn.Module:
    """A federation's last model."""
    parts = [data.train.take(range(i, setting.train, CLIENTS)) for i in range(CLIENTS)]
    replays = seat.replays if isinstance(seat, FreeAdversarial) else 1
    method = LocalSGD(lr=setting.lr, plan=LocalPlan(32), adversarial=seat, **more)
    made = Federation(
        setting.model(),
        parts,
        data.test,
        rounds=max(setting.rounds // replays, 1) if replays > 1 else setting.rounds,
        training=method,
        executor="sequential",
        audit=AuditConfig(keep="none", evaluate_every=1000),
    )
    return made.run().model


def figures(
    setting: Setting, data: Split, module: nn.Module, undefended: nn.Module
) -> dict[str, float]:
    """Accuracies on the first test samples."""
    some: Dataset = data.test.take(range(setting.test))
    attack = Climb(setting.ball(data), restarts=RESTARTS)

    def rng() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    right = robust_accuracy(module, some, Climb(Ball(1e-9), steps=1), rng())
    return {
        "clean": right,
        "PGD-20, 5 restarts": robust_accuracy(module, some, attack, rng()),
        "transfer from undefended": robust_accuracy(module, some, attack, rng(), source=undefended),
        "random search, 1,000 answers": searched_accuracy(
            module, some, attack.ball, QUERIES, rng()
        ),
    }


def compared(setting: Setting) -> Iterator[Row]:
    """Each way of training beside none."""
    data = load(setting.data)
    found: dict[str, dict[str, float]] = {}
    undefended: nn.Module | None = None
    for name, seat in seats(setting.ball(data)).items():
        module = trained(setting, data, seat)
        undefended = module if undefended is None else undefended
        found[name] = figures(setting, data, module, undefended)
        say(f"{setting.data}, {name}: {found[name]}")
        for metric, value in found[name].items():
            target = None
            if name != "undefended" and metric.startswith("PGD"):
                target = 1.0
            case, beside = f"{setting.data}, {name}", found["undefended"][metric]
            yield gain(case, "undefended", metric, value, max(beside, 0.001), target)
        white = found[name]["PGD-20, 5 restarts"]
        others = [v for k, v in found[name].items() if k.startswith(("transfer", "random"))]
        if name != "undefended":  # attackers that see less do no better
            case = f"{setting.data}, {name}"
            yield cost(case, "attackers that see less", "accuracy", white, min(others), 1.0)


def digits(quick: bool) -> Iterator[Row]:
    """Digits."""
    yield from compared(DIGITS)


def mnist(quick: bool) -> Iterator[Row]:
    """MNIST."""
    yield from compared(MNIST)


def private(quick: bool) -> Iterator[Row]:
    """Digits under DP-SGD, with and without PGD: what both cost together."""
    data = load("digits")
    gradient = DPGradient(l2=1.0, noise_multiplier=0.6, batch_size=32)
    ball = DIGITS.ball(data)
    found = {}
    for name, seat in (("DP-SGD", None), ("DP-SGD, pgd-7", seats(ball)["pgd-7"])):
        module = trained(DIGITS, data, seat, gradient=gradient)
        found[name] = figures(DIGITS, data, module, module)
        say(f"digits, {name}: {found[name]}")
    for metric in ("clean", "PGD-20, 5 restarts"):
        ours, theirs = found["DP-SGD, pgd-7"][metric], found["DP-SGD"][metric]
        yield gain("digits, DP-SGD, pgd-7", "DP-SGD", metric, ours, theirs)


CASES: dict[str, Case] = {"digits": digits, "mnist": mnist, "private": private}

if __name__ == "__main__":
    main("adversarial", CASES)
