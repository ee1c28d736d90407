"""Clients, servers and dealer between rounds."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from privfl.core import (
    BadUpdate,
    Bounded,
    ClientId,
    ConfigError,
    Context,
    HelperMember,
    KeepsSecrets,
    KnownKeys,
    Opener,
    Party,
    PartyId,
    PartyKeys,
    RoundPlan,
    Silent,
    Total,
    Vector,
    no_helper,
    refuse_others_keys,
)
from privfl.crypto.abort import StageAbort
from privfl.crypto.cohort import Entered, boxes_of
from privfl.crypto.mpc.authentication import Ending
from privfl.hybrid.two_server.ahead.dealing import Reached
from privfl.hybrid.two_server.ahead.files import DealtAhead, FirstPart
from privfl.hybrid.two_server.ahead.second_server import AheadSecondServer
from privfl.hybrid.two_server.ahead.server import AheadFirstServer
from privfl.hybrid.two_server.client import enter
from privfl.hybrid.two_server.dealer import Dealer
from privfl.hybrid.two_server.malicious.client import enter as enter_fixed
from privfl.hybrid.two_server.malicious.dealer import FixedDealer
from privfl.hybrid.two_server.malicious.second_server import FixedSecondServer
from privfl.hybrid.two_server.malicious.server import FixedFirstServer
from privfl.hybrid.two_server.parameters import Direction, TwoServerParameters
from privfl.hybrid.two_server.recipe import Recipe
from privfl.hybrid.two_server.second_server import SecondServer
from privfl.hybrid.two_server.server import FirstServer


@runtime_checkable
class TwoServerSetting(Protocol):
    """What members know of their channel."""

    @property
    def recipe(self) -> Recipe:
        """The rule as numbers."""
        ...

    def round(self, plan: RoundPlan) -> TwoServerParameters:
        """A round's public parameters."""
        ...

    def reference_of(self, context: Context, before: Vector | None) -> Vector | None:
        """What rows are compared with in the coming round, from the model now and a round ago; None
        where it is not known yet.
        """
        ...

    @property
    def dealt_ahead(self) -> DealtAhead | None:
        """Where the dealer left what it dealt ahead; None where it is online."""
        ...

    def direction_of(self, now: TwoServerParameters, reference: Vector) -> Direction | None:
        """The reference as integers; None where it is zero.

        Raises:
            BadUpdate: it is of no use.
        """
        ...


HELPERS: tuple[PartyId, ...] = ("server/1", "dealer")


def helpers_of(channel: TwoServerSetting) -> tuple[PartyId, ...]:
    """The second server, and the dealer where it is online."""
    return HELPERS if channel.dealt_ahead is None else HELPERS[:1]


def helper_of(
    channel: TwoServerSetting, who: PartyId, identity: PartyKeys, directory: KnownKeys
) -> HelperMember:
    """The second server or the dealer.

    Raises:
        ConfigError: no such helper, or another party's keys.
    """
    helpers = helpers_of(channel)
    if who not in helpers:
        raise no_helper("two_server", who, helpers)
    refuse_others_keys(who, identity)
    if who == "server/1":
        return SecondMember(channel, identity, directory)
    return DealerMember(channel, identity)


