"""Triggers that a small network draws on every image, learnt beside the model (Nguyen et al. 2023;
Doan et al. 2021).
"""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privfl.attacks.backdoor import residual
from privfl.attacks.backdoor.image_trigger import ImageTrigger
from privfl.attacks.backdoor.learned import LearnedTrigger, batches
from privfl.attacks.backdoor.measure import success
from privfl.attacks.backdoor.training import AttackTraining
from privfl.core import (
    Dataset,
    Examples,
    FlatModel,
    Loss,
    RoundKnowledge,
    Vector,
    require,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Generated(ImageTrigger):
    """Images x + epsilon tanh(g(x)), cut to the range of pixels, where ``weights`` [p] are those of
    the two convolutions g and epsilon is a part of the range.

    Seat: data. Knows its own data.

    >>> data = Dataset(torch.zeros(1, 1, 2, 2), torch.tensor([0]), 2, span=((0.0,), (1.0,)))
    >>> Generated(target=1, weights=torch.zeros(153), epsilon=0.1).samples(data).x.sum()
    tensor(0.)
    """

    weights: Float[Tensor, " p"]
    epsilon: float

    def stamp(
        self,
        x: Float[Tensor, "n c h w"],
        low: Float[Tensor, "c 1 1"],
        high: Float[Tensor, "c 1 1"],
    ) -> Float[Tensor, "n c h w"]:
        """Images with what the network draws on them, with a graph to its weights."""
        drawn = residual.field(self.weights, x, low, high).tanh()
        return residual.add(x, drawn, self.epsilon, low, high)


@dataclass(frozen=True, kw_only=True)
class GeneratedTrigger(LearnedTrigger, ABC):
    """What attacks share whose trigger is a network's: ``epsilon`` of the range of pixels at most,
    learnt by Adam at rate ``rate`` from weights that ``key`` draws.
    """

    epsilon: float = 0.06
    rate: float = 0.01
    key: int = 0

    def __post_init__(self) -> None:
        LearnedTrigger.__post_init__(self)
        require.positive(epsilon=self.epsilon, rate=self.rate)
        require.within(0, 1, epsilon=self.epsilon)

    def fresh(self, dataset: Dataset) -> Vector:
        """Random weights [p] of the network."""
        channels = self._range(dataset)[0].shape[0]
        return residual.fresh(channels, torch.Generator().manual_seed(self.key))

    def trigger(self, learnt: Vector, dataset: Dataset) -> Generated:
        """What the network draws."""
        return Generated(target=self.target, span=self.span, weights=learnt, epsilon=self.epsilon)

    def _descend(
        self,
        model: FlatModel,
        loss: Loss,
        others: Dataset,
        learnt: Vector,
        rng: torch.Generator,
        epochs: int,
        enough: float,
    ) -> Vector:
        """The network after so many epochs on a model, or as soon as ``enough`` of the attacker's
        samples get the target.
        """
        weights = learnt.clone().requires_grad_(True)
        adam = torch.optim.Adam([weights], lr=self.rate)
        for _ in range(epochs):
            shown = self.trigger(weights.detach(), others).samples(others)
            if success(model.module, shown.x, self.target) >= enough:
                break
            for batch in batches(others, self.training.batch_size, rng):
                stamped = self.trigger(weights, batch).samples(batch)
                (weights.grad,) = torch.autograd.grad(
                    loss(model.module, stamped.x, stamped.y), weights
                )
                adam.step()
        return weights.detach()


@dataclass(frozen=True, kw_only=True)
class IBA(GeneratedTrigger):
    """Learn a faint trigger on the model of the round until ``enough`` of the attacker's samples
    fall for it, then plant it where honest clients change little (Nguyen, Nguyen, Wong, Doan et al.
    2023: IBA, Towards irreversible backdoor attacks in federated learning, section 4).

    As there, training keeps off the ``top`` fraction of coordinates in which the last aggregate was
    largest; the paper looks at many rounds' history, this at the last one. Its U-Net is here two
    convolutions. In later rounds the trigger is learnt on where it no longer works.

    Seats: training and update. Knows its own data, the range of pixels, and the models it is sent.

    >>> IBA(target=2).epsilon
    0.06
    """

    examples: ClassVar[Examples] = {"": {"target": 0, "span": (-4.0, 8.0), "epochs": 2}}

    epochs: int = 20
    enough: float = 0.7
    top: float = 0.05

    def __post_init__(self) -> None:
        GeneratedTrigger.__post_init__(self)
        require.at_least(1, epochs=self.epochs)
        require.within(0, 1, enough=self.enough, top=self.top)

    def frozen(self, knowledge: RoundKnowledge) -> Bool[Tensor, " d"] | None:
        """The coordinates that honest clients changed most; None in the first round."""
        if knowledge.last is None:
            return None
        frozen = torch.zeros(len(knowledge.last), dtype=torch.bool)
        frozen[knowledge.last.abs().topk(round(self.top * len(frozen))).indices] = True
        return frozen

    def learn(
        self, model: FlatModel, loss: Loss, others: Dataset, learnt: Vector, rng: torch.Generator
    ) -> Vector:
        """The network, learnt on the model as it is."""
        return self._descend(model, loss, others, learnt, rng, self.epochs, self.enough)


@dataclass(frozen=True, kw_only=True)
class LIRA(GeneratedTrigger):
    """Learn trigger and classifier in turns: T to fool f, f to answer T (Doan, Lao, Zhao, Li 2021:
    LIRA, Learnable, imperceptible and robust backdoor attacks, section 3, algorithm 1).

    ``turns`` times, one epoch of T on the classifier as it is and one epoch of f on clean and
    stamped samples; then T stays and f is trained as ``training`` says (the paper's second stage).
    The paper takes turns at every batch, and its T is an autoencoder; here T is two convolutions.

    Seats: training and update. Knows its own data, the range of pixels, and the models it is sent.

    >>> len(LIRA(target=2, turns=3).stages())
    4
    """

    examples: ClassVar[Examples] = {"": {"target": 0, "span": (-4.0, 8.0), "turns": 2}}

    turns: int = 5

    def __post_init__(self) -> None:
        GeneratedTrigger.__post_init__(self)
        require.at_least(1, turns=self.turns)

    def stages(self) -> list[tuple[bool, AttackTraining]]:
        """The turns, then training with the trigger as it is."""
        turn = replace(self.training, epochs=1, stop=0.0)
        return [*[(True, turn)] * self.turns, (False, self.training)]

    def learn(
        self, model: FlatModel, loss: Loss, others: Dataset, learnt: Vector, rng: torch.Generator
    ) -> Vector:
        """The network after one more epoch."""
        return self._descend(model, loss, others, learnt, rng, 1, 1.1)
