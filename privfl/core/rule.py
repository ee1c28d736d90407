"""What decides: rules that make one vector of what was opened, and the seats of defences around
them.

What a rule or a seat reads, needs, fills and remembers is declared on its class. Declarations have
defaults for classes that name these protocols as their bases; only ``reads`` has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import (
    Any,
    ClassVar,
    Literal,
    Protocol,
    TypeAlias,
    TypeGuard,
    TypeVar,
    runtime_checkable,
)

import torch

from privfl.core.opened import Rows
from privfl.core.oracle import Needs
from privfl.core.privacy import Moves, Neighbours, Released
from privfl.core.types import Vector
from privfl.core.update import RoundPlan, Update

O_in = TypeVar("O_in", contravariant=True)
S = TypeVar("S")

Reads: TypeAlias = Literal["rows", "total", "either"]
"""What a rule reads: every row, a weighted sum, or whichever of the two is opened."""
DefenceSeat: TypeAlias = Literal["client", "before", "rule", "after"]
"""Where a defence acts: at the client, before the rule, as the rule, after it."""
Memory: TypeAlias = Literal["none", "released", "private"]
"""What a state that lasts between rounds is made of: nothing, released vectors alone
(`Context.released`), or something of clients' rows. What is private speaks in later rounds, those
in which its client is not drawn included, and no sensitivity counts it: noise beside it is refused.
"""


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule with memory, a root gradient or a validation vote may use: the plan, the
    parameters [d] before the round, chance, and what earlier rounds released, by part. Where the
    plan is of a part of another length, the server's own vector of it takes the parameters' place.

    ``released`` is all that may be remembered of clients' data at no further cost: it is what was
    paid for. (A rule's own state is computed before any noise.)
    """

    plan: RoundPlan
    parameters: Vector
    rng: torch.Generator
    released: Mapping[str, Released] = field(default_factory=dict)

    @property
    def last(self) -> Vector | None:
        """What was released last [d] of the part that the plan names; None before the first."""
        found = self.released.get(self.plan.part)
        return None if found is None else found.vector


@runtime_checkable
class Defence(Protocol):
    """What every defence declares on its class.

    ``seats``: where it acts. ``needs``: the constructor's arguments that a run fills. ``judges``:
    whether it tells what it did, by the methods of `aggregators.verdict`.
    """

    __slots__ = ()
    seats: ClassVar[frozenset[DefenceSeat]]
    needs: ClassVar[Needs] = {}
    judges: ClassVar[bool] = False


@runtime_checkable
class Decides(Defence, Protocol):
    """What every rule declares beside: what it reads, and whether it needs to know whose row is
    whose.
    """

    __slots__ = ()
    seats: ClassVar[frozenset[DefenceSeat]] = frozenset({"rule"})
    reads: ClassVar[Reads]
    needs_ids: ClassVar[bool] = False

    @property
    def public_denominator(self) -> float | None:
        """The fixed public number that it divides a weighted sum by; None where it does not. Only
        then may neighbours differ in who is there.
        """
        return None


@runtime_checkable
class Rule(Decides, Protocol[O_in]):
    """An aggregator without memory."""

    __slots__ = ()
    remembers: ClassVar[Literal[False]] = False

    def __call__(self, opened: O_in) -> Vector:
        """One vector [d] of what was opened; what was opened stays as it was."""
        ...

    def sensitivity(self, moves: Moves, neighbours: Neighbours) -> float:
        """How far, in L2, the result moves where one neighbour moves the rows so far; inf where
        that is not proved.
        """
        ...


@runtime_checkable
class RuleWithMemory(Decides, Protocol[O_in, S]):
    """An aggregator that remembers earlier rounds, draws chance, or looks at the model. Its state
    is data that goes in and comes out; ``memory`` says what it is made of.
    """

    __slots__ = ()
    remembers: ClassVar[Literal[True]] = True
    memory: ClassVar[Memory] = "private"

    def init(self) -> S:
        """The state before the first round."""
        ...

    def step(self, opened: O_in, state: S, context: Context) -> tuple[Vector, S]:
        """One vector [d], and the state after it. The state that went in stays as it was."""
        ...

    def sensitivity(self, moves: Moves, neighbours: Neighbours) -> float:
        """How far, in L2, the result of one round moves where one neighbour moves the rows so far
        and the state is the same; inf where that is not proved. It counts only if the state is made
        of nothing private.
        """
        ...


@runtime_checkable
class InformedServer(Protocol):
    """The server's member of a channel that declares itself informed (`Able.informed`): its rule
    runs inside the protocol and needs the model, for a root update or its own chance.
    """

    def inform(self, context: Context) -> None:
        """What the server knows before a round; called once a round, before its party is made."""
        ...


@runtime_checkable
class ClientSeat(Defence, Protocol[S]):
    """A defence at the client, on the update before it is bounded."""

    __slots__ = ()

    def init_client(self) -> S:
        """A client's state before its first round."""
        ...

    def at_client(self, update: Update, state: S, context: Context) -> tuple[Update, S]:
        """The update that leaves training, and the client's state after it."""
        ...


@runtime_checkable
class BeforeSeat(Defence, Protocol[S]):
    """A defence between the channel and the rule: it drops, scales or mixes rows. ``keeps_ids``:
    whether the rows that come out still belong to one client each; ``memory``: what its state is
    made of. Under noise it must say how far one neighbour moves what leaves it (`Stable`).
    """

    __slots__ = ()
    keeps_ids: ClassVar[bool] = False
    memory: ClassVar[Memory] = "private"

    def passes(self, n: int) -> int:
        """How many rows it hands on of n, at most.

        Raises:
            TooManyByzantine: it cannot work on n rows.
        """
        ...

    def init(self) -> S:
        """The state before the first round."""
        ...

    def before(self, rows: Rows, state: S, context: Context) -> tuple[Rows, S]:
        """The rows that the rule sees, and the state after them."""
        ...


@runtime_checkable
class AfterSeat(Defence, Protocol[S]):
    """A defence on what was released: it clips, smooths, prunes or refuses it. It reads nothing
    from before the noise, so it costs no privacy.
    """

    __slots__ = ()

    def init(self) -> S:
        """The state before the first round."""
        ...

    def after(self, released: Released, state: S, context: Context) -> tuple[Vector, S]:
        """The change [d] that the server applies, and the state after it."""
        ...


def at_the_client(defence: Defence) -> TypeGuard[ClientSeat[Any]]:
    """Whether a defence fills the seat at the client."""
    return "client" in defence.seats


def before_the_rule(defence: Defence) -> TypeGuard[BeforeSeat[Any]]:
    """Whether a defence fills the seat between channel and rule."""
    return "before" in defence.seats


def after_the_rule(defence: Defence) -> TypeGuard[AfterSeat[Any]]:
    """Whether a defence fills the seat on the aggregate."""
    return "after" in defence.seats
