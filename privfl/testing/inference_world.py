"""Rounds for attacks that only look: what several adversaries saw of four small clients, and what
they may know beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from privfl.attacks import Forward, Knowledge
from privfl.core import BUFFERS, Dataset, FlatModel, RoundPlan, Rows, Total, Vector, View
from privfl.models import transformer

CLIENTS, EACH, LR = (0, 2, 5, 7), 6, 0.1
"""Who takes part, with how many samples each, and the rate of a client's one gradient step."""
PAIRS = ((0, 0, 1, 1), (0, 1, 0, 1), (0, 1, 1, 0))
"""In which of two groups each client is, round by round."""
SAMPLES, CLASSES, TOKENS = 160, 4, 9

Sees: TypeAlias = Literal["rows", "groups", "sum", "nothing"]
"""What an adversary reads: every row and who was selected, the means of groups and who is in which,
the sum, or nothing but the models around the round.
"""
SEES: tuple[Sees, ...] = ("rows", "groups", "sum", "nothing")


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Data, a model for it, and one gradient step on all of a client's samples as training.

    As a `Trainer`, it trains an adversary's shadows. With ``statistics`` the network has BatchNorm,
    and clients send the change of its running statistics as a part of its own. ``width`` is that
    of the hidden layer for images.
    """

    name: str
    data: Dataset
    statistics: bool = False
    width: int = 48

    def model(self) -> FlatModel:
        """The model at its start: one hidden layer for images, a small transformer for text."""
        text = not self.data.x.is_floating_point()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            if text:
                return FlatModel(transformer((5,), TOKENS, width=36, heads=2))
            norm = (nn.BatchNorm1d(self.width),) if self.statistics else ()
            first, last = nn.Linear(64, self.width), nn.Linear(self.width, CLASSES)
            return FlatModel(nn.Sequential(nn.Flatten(), first, *norm, nn.ReLU(), last))

    def forward(self) -> Forward:
        """The public recipe."""
        x = self.data.x
        low: tuple[float, ...] = ()
        high: tuple[float, ...] = ()
        if x.is_floating_point():
            low, high = (float(x.min()),), (float(x.max()),)
        shape = tuple(x.shape[1:])
        module = self.model().module
        plain = Forward(module, _loss, shape, self.data.classes, LR, low, high, steps=1)
        return replace(plain, buffers="averaged") if self.statistics else plain

    def step(self, start: Vector, held: Dataset) -> Vector:
        """The change [d] of a model on some data."""
        return self.stepped(self.model(), start, held)[0]

    def stepped(self, model: FlatModel, start: Vector, held: Dataset) -> tuple[Vector, Vector]:
        """The change [d] of a model on some data, and that of its running statistics [s] from those
        it has.
        """
        model.write(start)
        model.grad.zero_()
        began = model.state.clone()
        torch.autograd.backward(_loss(model.module, held.x, held.y))
        change: Vector = -LR * model.grad
        return change, model.state - began

    def __call__(
        self,
        start: Vector,
        data: Dataset,
        subsets: Sequence[Tensor],
        *,
        epochs: int | None = None,
        seed: int = 0,
    ) -> Float[Tensor, "K d"]:
        """The changes of shadow clients."""
        model = self.model()
        began, rows = model.state.clone(), []
        for index in subsets:
            rows.append(self.stepped(model, start, data.take(index))[0])
            model.write_state(began)
        return torch.stack(rows)

    def views(self, sees: Sees) -> tuple[View, ...]:
        """Three rounds as an adversary saw them, in tensors of the caller's own."""
        return copy.deepcopy(_views(self, sees))

    def knowledge(self) -> Knowledge:
        """All that an attack may know: the recipe, samples of its own, a pool half of which was
        trained on, most of those, a client's labels and size, shadow training, an attribute.
        """
        trained = EACH * len(CLIENTS)
        return Knowledge(
            forward=self.forward(),
            auxiliary=self.data.take(range(2 * trained, SAMPLES)),
            candidates=self.data.take(range(2 * trained)),
            members=self.data.take(range(trained - 2)),
            labels=self.data.y[:EACH].clone(),
            samples=EACH,
            trainer=self,
            attribute="group",
        )


