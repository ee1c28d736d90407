"""The seats of attackers that take part: each declares what it knows and where it acts.

Declarations have defaults for attacks that name these protocols as their bases. One that names
several says all of its ``seats`` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import (
    ClassVar,
    Literal,
    Protocol,
    TypeAlias,
    TypeVar,
    runtime_checkable,
)

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privfl.core.dataset import Dataset
from privfl.core.errors import ConfigError
from privfl.core.flat import FlatModel
from privfl.core.local import ClientState, LocalTraining, Loss
from privfl.core.opened import Rows
from privfl.core.protocol import Party
from privfl.core.types import ClientId, Vector
from privfl.core.update import Bounded, Broadcast, RoundPlan

S = TypeVar("S")

Knows: TypeAlias = Literal["nothing", "own", "benign", "rule"]
"""What an attack needs: nothing, its own clients' honest updates, all benign updates, or also the
server's rule.
"""
AttackSeat: TypeAlias = Literal[
    "data", "loss", "training", "update", "wire", "party", "broadcast", "answer"
]
"""Where an attack acts: on its clients' data, their loss, their training, their updates, what they
hand their own parties, their parties, on the model that they are sent, or on what they answer where
a defence asks them about models.
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
    the aggregate by. ``loss`` is the mean loss of a model [d] on the attackers' own data.
    """

    plan: RoundPlan
    before: Vector
    last: Vector | None = None
    benign: Rows | None = None
    path: Path | None = None
    weights: Vector | None = None
    total: float | None = None
    rate: float = 1.0
    loss: Callable[[Vector], float] | None = None

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
class Attack(Protocol):
    """What every attack declares on its class.

    ``seats``: where it acts; none for one that only looks. ``remembers``: whether its memory goes
    in and out (`RememberingPoison`). ``measured``: whether it measures its own success
    (`Measured`). ``by_client``: whether its success hangs on what a client of it holds or has
    learnt (`MeasuredByClient`). ``divided``: whether its clients do different parts of it
    (`Divided`). ``counts``: whether it works for some numbers of attackers only (`CountsItself`).
    """

    __slots__ = ()
    seats: ClassVar[frozenset[AttackSeat]] = frozenset()
    remembers: ClassVar[bool] = False
    measured: ClassVar[bool] = False
    by_client: ClassVar[bool] = False
    divided: ClassVar[bool] = False
    counts: ClassVar[bool] = False

    @property
    def knows(self) -> Knows:
        """What it needs to know, as it is set."""
        return "nothing"


@runtime_checkable
class DataPoison(Attack, Protocol):
    """An attacker that changes its clients' data before they train."""

    __slots__ = ()
    seats: ClassVar[frozenset[AttackSeat]] = frozenset({"data"})

    def poison_data(self, dataset: Dataset, rng: torch.Generator) -> Dataset:
        """The data that the client trains on instead."""
        ...


@runtime_checkable
class UpdatePoison(Attack, Protocol):
    """An attacker that replaces its clients' updates after training, together."""

    __slots__ = ()
    seats: ClassVar[frozenset[AttackSeat]] = frozenset({"update"})

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """Rows to send, one for each of its own clients; the honest rows that went in stay as they
        were.
        """
        ...


@runtime_checkable
class RememberingPoison(Attack, Protocol[S]):
    """`UpdatePoison` of an attacker that remembers earlier rounds. Its memory is data that goes in
    and comes out.
    """

    __slots__ = ()
    seats: ClassVar[frozenset[AttackSeat]] = frozenset({"update"})
    remembers: ClassVar[bool] = True

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
class TrainingPoison(Attack, Protocol):
    """An attacker that trains its own way: its own rates, epochs, batches and loss (Bagdasaryan et
    al. 2020, section IV-A).
    """

    __slots__ = ()
    seats: ClassVar[frozenset[AttackSeat]] = frozenset({"training"})

    def poison_training(self, knowledge: RoundKnowledge) -> Trains:
        """What its clients do with the broadcast model instead; ``knowledge`` holds what is known
        before training.
        """
        ...


@runtime_checkable
class BoundPoison(Attack, Protocol):
    """An attacker that hands its own party something else than its bounded update: it skips the
    clip, or lies about its weight.
    """

    __slots__ = ()
    seats: ClassVar[frozenset[AttackSeat]] = frozenset({"wire"})

    def poison_bounded(self, honest: Bounded, unbounded: Vector) -> Bounded:
        """What its party sends in place of the honest, bounded update; ``unbounded`` [d] is the
        update before the bound.
        """
        ...


@runtime_checkable
class Divided(Attack, Protocol):
    """An attack whose clients do different parts of it, as with local triggers that make up a
    global one.
    """

    __slots__ = ()
    divided: ClassVar[bool] = True

    def part(self, position: int, of: int) -> Attack:
        """The attack of the client at this position among its ``of`` clients."""
        ...


@runtime_checkable
class Measured(Attack, Protocol):
    """An attack whose success is a number of a model: a backdoor's accuracy, how often source
    becomes target.
    """

    __slots__ = ()
    measured: ClassVar[bool] = True

    def measure(self, module: nn.Module, test: Dataset) -> Mapping[str, float]:
        """Success by name on what ``test`` yields; the module's parameters and mode stay as they
        were.
        """
        ...


@runtime_checkable
class MeasuredByClient(Attack, Protocol):
    """An attack whose success is a number of a model and of what one of its clients holds or has
    learnt: a trigger of its own, a sample that is to be misread.
    """

    __slots__ = ()
    by_client: ClassVar[bool] = True

    def measure_of(
        self, own: Dataset, state: ClientState, module: nn.Module, test: Dataset
    ) -> Mapping[str, float]:
        """Success by name of the client with these data of its own and this memory; the module's
        parameters and mode stay as they were.
        """
        ...


@runtime_checkable
class CountsItself(Attack, Protocol):
    """An attack that works for some numbers of attackers only."""

    __slots__ = ()
    counts: ClassVar[bool] = True

    def among(self, n: int, f: int) -> None:
        """Refuse f attackers among n.

        Raises:
            ConfigError: it cannot work with these.
        """
        ...


@runtime_checkable
class PartyPoison(Attack, Protocol):
    """An attacker that runs its own code in a protocol: it skips the clip, withholds, equivocates,
    replays.
    """

    __slots__ = ()
    seats: ClassVar[frozenset[AttackSeat]] = frozenset({"party"})

    def poison_party(self, honest: Party, plan: RoundPlan, client: ClientId) -> Party:
        """The party that takes the honest one's place."""
        ...


@runtime_checkable
class BroadcastPoison(Attack, Protocol):
    """The active server: it sends a client another model than the one it should."""

    __slots__ = ()
    seats: ClassVar[frozenset[AttackSeat]] = frozenset({"broadcast"})

    def poison_broadcast(
        self, broadcast: Broadcast, client: ClientId, rng: torch.Generator
    ) -> Broadcast:
        """What that client is sent."""
        ...


@runtime_checkable
class AnswerPoison(Attack, Protocol):
    """An attacker among the clients whom a defence asks how a model does on their data: it answers
    what serves it.
    """

    __slots__ = ()
    seats: ClassVar[frozenset[AttackSeat]] = frozenset({"answer"})

    def poison_errors(
        self, honest: Float[Tensor, "models classes"]
    ) -> Float[Tensor, "models classes"]:
        """The error rates that its client reports, of the accepted models and the new one, which
        comes last, in place of those on its data.
        """
        ...
