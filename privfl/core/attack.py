"""The seats of attackers that take part: each says what it knows and where it acts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core.dataset import Dataset
from privfl.core.opened import Rows
from privfl.core.protocol import Party
from privfl.core.rule import Rule
from privfl.core.types import ClientId, Vector
from privfl.core.update import Broadcast, RoundPlan

Knows: TypeAlias = Literal["nothing", "own", "benign", "rule"]
"""What an attack needs: nothing, its own clients' honest updates, all benign updates, or also the server's rule."""


@dataclass(frozen=True, slots=True)
class RoundKnowledge:
    """What colluding attackers know in a round. Fields that the scenario withholds are None.

    ``before`` is the broadcast model [d], ``last`` the last aggregate [d] (None in the first round); ``benign`` are the honest
    updates of this round's cohort; ``rule`` makes one vector of rows as the server's rule would.
    """

    plan: RoundPlan
    before: Vector
    last: Vector | None = None
    benign: Rows | None = None
    rule: Rule[Rows] | None = None


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

    def poison_updates(self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator) -> Float[Tensor, "f d"]:
        """Rows to send, one for each of its own clients; the honest rows that went in stay as they were."""
        ...


@runtime_checkable
class PartyPoison(Protocol):
    """An attacker that runs its own code in a protocol: it skips the clip, withholds, equivocates, replays."""

    def poison_party(self, honest: Party, plan: RoundPlan, client: ClientId) -> Party:
        """The party that takes the honest one's place."""
        ...


@runtime_checkable
class BroadcastPoison(Protocol):
    """The active server: it sends a client another model than the one it should."""

    def poison_broadcast(self, broadcast: Broadcast, client: ClientId, rng: torch.Generator) -> Broadcast:
        """What that client is sent."""
        ...
