"""What attackers that train a backdoored model share: their own training, what they send of it, and
the measure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privfl.attacks.backdoor.multi_backdoor import MultiBackdoor
from privfl.attacks.backdoor.pixel_pattern import PixelPattern
from privfl.attacks.backdoor.training import AttackTraining, Crafting
from privfl.attacks.backdoor.trigger import Trigger
from privfl.core import (
    AttackSeat,
    ConfigError,
    Dataset,
    Divided,
    Examples,
    Knows,
    Measured,
    RoundKnowledge,
    TrainingPoison,
    Trains,
    UpdatePoison,
    require,
)


@dataclass(frozen=True)
class Backdoor(TrainingPoison, UpdatePoison, Divided, Measured):
    """Train a backdoored model X from the broadcast G and send gamma (X - G).

    ``gamma=None`` is the factor that replaces the global model by the attackers' under a weighted
    mean: one over the part of the cohort's weight that is theirs, times the server's rate.
    MultiBackdoor attackers send each its ``own`` model's change; or the ``same``, the mean of them;
    or ``orthogonal`` vectors, which sum to the same and evade detectors of likeness.

    Raises:
        ConfigError: ``backdoor`` is none, or gamma is not above 0.
    """

    examples: ClassVar[Examples] = {"": {"backdoor": PixelPattern(target=0)}}
    seats: ClassVar[frozenset[AttackSeat]] = frozenset({"training", "update"})

    backdoor: Trigger | MultiBackdoor
    training: AttackTraining = AttackTraining()
    gamma: float | None = 1.0
    split: Literal["own", "same", "orthogonal"] = "own"

    def __post_init__(self) -> None:
        if not isinstance(self.backdoor, Trigger | MultiBackdoor):
            raise ConfigError(
                "backdoor is one of the backdoors (pixel_pattern, semantic, ...), and is"
                f" {type(self.backdoor).__name__}."
            )
        if self.gamma is not None:
            require.positive(gamma=self.gamma)

    @property
    def knows(self) -> Knows:
        """Its own data; where gamma is None also the cohort's total weight and the server's
        rate.
        """
        return "own"

    def ready(self, dataset: Dataset) -> None:
        """Refuse data that the backdoor cannot be trained with, so that an engine can before any
        training.

        Raises:
            ConfigError: no backdoor samples can be made of it or found in it, or the target is none
                of its classes.
        """
        for backdoor, samples in self.backdoor.pieces(dataset):
            backdoor.draw(samples, 1, torch.Generator())

    def poison_training(self, knowledge: RoundKnowledge) -> Trains:
        """Training on benign and backdoor samples."""
        return Crafting(self.backdoor, self.training)

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """The change times gamma, or together the whole replacement [f, d]."""
        shares = knowledge.shares(len(own)).to(own)
        gamma = float(1 / shares.sum()) if self.gamma is None else self.gamma
        if self.split == "own":
            return own * gamma
        change = own.mean(dim=0) * gamma
        if self.split == "same":
            return change.expand(own.shape).clone()
        owner = torch.randint(len(own), own.shape[1:], generator=rng)
        return torch.stack(
            [
                torch.where(owner == i, change * (shares.sum() / shares[i]), 0.0)
                for i in range(len(own))
            ]
        )

    def part(self, position: int, of: int) -> Backdoor:
        """The attack of one of its clients: with its own part of a backdoor that is shared out."""
        return replace(self, backdoor=self.backdoor.part(position, of))

    def measure(self, module: nn.Module, test: Dataset) -> Mapping[str, float]:
        """The backdoor's measure."""
        return self.backdoor.measure(module, test)
