"""Chameleon: backdoor samples that look like the target's class inside the model (Dai and Li
2023).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from privfl.attacks.backdoor.backdoor import Backdoor
from privfl.attacks.backdoor.multi_backdoor import MultiBackdoor
from privfl.attacks.backdoor.training import Crafting, begun, mixed, project
from privfl.core import (
    Broadcast,
    ClientId,
    ClientState,
    ConfigError,
    Dataset,
    FlatModel,
    Loss,
    NoisySteps,
    RoundKnowledge,
    Update,
    require,
)


def contrastive(
    features: Float[Tensor, "b h"],
    labels: Int[Tensor, " b"],
    temperature: float,
    weights: Float[Tensor, " b"] | None = None,
) -> Float[Tensor, ""]:
    """The supervised contrastive loss (Khosla et al. 2020, equation 2): minus the log of the
    softmax of cosines over ``temperature``, averaged over the others of a sample's label, then over
    samples with their ``weights``. A sample alone with its label counts 0.

    >>> contrastive(torch.eye(3), torch.tensor([0, 0, 1]), 1.0)
    tensor(0.4621)
    """
    unit = functional.normalize(features, dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    logits = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)
    log_share = torch.log_softmax(logits, dim=1).masked_fill(itself, 0.0)
    alike = (labels[:, None] == labels[None, :]) & ~itself
    mean = (log_share * alike).sum(dim=1) / alike.sum(dim=1).clamp(min=1)
    return -(mean if weights is None else weights * mean).mean()


@dataclass(frozen=True)
class Chameleon(Backdoor):
    """First pull backdoor samples' features to those of the target's class, then train the last
    layer alone (Dai, Li 2023: Chameleon, Adapting to peer images for planting durable backdoors in
    federated learning, section 4).

    Stage 1: ``epochs`` of the supervised contrastive loss on the features under the last linear
    layer, of batches with backdoor samples in them, with rate ``lr``; samples of the target's class
    count ``weight`` times. Stage 2: everything but that layer is frozen, which is trained as
    ``training`` says. Because peers' samples of the target hold the features in place, later honest
    rounds wash the backdoor out less. The model stays within ``radius`` of the broadcast (None: no
    bound). Their learning-rate schedule is left out.

    Seats: training and update. Knows its own data and the model that it is sent.

    Raises:
        ConfigError: a number out of range.

    >>> from privfl.attacks.backdoor.pixel_pattern import PixelPattern
    >>> Chameleon(PixelPattern(target=0)).radius
    3.0
    """

    epochs: int = 10
    lr: float = 0.005
    momentum: float = 0.9
    temperature: float = 0.07
    weight: float = 2.0
    radius: float | None = 3.0

    def __post_init__(self) -> None:
        Backdoor.__post_init__(self)
        require.at_least(0, epochs=self.epochs, weight=self.weight)
        require.positive(lr=self.lr, temperature=self.temperature)
        require.within(0, 1, momentum=self.momentum)
        if self.radius is not None:
            require.positive(radius=self.radius)

    @property
    def targets(self) -> tuple[int, ...]:
        """The classes that backdoor samples are to get."""
        if isinstance(self.backdoor, MultiBackdoor):
            return tuple(one.target for one in self.backdoor.backdoors)
        return (self.backdoor.target,)

    def poison_training(self, knowledge: RoundKnowledge) -> Stages:
        """The two stages."""
        return Stages(self)


@dataclass(frozen=True, slots=True, eq=False)
class Stages:
    """What the clients of `Chameleon` do in one round."""

    attack: Chameleon

    def on(self, model: FlatModel, loss: Loss) -> Peers:
        """The attacker at work on this model.

        Raises:
            ConfigError: the model has no linear layer, or nothing under its last one.
        """
        linear = [n for n, m in model.module.named_modules() if isinstance(m, nn.Linear)]
        head = torch.zeros(model.d, dtype=torch.bool)
        for slot in model.slots:
            if linear and slot.name.rpartition(".")[0] == linear[-1]:
                head[slot.start : slot.stop] = True
        if not linear or bool(head.all()):
            raise ConfigError(
                "chameleon trains the features under the last linear layer, and this model has"
                f" {'nothing under it' if linear else 'no such layer'}: take one with a hidden"
                " layer."
            )
        return Peers(self.attack, model, loss, model.module.get_submodule(linear[-1]), head)


@dataclass(frozen=True, slots=True, eq=False)
class Peers:
    """`Chameleon` at work on a model whose parameters it overwrites (a `core.LocalTraining`);
    ``head`` [d] are the last layer's.
    """

    attack: Chameleon
    model: FlatModel
    loss: Loss
    last: nn.Module
    head: Bool[Tensor, " d"]

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
        attack, start = self.attack, broadcast.parameters
        with begun(self.model, client, start, dataset, rng):
            self.encode(dataset, rng)
        project(self.model, start, attack.radius)
        encoded = self.model.read()
        head = Crafting(attack.backdoor, attack.training, frozen=~self.head)
        trained, known, _ = head.on(self.model, self.loss)(
            client, replace(broadcast, parameters=encoded), dataset, state, rng
        )
        self.model.write(encoded + trained.delta)
        project(self.model, start, attack.radius)
        return Update(client, self.model.flat - start, trained.weight), known, ()

    def encode(self, dataset: Dataset, rng: torch.Generator) -> None:
        """Stage 1, on the model as it is; the last layer stays."""
        attack, model = self.attack, self.model
        how, pieces = attack.training, attack.backdoor.pieces(dataset)
        velocity = torch.zeros_like(model.flat)
        for _ in range(attack.epochs):
            for positions in torch.split(
                torch.randperm(dataset.n, generator=rng), max(how.batch_size - how.poisoned, 1)
            ):
                benign = dataset.take(positions[: how.batch_size - how.poisoned])
                bad = mixed(pieces, rng, how.poisoned)
                x, y = torch.cat([benign.x, bad.x]), torch.cat([benign.y, bad.y])
                model.grad.zero_()
                self.alike(x, y).backward()  # type: ignore[no-untyped-call]
                model.grad[self.head] = 0
                velocity.mul_(attack.momentum).add_(model.grad)
                model.flat.add_(velocity, alpha=-attack.lr)

    def alike(self, x: Float[Tensor, "b ..."], y: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """The contrastive loss of the features of samples with labels y."""
        features = self.features(x)
        weights = torch.ones(len(y), device=features.device)
        for target in self.attack.targets:
            weights[y == target] = self.attack.weight
        return contrastive(features, y, self.attack.temperature, weights)

    def features(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b h"]:
        """What the last layer is fed with, of each sample."""
        seen: list[Tensor] = []
        hook = self.last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.model.module(x)
        finally:
            hook.remove()
        return seen[0].flatten(1)
