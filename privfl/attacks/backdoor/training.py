"""The attacker's own training: backdoor samples in every batch, its own rates, and a grip on where
the model goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privfl.attacks.backdoor.multi_backdoor import MultiBackdoor
from privfl.attacks.backdoor.trigger import Trigger
from privfl.core import (
    Broadcast,
    ClientId,
    ClientState,
    ConfigError,
    Dataset,
    FlatModel,
    Loss,
    NoisySteps,
    Update,
    require,
)

Anomaly: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(X, G) -> how anomalous the model X [d] looks beside the broadcast G [d]: a scalar with a
graph.
"""


@dataclass(frozen=True, slots=True)
class AttackTraining:
    """How an attacker trains its model X (Bagdasaryan et al. 2020, algorithm 2; their lr_adv,
    E_adv, c, step_sched, step_rate, epsilon).

    Every batch of ``batch_size`` holds ``poisoned`` backdoor samples. Every ``every`` epochs the
    rate falls by ``decay``. Training stops early after an epoch whose mean backdoor loss is under
    ``stop``.

    >>> AttackTraining(lr=0.5, decay=0.5, every=2).rate(epoch=2)
    0.25
    """

    lr: float = 0.05
    epochs: int = 6
    batch_size: int = 64
    poisoned: int = 20
    momentum: float = 0.0
    decay: float = 1.0
    every: int | None = None
    stop: float = 0.0

    def __post_init__(self) -> None:
        require.positive(lr=self.lr, decay=self.decay)
        require.at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        require.within(1, self.batch_size, poisoned=self.poisoned)
        require.within(0, 1, momentum=self.momentum)
        require.at_least(0, stop=self.stop)
        if self.every is not None:
            require.at_least(1, every=self.every)

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        return float(self.lr * self.decay ** (0 if self.every is None else epoch // self.every))


def mixed(pieces: list[tuple[Trigger, Dataset]], rng: torch.Generator, count: int) -> Dataset:
    """Samples of every backdoor, as even as may be."""
    drawn = [
        b.draw(samples, (count + i) // len(pieces), rng) for i, (b, samples) in enumerate(pieces)
    ]
    return Dataset(
        torch.cat([d.x for d in drawn]), torch.cat([d.y for d in drawn]), drawn[0].classes
    )


@contextmanager
def begun(
    model: FlatModel,
    client: ClientId,
    start: Float[Tensor, " d"],
    dataset: Dataset,
    rng: torch.Generator,
) -> Iterator[None]:
    """An attacker's training from the broadcast: torch's own draws (as of dropout) repeat with the
    client's generator, and go on afterwards as if nothing had been drawn.

    Raises:
        ConfigError: the attacker holds no samples.
    """
    if dataset.n == 0:
        raise ConfigError(f"client {client} holds no samples to train a backdoor on.")
    model.write(start)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(rng.initial_seed())
        yield


def project(model: FlatModel, start: Float[Tensor, " d"], radius: float | None) -> None:
    """Put a model onto the nearest one within the radius of the broadcast; None: no bound."""
    away = model.flat - start
    length = float(away.norm())
    if radius is not None and length > radius:
        model.write(start + away * (radius / length))


@dataclass(frozen=True, slots=True, eq=False)
class Crafting:
    """An attacker's local training in one round.

    The loss is ``alpha`` times the batch's (benign and backdoor samples by their number, or by
    ``weights``) plus (1 - alpha) times ``anomaly``. Gradients are kept off the coordinates in
    ``frozen`` [d]; the model stays within ``radius`` of the broadcast, projected every
    ``project_every`` steps and at the end.
    """

    backdoor: Trigger | MultiBackdoor
    training: AttackTraining
    weights: tuple[float, float] | None = None
    alpha: float = 1.0
    anomaly: Anomaly | None = None
    frozen: Bool[Tensor, " d"] | None = None
    radius: float | None = None
    project_every: int = 10

    def on(self, model: FlatModel, loss: Loss) -> Crafter:
        """The attacker at work on this model."""
        return Crafter(self, model, loss)


@dataclass(frozen=True, slots=True)
class Crafter:
    """`Crafting` at work on a model whose parameters it overwrites (a `core.LocalTraining`)."""

    crafting: Crafting
    model: FlatModel
    loss: Loss

    def __call__(
        self,
        client: ClientId,
        broadcast: Broadcast,
        dataset: Dataset,
        state: ClientState,
        rng: torch.Generator,
    ) -> tuple[Update, ClientState, tuple[NoisySteps, ...]]:
        """X - G, with the weight that an honest client of its size would claim.

        Raises:
            ConfigError: the attacker holds no samples, or no backdoor samples can be made of them.
        """
        how, start = self.crafting.training, broadcast.parameters
        with begun(self.model, client, start, dataset, rng):
            self._train(dataset, start, rng, how)
        project(self.model, start, self.crafting.radius)
        delta = self.model.flat - start
        return Update(client, delta, float(dataset.n)), state, ()

    def _train(
        self, dataset: Dataset, start: Tensor, rng: torch.Generator, how: AttackTraining
    ) -> None:
        model, pieces = self.model, self.crafting.backdoor.pieces(dataset)
        velocity = torch.zeros_like(model.flat)
        steps = 0
        for epoch in range(how.epochs):
            losses = []
            for positions in torch.split(
                torch.randperm(dataset.n, generator=rng), max(how.batch_size - how.poisoned, 1)
            ):
                benign = dataset.take(positions[: how.batch_size - how.poisoned])
                losses.append(self._gradient(benign, mixed(pieces, rng, how.poisoned), start))
                velocity.mul_(how.momentum).add_(model.grad)
                model.flat.add_(velocity, alpha=-how.rate(epoch))
                steps += 1
                if steps % self.crafting.project_every == 0:
                    project(model, start, self.crafting.radius)
            if sum(losses) / len(losses) < how.stop:
                return

    def _gradient(self, benign: Dataset, bad: Dataset, start: Tensor) -> float:
        """Write a batch's gradient into the model's; the backdoor samples' mean loss."""
        crafting, model = self.crafting, self.model
        n = benign.n + bad.n
        clean_weight, bad_weight = crafting.weights or (benign.n / n, bad.n / n)
        model.grad.zero_()
        wrong = self.loss(model.module, bad.x, bad.y)
        total = bad_weight * wrong
        if benign.n and clean_weight:
            total = total + clean_weight * self.loss(model.module, benign.x, benign.y)
        (crafting.alpha * total).backward()  # type: ignore[no-untyped-call]
        if crafting.anomaly is not None:
            here = model.flat.clone().requires_grad_(True)
            (slope,) = torch.autograd.grad(crafting.anomaly(here, start), here)
            model.grad.add_(slope, alpha=1 - crafting.alpha)
        if crafting.frozen is not None:
            model.grad[crafting.frozen] = 0
        return float(wrong.detach())