@dataclass
class TwoServerClient:
    """A client between rounds."""

    channel: TwoServerSetting
    who: ClientId
    directory: KnownKeys

    def set_up(self) -> Party:
        """Nothing to say: the servers' keys are in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan, update: Bounded) -> Party:
        """The party of one round.

        Raises:
            ConfigError: as the channel, or a client that is not in the cohort, or servers whose
                keys nobody knows.
        """
        if self.who not in plan.cohort:
            raise ConfigError(f"round {plan.number}: client {self.who} is not in the cohort.")
        now, second = self.channel.round(plan), boxes_of(self.directory, "server/1")
        if now.malicious:
            return enter_fixed(now, self.who, second, boxes_of(self.directory, "dealer"), update)
        return enter(now, self.who, second, update)


@dataclass(repr=False)
class FirstMember(KeepsSecrets):
    """The first server between rounds: the direction of the coming round, the model before, and the
    randomness of past rounds.

    What it remembers of a round is what a curious server would: enough to compute the result again
    from its mail.
    """

    channel: TwoServerSetting
    directory: KnownKeys
    reference: Vector | None = None
    before: Vector | None = None
    kept: dict[bytes, FirstServer | FixedFirstServer] = field(default_factory=dict)
    ending: Ending = field(default_factory=Ending)

    def set_up(self) -> Party:
        """Nothing to say."""
        return Silent()

    def inform(self, context: Context) -> None:
        """Compute the direction that rows are compared with, or note how the model moved."""
        self.reference = self.channel.reference_of(context, self.before)
        if self.channel.recipe.traits.directed:
            self.before = context.parameters.clone()

    def enter(self, plan: RoundPlan) -> Opener[Total]:
        """The party of one round.

        Raises:
            ConfigError: as the channel, or a rule that needs the model and was not told it.
        """
        channel, now = self.channel, self.channel.round(plan)
        recipe = channel.recipe
        direction: Direction | None = None
        refused: str | None = None
        if recipe.traits.directed and self.before is None:
            raise ConfigError(
                f"round {plan.number}: {recipe.rule.kind} needs the model for its reference: call"
                " inform before the round."
            )
        if self.reference is not None:
            if len(self.reference) != plan.d:
                raise ConfigError(
                    f"round {plan.number}: a reference of {len(self.reference)} values where rows"
                    f" have {plan.d}."
                )
            try:
                direction = channel.direction_of(now, self.reference)
            except BadUpdate as bad:
                refused = f"{recipe.rule.kind}: {bad}"
        half, seed, key = (secrets.token_bytes(32) for _ in range(3))
        unknown, second = (
            recipe.traits.directed and self.reference is None,
            boxes_of(self.directory, "server/1"),
        )
        party: FirstServer | FixedFirstServer
        if channel.dealt_ahead is not None:
            party = AheadFirstServer(
                *(now, recipe, second, (), half, b"", key, direction, unknown, refused),
                file=FirstPart(channel.dealt_ahead, now, recipe),
            )
            self.kept[now.tag] = party.anew()
            return party
        boxes = (second, boxes_of(self.directory, "dealer"))
        if now.malicious:
            party = FixedFirstServer(
                now, recipe, *boxes, half, seed, key, direction, unknown, refused, self.ending
            )
        else:
            party = FirstServer(now, recipe, *boxes, half, seed, key, direction, unknown, refused)
        self.kept[now.tag] = party.anew()
        return party


@dataclass(repr=False)
class SecondMember(KeepsSecrets):
    """The second server between rounds: the key to which clients seal their seeds. It enters a
    round once.
    """

    channel: TwoServerSetting
    identity: PartyKeys
    directory: KnownKeys
    rounds: dict[bytes, TwoServerParameters] = field(default_factory=dict)
    entered: Entered = field(default_factory=Entered)
    ending: Ending = field(default_factory=Ending)
    reached: Reached = field(default_factory=Reached)

    def set_up(self) -> Party:
        """Nothing to say: its public key is in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Party:
        """The party of one round.

        Raises:
            ConfigError: as the channel.
            StageAbort: the same part of a round again.
        """
        recipe, now = self.channel.recipe, self.channel.round(plan)
        if why := self.entered.why_not(plan):
            raise StageAbort("enter", why, "server")
        fresh = all(known.plan.number == plan.number for known in self.rounds.values())
        self.rounds[now.tag] = now
        if self.channel.dealt_ahead is not None:
            part = self.channel.dealt_ahead.part("server/1", now, recipe, self.reached.next)
            boxes = len(boxes_of(self.directory, "server/1"))
            return AheadSecondServer(
                now, recipe, self.identity, (), part=part, boxes=boxes, reached=self.reached
            )
        dealer = boxes_of(self.directory, "dealer")
        if now.malicious:
            return FixedSecondServer(now, recipe, self.identity, dealer, self.ending, fresh)
        return SecondServer(now, recipe, self.identity, dealer)


@dataclass(repr=False)
class DealerMember(KeepsSecrets):
    """The dealer between rounds: the key to which the servers seal their seeds. It enters a round
    once: what it deals twice under one server's seed tells that server's masks.
    """

    channel: TwoServerSetting
    identity: PartyKeys
    rounds: dict[bytes, TwoServerParameters] = field(default_factory=dict)
    entered: Entered = field(default_factory=Entered)

    def set_up(self) -> Party:
        """Nothing to say: its public key is in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Party:
        """The party of one round.

        Raises:
            ConfigError: as the channel.
            StageAbort: the same part of a round again.
        """
        now = self.channel.round(plan)
        if why := self.entered.why_not(plan):
            raise StageAbort("enter", why)
        self.rounds[now.tag] = now
        if now.malicious:
            return FixedDealer(now, self.channel.recipe, self.identity)
        return Dealer(now, self.channel.recipe, self.identity)
