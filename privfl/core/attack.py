"""The seats of attackers that take part: each says what it knows and where it acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privfl.core.dataset import Dataset
from privfl.core.errors import ConfigError
from privfl.core.flat import FlatModel
from privfl.core.local import LocalTraining, Loss
from privfl.core.opened import Rows
from privfl.core.protocol import Party
from privfl.core.types import ClientId, Vector
from privfl.core.update import Bounded, Broadcast, RoundPlan

S = TypeVar("S")

Knows: TypeAlias = Literal["nothing", "own", "benign", "rule"]
"""What an attack needs: nothing, its own clients' honest updates, all benign updates, or also the
server's rule.
"""


@runtime_checkable
class Path(Protocol):
    """The way of a row from its client to the model: what colluding attackers that know the server
    try their candidates on. It holds everything that is public or their own, and none of the
    server's private coins.
    """

    def sent(self, rows: Float[Tensor, "f d"]) -> Float[Tensor, "f d"]:
        """What arrives of rows that attackers hand to their own client halves: after momentum where
        they follow it, the bound, and the encoding.
        """
        ...

    def server(self, rows: Rows) -> Vector:
        """The vector [d] that the server's side makes of all rows as they arrive: groups, seats
        before the rule, and the rule that really judges them, inside the channel or after it.
        """
        ...


@dataclass(frozen=True, slots=True)
class RoundKnowledge:
    """What colluding attackers know in a round. Fields that the scenario withholds are None.

    ``before`` is the broadcast model [d], ``last`` the last aggregate [d] (None in the first
    round); ``benign`` are the honest updates of this round's cohort as they arrive; ``path``
    is the way of a row to the model, to try candidates on. ``weights`` [f] are those of the
    attackers' own rows, ``total`` is that of the whole cohort, ``rate`` what the server multiplies
    the aggregate by.
    """

    plan: RoundPlan
    before: Vector
    last: Vector | None = None
    benign: Rows | None = None
    path: Path | None = None
    weights: Vector | None = None
    total: float | None = None
    rate: float = 1.0

    def shares(self, f: int) -> Vector:
        """By how much each of the f own rows moves the model under a weighted mean; equal weights
        where none are known.

        >>> plan = RoundPlan(0, (1, 2, 3, 4), d=1, l2=1.0)
        >>> RoundKnowledge(plan, torch.zeros(1), rate=2.0).shares(1)
        tensor([0.5000])
        """
        weights = torch.ones(f) if self.weights is None else self.weights
        total = (
            float(max(self.plan.n, f)) if self.total is None or self.weights is None else self.total
        )
        return weights * (self.rate / total)

    def honest(self, attack: str) -> Rows:
        """The honest updates.

        Raises:
            ConfigError: the scenario withholds them, or there are none.
        """
        if self.benign is None:
            raise ConfigError(
                f"{attack} needs to see the honest updates of the round, and there are none that it"
                " may see."
            )
        return self.benign


@runtime_checkable
class DataPoison(Protocol):
    """An attacker that changes its clients' data before they train."""

    def poison_data(self, dataset: Dataset, rng: torch.Generator) -> Dataset:
        """The data that the client trains on instead."""
        ...


@runtime_checkable
class UpdatePoison(Protocol):
    """An attacker that replaces its clients' updates after training, together."""

    @property
    def knows(self) -> Knows:
        """What it needs to know."""
        ...

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """Rows to send, one for each of its own clients; the honest rows that went in stay as they
        were.
        """
        ...


@runtime_checkable
class RememberingPoison(Protocol[S]):
    """`UpdatePoison` of an attacker that remembers earlier rounds. Its memory is data that goes in
    and comes out.
    """

    @property
    def knows(self) -> Knows:
        """What it needs to know."""
        ...

    def init(self) -> S:
        """What it remembers before the first round."""
        ...

    def poison_and_remember(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, memory: S, rng: torch.Generator
    ) -> tuple[Float[Tensor, "f d"], S]:
        """Rows to send, one for each of its own clients, and the memory after them."""
        ...


@runtime_checkable
class Trains(Protocol):
    """A client half that can be put to work on a model."""

    def on(self, model: FlatModel, loss: Loss) -> LocalTraining:
        """Local training of this model."""
        ...


@runtime_checkable
class TrainingPoison(Protocol):
    """An attacker that trains its own way: its own rates, epochs, batches and loss (Bagdasaryan et
    al. 2020, section IV-A).
    """

    def poison_training(self, knowledge: RoundKnowledge) -> Trains:
        """What its clients do with the broadcast model instead; ``knowledge`` holds what is known
        before training.
        """
        ...


@runtime_checkable
class BoundPoison(Protocol):
    """An attacker that hands its own party something else than its bounded update: it skips the
    clip, or lies about its weight.
    """

    def poison_bounded(self, honest: Bounded, unbounded: Vector) -> Bounded:
        """What its party sends in place of the honest, bounded update; ``unbounded`` [d] is the
        update before the bound.
        """
        ...


@runtime_checkable
class Divided(Protocol):
    """An attack whose clients do different parts of it, as with local triggers that make up a
    global one.
    """

    def part(self, position: int, of: int) -> Any:
        """The attack of the client at this position among its ``of`` clients."""
        ...


@runtime_checkable
class Measured(Protocol):
    """An attack whose success is a number of a model: a backdoor's accuracy, how often source
    becomes target.
    """

    def measure(self, module: nn.Module, test: Dataset) -> Mapping[str, float]:
        """Success by name on what ``test`` yields; the module's parameters and mode stay as they
        were.
        """
        ...


@runtime_checkable
class PartyPoison(Protocol):
    """An attacker that runs its own code in a protocol: it skips the clip, withholds, equivocates,
    replays.
    """

    def poison_party(self, honest: Party, plan: RoundPlan, client: ClientId) -> Party:
        """The party that takes the honest one's place."""
        ...


@runtime_checkable
class BroadcastPoison(Protocol):
    """The active server: it sends a client another model than the one it should."""

    def poison_broadcast(
        self, broadcast: Broadcast, client: ClientId, rng: torch.Generator
    ) -> Broadcast:
        """What that client is sent."""
        ...
