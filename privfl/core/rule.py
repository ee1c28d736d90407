"""What decides: rules that make one vector of what was opened, and the seats of defences around
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch

from privfl.core.opened import Rows
from privfl.core.protocol import RowBound
from privfl.core.types import NeighbourRelation, Vector
from privfl.core.update import RoundPlan, Update

O_in = TypeVar("O_in", contravariant=True)
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule with memory, a root gradient or a validation vote may use: the plan, the
    parameters [d] before the round, chance.
    """

    plan: RoundPlan
    parameters: Vector
    rng: torch.Generator


@runtime_checkable
class Rule(Protocol[O_in]):
    """An aggregator without memory."""

    def __call__(self, opened: O_in) -> Vector:
        """One vector [d] of what was opened; what was opened stays as it was."""
        ...

    def sensitivity(self, bound: RowBound, n: int, relation: NeighbourRelation) -> float:
        """How far, in L2, one client can move the result; inf where that is not proved."""
        ...


@runtime_checkable
class RuleWithMemory(Protocol[O_in, S]):
    """An aggregator that remembers earlier rounds, draws chance, or looks at the model. Its state
    is data that goes in and comes out.
    """

    def init(self) -> S:
        """The state before the first round."""
        ...

    def step(self, opened: O_in, state: S, context: Context) -> tuple[Vector, S]:
        """One vector [d], and the state after it. The state that went in stays as it was."""
        ...

    def sensitivity(self, bound: RowBound, n: int, relation: NeighbourRelation) -> float:
        """How far, in L2, one client can move the result of one round; inf where that is not
        proved.
        """
        ...


@runtime_checkable
class InformedServer(Protocol):
    """A server's member whose rule runs inside its channel's protocol and needs the model: for a
    root update, or its own chance.
    """

    def inform(self, context: Context) -> None:
        """What the server knows before a round; called once a round, before its party is made."""
        ...


@runtime_checkable
class ClientSeat(Protocol[S]):
    """A defence at the client, on the update before it is bounded."""

    def init_client(self) -> S:
        """A client's state before its first round."""
        ...

    def at_client(self, update: Update, state: S, context: Context) -> tuple[Update, S]:
        """The update that leaves training, and the client's state after it."""
        ...


@runtime_checkable
class BeforeSeat(Protocol[S]):
    """A defence between the channel and the rule: it drops, scales or mixes rows."""

    def init(self) -> S:
        """The state before the first round."""
        ...

    def before(self, rows: Rows, state: S, context: Context) -> tuple[Rows, S]:
        """The rows that the rule sees, and the state after them."""
        ...


@runtime_checkable
class AfterSeat(Protocol[S]):
    """A defence on the aggregate: it clips, smooths, prunes or refuses it."""

    def init(self) -> S:
        """The state before the first round."""
        ...

    def after(self, vector: Vector, state: S, context: Context) -> tuple[Vector, S]:
        """The change [d] that the server applies, and the state after it."""
        ...
