"""What a rule on shares says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from privfl.core import RoundPlan
from privfl.crypto.mpc import Demand
from privfl.hybrid.two_server.fixed_stock import RuleStock
from privfl.hybrid.two_server.machine import Step
from privfl.hybrid.two_server.parameters import Needs, TwoServerParameters

Reveal = Literal["scores", "selection", "aggregate"]


@dataclass(frozen=True, slots=True)
class Traits:
    """What the parties know of a rule beside its steps.

    ``gram``: all rows are multiplied with all. ``directed``: rows are compared with a direction.
    ``late``: which is not known in a session's first round.
    ``normalised``: clients bring their rows to one common length, so that weights need no division.
    ``weighted``: each row carries its weight. ``hidden``: the weights of the sum are shared, so
    that no server knows them. ``proved``: hidden weights are proved to be 0 or 1. ``capped``: every
    sum is of whole rows, so many at least: rows that count by any other weight can be told apart in
    the sum. ``exact``: of so many rows (0: of any number).
    """

    gram: bool = False
    directed: bool = False
    late: bool = False
    normalised: bool = False
    weighted: bool = False
    hidden: bool = False
    proved: bool = False
    capped: bool = False
    exact: int = 0


@runtime_checkable
class SharedRule(Protocol):
    """One rule under one disclosure mode, whole: what it needs of the ring and of the dealer, what
    it leaks, and the servers' steps.
    """

    @property
    def kind(self) -> str:
        """Its name, as in a config."""
        ...

    @property
    def reveal(self) -> Reveal:
        """What the servers may open on the way."""
        ...

    @property
    def traits(self) -> Traits:
        """What the parties know of it beside its steps."""
        ...

    @property
    def stock(self) -> RuleStock:
        """What it takes of the dealer beyond its rows where it is enforced."""
        ...

    @property
    def leaks(self) -> str:
        """What the servers learn beside the result and who was refused."""
        ...

    def needs(self, plan: RoundPlan) -> Needs:
        """What it asks of the ring.

        Raises:
            ConfigError: more rows than it can take.
        """
        ...

    def preprocessing(self, now: TwoServerParameters, n: int) -> Demand:
        """What n rows can take of the dealer's randomness at most; dealt bits for rows of signs
        come on top.
        """
        ...

    def program(
        self, now: TwoServerParameters, least: int, close: tuple[Step, ...]
    ) -> tuple[Step, ...]:
        """The servers' steps. ``least``: the fewest rows that a sum may be of; ``close``: the steps
        from weights that both servers know to the opened sum.
        """
        ...
