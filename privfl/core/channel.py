"""Channels, and all that one may do beside opening rows or a sum: declared data, in one home.

A record and no runtime protocols: `isinstance` would compare names, and any channel with a field
called ``rule`` would count as a host of rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import torch

from privfl.core.guarantee import Guarantee, Liars
from privfl.core.identity import KnownKeys, PartyKeys
from privfl.core.opened import Rows, Total
from privfl.core.privacy import DpEvent, Stable
from privfl.core.protocol import (
    ClientMember,
    HelperMember,
    Member,
    ServerMember,
)
from privfl.core.rule import Rule, RuleWithMemory
from privfl.core.types import ClientId, PartyId, Received, Vector
from privfl.core.update import RoundPlan

O_co = TypeVar("O_co", covariant=True)

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

    def noise_event(
        self, plan: RoundPlan, survivors: int | None = None, colluders: int = 0
    ) -> DpEvent | None:
        """What accounts for the noise in a sum of so many survivors, where one contribution becomes
        zero; None where there is no noise. ``survivors`` None: the fewest that can be opened.
        So many ``colluders`` among them know their own shares, and subtract them.

        Raises:
            ConfigError: nobody but colluders would be left.
        """
        ...


@dataclass(frozen=True, slots=True)
class ChannelKind:
    """What holds of a channel however it is set: the compatibility table is made from it.

    ``named``: rows carry client ids. ``groups``: rows are means of groups of clients, so fewer than
    contributions. ``runs``: the rules that its own servers can run on data that nobody reads; the
    constructor takes one as ``rule_field``. ``takes_noise``: whether clients' integers can carry
    shares of noise; the constructor takes it as ``noise_field``, and where it comes from as
    ``source_field``.

    >>> ChannelKind("total").runs
    ()
    """

    opens: Opens
    named: bool = True
    groups: bool = False
    runs: tuple[type, ...] = ()
    takes_noise: bool = False
    rule_field: str = "rule"
    noise_field: str = "noise"
    source_field: str = "noise_source"


@runtime_checkable
class DealsAhead(Protocol):
    """A channel whose dealer can deal before the rounds, and then need not be online."""

    def deal(self, plan: RoundPlan, folder: Path, count: int, dealer: PartyKeys) -> None:
        """Make what ``count`` rounds like this one take, as files for each party in ``folder``.

        Raises:
            ConfigError: it cannot be dealt ahead, or files are there already.
            CannotWrite: the operating system refuses.
        """
        ...


def anybody(n: int) -> int:
    """The fewest contributions that a channel without a quorum opens: one."""
    return 1


@dataclass(frozen=True, slots=True)
class Able:
    """What one channel, as it is set, may also do. None, empty or False where it does not.

    ``encodes``: what encoding does to a row; a channel that encodes takes its scale from the bound,
    so it needs a finite one. ``fewest``: of a cohort of n, the fewest contributions that it opens;
    more than n, or a ConfigError that says why, where it opens none of such a cohort. It hangs on n
    alone, because everybody sees whether a round opens. ``groups``: how rows become fewer rows.
    ``hosts`` is the rule that its servers run inside the protocol; ``informed`` whether the
    server's member is told the model before a round (`InformedServer`). ``noise`` accounts for the
    noise in what it opens, and ``seeded`` says that a seed repeats that noise. ``sums`` is how many
    sums one key opens (None: no limit). ``told`` are the parties that learn what an outcome
    discloses, ``key_holders`` who can decrypt in a cohort.
    ``approximate``: sums carry noise of the scheme's own, with this standard deviation in one value
    of the weighted sum of a plan's whole cohort. ``rounds_off``: how far a value of the update of a
    client of this weight can be rounded off. ``keyed``: its members use their own keys and the
    directory, whether mail is signed or not. ``joins``: a client is set up later without a new key
    set-up of the others, who keep their identities and what guards them from replays. ``carries``:
    a round hands its cohort keys for the next, in which the same cohort is expected. ``deals``
    makes what a dealer can make before rounds. ``streams``: no letter of a client is a view of its
    row, but for those that the server folds (`core.streaming.Folds`), and clients' parties ask for
    their updates in the cohort's order; a round in one process then need not keep rows.
    ``warnings`` are sentences that a report must show.

    >>> Able().told
    ('server',)
    """

    encodes: Encodes | None = None
    fewest: Callable[[int], int] = anybody
    groups: Grouping | None = None
    hosts: Rule[Any] | RuleWithMemory[Any, Any] | None = None
    noise: CarriesNoise | None = None
    seeded: bool = False
    sums: int | None = None
    told: tuple[PartyId, ...] = ("server",)
    key_holders: Callable[[Collection[ClientId]], Collection[PartyId]] | None = None
    approximate: Callable[[RoundPlan], float] | None = None
    rounds_off: Callable[[RoundPlan, float], float] | None = None
    informed: bool = False
    keyed: bool = False
    joins: bool = False
    carries: bool = False
    deals: DealsAhead | None = None
    streams: bool = False
    warnings: tuple[str, ...] = ()


@runtime_checkable
class Channel(Protocol[O_co]):
    """How bounded updates travel. A description, made by the config; secrets live in members. O:
    what it opens to.

    ``kind`` and ``able`` declare what it is and may do: nothing is found out from the names of its
    fields and methods. It makes ONE party at a time, from that party's own keys and the directory
    of everybody's public keys: a node on a network makes itself, a simulator everybody. A channel
    that needs no keys ignores them. ``guarantee`` is the record from
    which every sentence about it is made.
    """

    kind: ClassVar[ChannelKind]

    @property
    def able(self) -> Able:
        """What it may also do, as it is set."""
        ...

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who may collude, who may lie and what the lie can do, what leaks, what is assumed, as it
        is set.
        """
        ...

    @property
    def helpers(self) -> tuple[PartyId, ...]:
        """The parties beside clients and server: second servers, decryptors, dealers."""
        ...

    def client(self, who: ClientId, identity: PartyKeys, directory: KnownKeys) -> ClientMember:
        """A member for a client.

        Raises:
            ConfigError: these are another party's keys.
        """
        ...

    def server(self, identity: PartyKeys, directory: KnownKeys) -> ServerMember[O_co]:
        """A member for the server, whose parties learn the outcome.

        Raises:
            ConfigError: as `client`.
        """
        ...

    def helper(self, who: PartyId, identity: PartyKeys, directory: KnownKeys) -> HelperMember:
        """A member for a helper.

        Raises:
            ConfigError: as `client`, or the channel has no helper of that name.
        """
        ...

    def describe(self) -> str:
        """Who can read what, and what is not stopped, in sentences for people."""
        ...

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """What a coalition can compute, really computed, from its own mail and its own members and
        nothing else. Views rest on it.
        """
        ...
