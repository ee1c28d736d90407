"""Triggers that attackers learn on the models that they are sent: what they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from privfl.attacks.backdoor.image_trigger import ImageTrigger, pixel_range
from privfl.attacks.backdoor.training import AttackTraining, Crafting
from privfl.core import (
    AttackSeat,
    Broadcast,
    ClientId,
    ClientState,
    ConfigError,
    Dataset,
    FlatModel,
    Knows,
    Loss,
    MeasuredByClient,
    NoisySteps,
    RoundKnowledge,
    TrainingPoison,
    Update,
    UpdatePoison,
    Vector,
    require,
)

MEMORY = "trigger"
"""Under which name a client's state holds what it has learnt."""


@dataclass(frozen=True, kw_only=True)
class LearnedTrigger(TrainingPoison, UpdatePoison, MeasuredByClient, ABC):
    """Attackers that learn a trigger on every model that they are sent, train a backdoored model X
    with it, and send gamma (X - G).

    Each client learns on its own data, from where it stood when it took part last; the trigger is
    in its `ClientState`. The measure is the mean over the attack's clients, each with its own
    trigger: what it would stamp now. ``gamma=None`` replaces the model, as in `ModelReplacement`.
    ``span`` is the least and the greatest pixel where the data do not say it.

    Raises:
        ConfigError: a number out of range.
    """

    seats: ClassVar[frozenset[AttackSeat]] = frozenset({"training", "update"})

    target: int
    training: AttackTraining = AttackTraining()
    gamma: float | None = 1.0
    span: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        require.at_least(0, target=self.target)
        if self.gamma is not None:
            require.positive(gamma=self.gamma)

    @property
    def knows(self) -> Knows:
        """Its own data and the models that it is sent; where gamma is None also the cohort's total
        weight and the server's rate.
        """
        return "own"

    @abstractmethod
    def fresh(self, dataset: Dataset) -> Vector:
        """Where learning begins [p]."""

    @abstractmethod
    def trigger(self, learnt: Vector, dataset: Dataset) -> ImageTrigger:
        """The trigger of what was learnt, on images like these."""

    @abstractmethod
    def learn(
        self, model: FlatModel, loss: Loss, others: Dataset, learnt: Vector, rng: torch.Generator
    ) -> Vector:
        """What is learnt [p] on a model, which stays as it is, and the attacker's samples of other
        classes than the target.
        """

    def stages(self) -> list[tuple[bool, AttackTraining]]:
        """One after the other: whether the trigger is learnt anew first, and how the model is
        trained with it.
        """
        return [(True, self.training)]

    def frozen(self, knowledge: RoundKnowledge) -> Bool[Tensor, " d"] | None:
        """Coordinates that training leaves alone; None: none."""
        return None

    def ready(self, dataset: Dataset) -> None:
        """Refuse data that the trigger does not fit, so that an engine can before any training.

        Raises:
            ConfigError: these are no images of a known range, the trigger lies outside of them, or
                all samples are of the target class.
        """
        made = self.trigger(self.fresh(dataset), dataset)
        made.draw(made.samples(dataset), 1, torch.Generator())

    def poison_training(self, knowledge: RoundKnowledge) -> Learning:
        """Learning a trigger, then training with it."""
        return Learning(self, self.frozen(knowledge))

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """The changes [f, d] times gamma."""
        gamma = float(1 / knowledge.shares(len(own)).sum()) if self.gamma is None else self.gamma
        return own * gamma

    def measure_of(
        self, own: Dataset, state: ClientState, module: nn.Module, test: Dataset
    ) -> Mapping[str, float]:
        """``backdoor`` and ``main``, as `Trigger.measure`, of this client's trigger."""
        learnt = state.vectors.get(MEMORY)
        learnt = self.fresh(test) if learnt is None else learnt.to(test.x.device)
        return self.trigger(learnt, test).measure(module, test)

    def _range(self, dataset: Dataset) -> tuple[Tensor, Tensor]:
        return pixel_range(dataset, self.span, type(self).__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Learning:
    """What the clients of such an attack do in one round."""

    attack: LearnedTrigger
    frozen: Bool[Tensor, " d"] | None

    def on(self, model: FlatModel, loss: Loss) -> Learner:
        """The attacker at work on this model."""
        return Learner(self, model, loss)


@dataclass(frozen=True, slots=True, eq=False)
class Learner:
    """`Learning` at work on a model whose parameters it overwrites (a `core.LocalTraining`)."""

    learning: Learning
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
        """X - G, and the trigger in the client's memory.

        Raises:
            ConfigError: the attacker has no samples of another class than the target.
        """
        attack, start = self.learning.attack, broadcast.parameters
        others = dataset.take((dataset.y != attack.target).nonzero().flatten())
        if others.n == 0:
            raise ConfigError(
                f"client {client} holds no samples of another class than {attack.target} to learn a"
                " trigger on."
            )
        learnt = state.vectors.get(MEMORY)
        learnt = attack.fresh(dataset) if learnt is None else learnt
        here, weight = start, float(dataset.n)
        for anew, how in attack.stages():
            if anew:
                self.model.write(here)
                learnt = self._learn(others, learnt, rng)
            crafting = Crafting(attack.trigger(learnt, dataset), how, frozen=self.learning.frozen)
            trained, _, _ = crafting.on(self.model, self.loss)(
                client, replace(broadcast, parameters=here), dataset, state, rng
            )
            here, weight = here + trained.delta, trained.weight
        known = ClientState({**state.vectors, MEMORY: learnt})
        return Update(client, here - start, weight), known, ()

    def _learn(self, others: Dataset, learnt: Vector, rng: torch.Generator) -> Vector:
        module = self.model.module
        training = module.training
        module.eval()
        try:
            return self.learning.attack.learn(self.model, self.loss, others, learnt, rng).detach()
        finally:
            module.train(training)


def batches(dataset: Dataset, size: int, rng: torch.Generator) -> list[Dataset]:
    """The samples in an order of their own, in batches."""
    return [dataset.take(b) for b in torch.split(torch.randperm(dataset.n, generator=rng), size)]
