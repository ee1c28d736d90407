"""Channels and all that one may do beside opening rows or a sum: declared data, in one home.

A record and no runtime protocols: `isinstance` would compare names, and any channel with a field
called ``rule`` would count as a host of rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch

from privfl.core.opened import Rows
from privfl.core.privacy import DpEvent, Stable
from privfl.core.rule import Rule, RuleWithMemory
from privfl.core.types import ClientId, PartyId, Vector
from privfl.core.update import RoundPlan

Opens: TypeAlias = Literal["rows", "total"]
"""What a channel opens to its server: every row (a client's, or a group's), or a weighted sum."""


@runtime_checkable
class Encodes(Protocol):
    """What rounding does to a row (attackers need it) and to its bound (sensitivities need it)."""

    def arrives(self, row: Vector, plan: RoundPlan) -> Vector:
        """The row [d] that the server's side computes with when a client enters this one."""
        ...

    def stage(self, d: int) -> Stable:
        """The encoding of vectors of this length as a stage between a client's row and the rule."""
        ...


@runtime_checkable
class Grouping(Protocol):
    """How rows become fewer rows than contributions, each the mean of a group of clients."""

    def rows(self, contributions: int) -> int:
        """How many rows so many contributions make."""
        ...

    def max_byzantine(self, n: int) -> int:
        """How many Byzantine clients among n leave a majority of good rows, wherever they sit."""
        ...

    def means(self, rows: Rows, rng: torch.Generator) -> Rows:
        """The group means that a coin of the caller's draws: the round's own is the server's."""
        ...

    def stage(self) -> Stable:
        """The grouping as a stage between clients' rows and the rule."""
        ...


@runtime_checkable
class CarriesNoise(Protocol):
    """Noise shares that clients add to their integers, so that nobody sees a sum without noise."""

    def noise_event(self, plan: RoundPlan, survivors: int) -> DpEvent | None:
        """What accounts for the noise in a sum of so many survivors; None where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class ChannelKind:
    """What holds of a channel however it is set: the compatibility table is made from it.

    ``named``: rows carry client ids. ``runs``: the rules that its own servers can run on data that
    nobody reads. ``takes_noise``: whether clients' integers can carry shares of noise.
    """

    opens: Opens
    named: bool = True
    runs: tuple[type, ...] = ()
    takes_noise: bool = False


@dataclass(frozen=True, slots=True)
class Able:
    """What one channel, as it is set, may also do. None, empty or False where it does not.

    ``hosts`` is the rule that its servers run inside the protocol; ``informed`` whether the
    server's member is told the model before a round (`InformedServer`). ``sums`` is how many sums
    one key opens (None: no limit). ``told`` are the parties that learn what an outcome discloses,
    ``key_holders`` who can decrypt in a cohort. ``approximate``: sums are right up to noise of the
    scheme's own. ``warnings`` are sentences that a report must show.
    """

    encodes: Encodes | None = None
    groups: Grouping | None = None
    hosts: Rule[Any] | RuleWithMemory[Any, Any] | None = None
    noise: CarriesNoise | None = None
    sums: int | None = None
    told: tuple[PartyId, ...] = ("server",)
    key_holders: Callable[[Collection[ClientId]], Collection[PartyId]] | None = None
    approximate: bool = False
    informed: bool = False
    warnings: tuple[str, ...] = ()
