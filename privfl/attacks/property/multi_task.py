"""Active property inference: a participant teaches the shared model to tell the property apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from privfl.core import (
    Broadcast,
    ClientId,
    ClientState,
    ConfigError,
    Dataset,
    Examples,
    FlatModel,
    Loss,
    NoisySteps,
    RoundKnowledge,
    TrainingPoison,
    Update,
    require,
)


@dataclass(frozen=True, slots=True)
class MultiTask(TrainingPoison):
    """Multi-task training (Melis, Song, De Cristofaro, Shmatikov 2019, section 4.5, active): (1 -
    weight) task + weight property.

    The attacker's model has a head of its own on the features under the last layer, which learns
    the property from its own samples' ``attribute`` (0 or 1); the shared layers then tell samples
    with the property from others, and so do everybody's gradients. The head stays at home; its
    update is sent ``boost`` times as long. `PropertyInference` reads the updates afterwards, as it
    would without.

    >>> MultiTask(attribute="mirrored").weight
    0.7
    """

    examples: ClassVar[Examples] = {"": {"attribute": "group"}}
    family: ClassVar[Literal["property"]] = "property"
    attribute: str
    weight: float = 0.7
    lr: float = 0.1
    epochs: int = 3
    batch_size: int = 16
    boost: float = 2.0

    def __post_init__(self) -> None:
        require.within(0, 1, weight=self.weight)
        require.positive(lr=self.lr, boost=self.boost)
        require.at_least(1, epochs=self.epochs, batch_size=self.batch_size)

    def poison_training(self, knowledge: RoundKnowledge) -> MultiTask:
        """What its clients do instead of honest training."""
        return self

    def on(self, model: FlatModel, loss: Loss) -> MultiTaskTrainer:
        """The attacker at work on this model.

        Raises:
            ConfigError: the model has no linear layer.
        """
        linear = [layer for layer in model.module.modules() if isinstance(layer, nn.Linear)]
        if not linear:
            raise ConfigError(
                "multi_task reads the features under the last linear layer, and this model has"
                " none."
            )
        return MultiTaskTrainer(self, model, loss, linear[-1])


@dataclass(frozen=True, slots=True)
class MultiTaskTrainer:
    """`MultiTask` at work on a model whose parameters it overwrites (a `core.LocalTraining`). Its
    head is in the client's state.
    """

    how: MultiTask
    model: FlatModel
    loss: Loss
    last: nn.Linear

    def __call__(
        self,
        client: ClientId,
        broadcast: Broadcast,
        dataset: Dataset,
        state: ClientState,
        rng: torch.Generator,
    ) -> tuple[Update, ClientState, tuple[NoisySteps, ...]]:
        """Train the shared model and the head together.

        Raises:
            ConfigError: the attacker's samples do not have the attribute.
        """
        if self.how.attribute not in dataset.attributes:
            raise ConfigError(
                f"client {client} has no attribute '{self.how.attribute}' on its samples to learn a"
                " property from."
            )
        size, device = self.last.in_features + 1, self.model.flat.device
        head = state.vectors.get("property head", torch.zeros(size)).to(device, copy=True)
        head.requires_grad_()
        fact = dataset.attributes[self.how.attribute].to(device).float()
        self.model.write(broadcast.parameters)
        for _ in range(self.how.epochs):
            for batch in torch.split(torch.randperm(dataset.n, generator=rng), self.how.batch_size):
                self.model.grad.zero_()
                slope = self._step(dataset.x[batch], dataset.y[batch], fact[batch], head)
                self.model.flat.add_(self.model.grad, alpha=-self.how.lr)
                with torch.no_grad():
                    head -= self.how.lr * slope
        delta = self.how.boost * (self.model.flat - broadcast.parameters)
        weight = float(dataset.n)
        return (
            Update(client, delta, weight),
            ClientState({**state.vectors, "property head": head.detach()}),
            (),
        )

    def _step(self, x: Tensor, y: Tensor, fact: Tensor, head: Tensor) -> Tensor:
        """Write the shared model's gradient; the head's."""
        seen: list[Tensor] = []
        hook = self.last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            task = self.loss(self.model.module, x, y)
        finally:
            hook.remove()
        logits = seen[0] @ head[:-1] + head[-1]
        other = functional.binary_cross_entropy_with_logits(logits, fact)
        total = (1 - self.how.weight) * task + self.how.weight * other
        head.grad = None
        total.backward()  # type: ignore[no-untyped-call]
        return torch.zeros_like(head) if head.grad is None else head.grad.clone()