def worlds() -> tuple[World, ...]:
    """Images of 8 x 8 pixels in four classes, and text of nine tokens."""
    return _every_world()[:2]


def rare_worlds() -> tuple[World, ...]:
    """What few attacks ask for: images for a network whose clients send running statistics, and for
    a wide one.
    """
    return _every_world()[2:]


@cache
def _every_world() -> tuple[World, ...]:
    rng = torch.Generator().manual_seed(1)
    y, order = torch.arange(SAMPLES) % CLASSES, torch.arange(SAMPLES)
    facts = {"group": (order // 3) % 2, "writer": order // 8}
    x = torch.randn(SAMPLES, 1, 8, 8, generator=rng) + y[:, None, None, None]
    images = Dataset(x, y, CLASSES, facts)
    tokens = torch.randint(0, TOKENS, (SAMPLES, 6), generator=rng)
    text = Dataset(tokens[:, :-1].clone(), tokens[:, 1:].clone(), TOKENS, facts)
    return (
        World("images", images),
        World("text", text),
        World("images and running statistics", images, statistics=True),
        World("images for a wide layer", images, width=200),
    )


def _loss(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of logits [n, ..., classes] with labels [n, ...]."""
    return functional.cross_entropy(module(x).flatten(0, -2), y.flatten())


@cache
def _steps(world: World) -> tuple[tuple[Vector, Vector, Tensor, Tensor], ...]:
    """The model [d] before and after each of three rounds, the changes [n, d] of the clients, and
    those of their running statistics [n, s].
    """
    held = [world.data.take(range(i * EACH, (i + 1) * EACH)) for i in range(len(CLIENTS))]
    weights, before = torch.full((len(CLIENTS),), float(EACH)), world.model().read()
    rounds = []
    for _ in PAIRS:
        stepped = [world.stepped(world.model(), before, own) for own in held]
        rows, moved = (torch.stack(of) for of in zip(*stepped, strict=True))
        after = before + Total(weights @ rows, float(weights.sum()), len(CLIENTS)).mean()
        rounds.append((before, after, rows, moved))
        before = after
    return tuple(rounds)


@cache
def _views(world: World, sees: Sees) -> tuple[View, ...]:
    """What `World.views` gives copies of: some 40 attacks are shown the same rounds, several times
    each.
    """
    weights, seen = torch.full((len(CLIENTS),), float(EACH)), []
    for number, (groups, played) in enumerate(zip(PAIRS, _steps(world), strict=True)):
        before, after, rows, moved = played
        total = Total(weights @ rows, float(weights.sum()), len(CLIENTS))
        opened: dict[str, Rows | Total] = {}
        told: Mapping[str, Tensor] = {}
        if sees == "rows":
            opened = {"delta": Rows(rows, weights, CLIENTS)}
            picked = torch.tensor([True, number > 0, False, True])
            told = {"clients": torch.tensor(CLIENTS), "selected": picked}
        elif sees == "groups":
            home = torch.tensor(groups)
            means = torch.stack([rows[home == group].mean(dim=0) for group in (0, 1)])
            opened = {"delta": Rows(means, torch.full((2,), 2.0 * EACH))}
            told = {"membership": home, "groups": torch.tensor([0, 1])}
        elif sees == "sum":
            opened = {"delta": total}
        who = "client/2" if sees == "nothing" else "server"
        plan = RoundPlan(number, CLIENTS, len(before), l2=float("inf"))
        if world.statistics and sees == "rows":
            opened[BUFFERS] = Rows(moved, weights, CLIENTS)
        elif world.statistics and sees == "sum":
            opened[BUFFERS] = Total(weights @ moved, float(weights.sum()), len(CLIENTS))
        beside = {BUFFERS: world.model().state} if world.statistics else {}
        seen.append(View(who, plan, before, after, opened, told, extra=beside))
    return tuple(seen)
