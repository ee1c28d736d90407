"""Trainings that several runs of an experiment have in common, each of which is done once."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from privfl import attacks
from privfl.attacks.backdoor.training import Crafting
from privfl.core import (
    Broadcast,
    ClientId,
    ClientState,
    Dataset,
    FlatModel,
    LocalTraining,
    Loss,
    NoisySteps,
    RoundKnowledge,
    Trains,
    Update,
    Vector,
)
from privfl.training import LocalSGD

Key = tuple[Hashable, ...]
Left = tuple[Update, ClientState, tuple[NoisySteps, ...]]


class Held:
    """Marks in a key what stands for an object, so that no number is taken for one."""


@dataclass(frozen=True, eq=False)
class Memory:
    """What was trained or measured before, by all that it hangs on."""

    kept: dict[Key, Any] = field(default_factory=dict)
    held: dict[int, Any] = field(default_factory=dict)

    def name(self, thing: Any) -> Hashable:
        """What stands for a thing in a key: itself, or that it is this very object, which lives as
        long as the memory.
        """
        try:
            hash(thing)
        except TypeError:
            self.held[id(thing)] = thing
            return Held, id(thing)
        named: Hashable = thing
        return named

    def once(self, key: Key, make: Callable[[], Any]) -> Any:
        """What was made of this key before, or is made now."""
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]


@dataclass(frozen=True)
class OnceSGD(LocalSGD):
    """Local SGD that gives a client who starts from the same bits of the same module, with the same
    samples, settings and chance, what it left before.
    """

    memory: Memory = field(default_factory=Memory)

    def on(self, model: FlatModel, loss: Loss) -> Any:
        """The client half, at work on this model."""
        how = [getattr(self, one.name) for one in fields(self) if one.name != "memory"]
        return at_work(super().on(model, loss), (LocalSGD, *how), model, loss, self.memory)


@dataclass(frozen=True)
class Once:
    """An attacker's training that is remembered likewise; ``what`` tells it from others."""

    trains: Trains
    what: Key
    memory: Memory

    def on(self, model: FlatModel, loss: Loss) -> LocalTraining:
        """The attacker at work on this model."""
        return at_work(self.trains.on(model, loss), self.what, model, loss, self.memory)


def at_work(
    training: LocalTraining, how: Key, model: FlatModel, loss: Loss, memory: Memory
) -> AtWork:
    """A training by these settings of this very module on this loss."""
    what = tuple(memory.name(one) for one in (*how, model.module, loss))
    return AtWork(training, what, model.module, memory)


@dataclass(frozen=True)
class AtWork:
    """Local training whose outcomes are remembered."""

    training: LocalTraining
    what: Key
    module: nn.Module
    memory: Memory

    def __call__(
        self,
        client: ClientId,
        broadcast: Broadcast,
        dataset: Dataset,
        state: ClientState,
        rng: torch.Generator,
    ) -> Left:
        """Train once. Whoever gets an update may overwrite it: it is its own.

        Raises:
            ValueError: a training that hangs on more than a key says.
        """
        if state.vectors or broadcast.aux or any(True for _ in self.module.buffers()):
            raise ValueError("what a client or a model keeps from round to round is in no key.")
        key = (
            *self.what,
            client,
            broadcast.version,
            rng.initial_seed(),
            digest(rng.get_state()),
            *map(digest, (broadcast.parameters, dataset.x, dataset.y)),
        )
        left: Left = self.memory.once(
            key, lambda: self.training(client, broadcast, dataset, state, rng)
        )
        return copy.deepcopy(left)


@dataclass(frozen=True)
class OnceReplacing(attacks.ModelReplacement):
    """Model replacement whose model X is trained once, whatever it is scaled by."""

    memory: Memory = field(default_factory=Memory)

    def poison_training(self, knowledge: RoundKnowledge) -> Trains:
        """The attacker's training, remembered."""
        return _remembered(super().poison_training(knowledge), self.memory)


@dataclass(frozen=True)
class OnceScaling(attacks.TrainAndScale):
    """The same X, scaled to a bound."""

    memory: Memory = field(default_factory=Memory)

    def poison_training(self, knowledge: RoundKnowledge) -> Trains:
        """The attacker's training, remembered."""
        return _remembered(super().poison_training(knowledge), self.memory)


@dataclass(frozen=True)
class OnceConstrained(attacks.ConstrainAndScale):
    """Constrain-and-scale whose model X is trained once, whatever rule it meets."""

    memory: Memory = field(default_factory=Memory)

    def poison_training(self, knowledge: RoundKnowledge) -> Any:
        """The attacker's training, remembered."""
        return _remembered(super().poison_training(knowledge), self.memory)


def _remembered(trains: Trains, memory: Memory) -> Trains:
    """Remembered by everything that it says of itself, where it says so in plain values."""
    if not isinstance(trains, Crafting) or trains.frozen is not None:
        return trains
    what = tuple(memory.name(getattr(trains, one.name)) for one in fields(trains))
    return Once(trains, what, memory)


def digest(values: Vector | Tensor) -> bytes:
    """A hash of all values' bits, and of how they are to be read."""
    bits = values.detach().contiguous().numpy().tobytes()
    return hashlib.sha256(f"{values.dtype} {tuple(values.shape)} ".encode() + bits).digest()


def weights_of(model: nn.Module) -> bytes:
    """A hash of a model's parameters."""
    return digest(torch.nn.utils.parameters_to_vector(model.parameters()))
