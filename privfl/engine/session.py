"""A channel at work: the members of all parties, set up once, and one protocol run a round."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from privfl.core import (
    NO_FAULTS,
    Abort,
    Bounded,
    Carried,
    Channel,
    ClientId,
    ClientMember,
    ConfigError,
    Context,
    Driver,
    Faults,
    InformedServer,
    Member,
    Message,
    Opener,
    Outcome,
    Party,
    PartyId,
    Refusal,
    RoundPlan,
    ServerMember,
    Silent,
    client_party,
    drive,
    drive_all,
    drive_parts,
    give_back_pages,
)
from privfl.core.streaming import SumsRows
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.post import drive_signed, round_scene, set_up_scene
from privfl.crypto.primitives import Directory, Identity

O = TypeVar("O")
MailMode: TypeAlias = Literal["bare", "signed"]
"""Whether parties believe the labels on their mail, as they may in one process, or every letter is
signed and sealed (`crypto.post`).
"""
MAIL: Mapping[MailMode, str] = {
    "bare": "not signed, all parties in one process",
    "signed": "signed by its sender, and sealed to its receiver unless that is the server",
}
"""What a report says of it."""


class Session(Generic[O]):
    """The members of one channel, for a population of clients: simulated here, one on each machine
    in a network.

    ``enrol`` makes members, each from an identity of its own and the one directory of all, and
    drives their key set-up. When clients come that were not there, they join where the channel has
    no set-up that binds all (`Able.joins`), and else everybody sets up anew, with fresh identities.
    With ``mail="signed"`` every letter is signed and sealed, in the set-up too, and what it is
    bound to never repeats: the same plans are not played twice.

    Raises:
        ConfigError: ``mail`` is neither "bare" nor "signed"; when a round begins that was played.
    """

    def __init__(self, channel: Channel[O], mail: MailMode = "bare") -> None:
        if mail not in MAIL:
            raise ConfigError(f"mail is 'bare' or 'signed', and is '{mail}'.")
        self.channel = channel
        self.mail = mail
        self.setup_messages: tuple[Message, ...] = ()
        self.setup_refused: tuple[Refusal, ...] = ()
        self._all: Enrolled[O] | None = None
        self._scenes: set[bytes] = set()

    def enrolled(self, clients: Iterable[ClientId]) -> bool:
        """Whether all these clients are set up."""
        return self._all is not None and set(clients) <= self._all.clients.keys()

    def enrol(self, clients: Iterable[ClientId], faults: Faults = NO_FAULTS) -> None:
        """Make sure that all these clients are set up.

        Raises:
            Abort: a party gave up during the set-up.
        """
        wanted = dict.fromkeys(clients)
        if self.enrolled(wanted):
            return
        if self._all is not None and self.channel.able.joins:
            self._all = self._all.joined(self.channel, wanted)
            return
        before = {} if self._all is None else self._all.clients
        keyed = self.mail == "signed" or self.channel.able.keyed
        self._all = Enrolled.fresh(self.channel, {**before, **wanted}, keyed=keyed)
        starting = {who: member.set_up() for who, member in self.members.items()}
        outcome = self._driver([])(starting, faults, keep_bodies=False)
        for abort in outcome.aborts.values():
            raise abort
        self.setup_messages, self.setup_refused = outcome.messages, outcome.refused

    @property
    def members(self) -> Mapping[PartyId, Member]:
        """Everybody, by party."""
        return self._enrolled.members

    @property
    def directory(self) -> Directory:
        """Who is who among those who are set up; it is empty where mail is bare and the channel
        needs no keys.
        """
        return self._enrolled.directory

    def identity(self, who: PartyId) -> Identity:
        """The keys of a party.

        Raises:
            ConfigError: nobody of that name is set up.
        """
        if who not in self._enrolled.keys:
            raise ConfigError(f"{who} has no identity here: enrol it.")
        return self._enrolled.keys[who]

    @property
    def _enrolled(self) -> Enrolled[O]:
        if self._all is None:
            raise ConfigError("nobody is set up yet: enrol the clients before a round.")
        return self._all

    def inform(self, context: Context) -> None:
        """Tell the server's member the model, where the rule that its protocol runs needs it.

        Raises:
            ConfigError: the channel says so, and its server's member cannot be told.
        """
        if not self.channel.able.informed:
            return
        server = self._enrolled.server
        if not isinstance(server, InformedServer):
            raise ConfigError(
                f"{type(self.channel).__name__} declares an informed server, and its server's"
                " member has no inform(context)."
            )
        server.inform(context)

    def play(
        self,
        plan: RoundPlan,
        updates: Mapping[ClientId, Bounded],
        faults: Faults = NO_FAULTS,
        *,
        keep_bodies: bool = False,
    ) -> Outcome[O]:
        """One protocol run of one part. Clients of the plan without an update do not show up."""
        now = self._enrolled
        parties: dict[PartyId, Any] = {
            client_party(c): now.clients[c].enter(plan, update) for c, update in updates.items()
        }
        parties |= {who: helper.enter(plan) for who, helper in now.helpers.items()}
        driver = self._driver([plan])
        server = now.server.enter(plan)
        outcome = drive(server, parties, faults, keep_bodies=keep_bodies, driver=driver)
        self._convict(outcome.aborts.values())
        return outcome

    def play_parts(
        self,
        plans: Mapping[str, RoundPlan],
        clients: Mapping[ClientId, Mapping[str, Party]],
        faults: Faults = NO_FAULTS,
        *,
        keep_bodies: bool = False,
        digests: bool = False,
        plans_of: Mapping[ClientId, Mapping[str, RoundPlan]] | None = None,
        summing: bool | None = None,
        lean: bool = False,
    ) -> Carried[O]:
        """A round, all parts together. ``clients`` are the clients' parties by part
        (`ClientSide.entered`); who is not there does not show up, and is silent where a server that
        hands on keys from round to round writes first. ``plans_of`` are the plans of clients that a
        lying server told something else: their letters are bound to these. ``summing``: a server
        that reads rows adds them up as they come, by their weights or (False) each times 1.
        ``lean``: freed memory is handed back after each exchange, where mail is bare.

        Raises:
            ConfigError: it cannot.
        """
        others: dict[PartyId, Mapping[str, Party]] = {
            client_party(client): parties for client, parties in clients.items()
        }
        now = self._enrolled
        absent = {c for plan in plans.values() for c in plan.cohort if c not in clients}
        for client in sorted(absent) if self.channel.able.carries else ():
            others[client_party(client)] = {part: Silent() for part in plans}
        for who, helper in now.helpers.items():
            others[who] = {part: helper.enter(plan) for part, plan in plans.items()}
        openers = {part: _opener(now.server, plan, summing) for part, plan in plans.items()}
        driver = self._driver(plans.values(), plans_of or {})
        if lean and driver is drive_all:
            driver = partial(drive_all, between=give_back_pages)
        carried = drive_parts(
            openers, others, faults, keep_bodies=keep_bodies, digests=digests, driver=driver
        )
        for aborts in carried.aborts.values():
            self._convict(aborts.values())
        return carried

    def _convict(self, aborts: Iterable[Abort]) -> None:
        """Where mail is signed, who signed what a party could not accept is to blame."""
        if self.mail == "signed":
            for abort in aborts:
                abort.convict()

    def member(self, client: ClientId) -> ClientMember:
        """A client's member."""
        return self._enrolled.clients[client]

    def _driver(
        self,
        plans: Iterable[RoundPlan],
        plans_of: Mapping[ClientId, Mapping[str, RoundPlan]] = MappingProxyType({}),
    ) -> Driver:
        """What carries the mail of a round, or of the set-up where there is no plan."""
        if self.mail == "bare":
            return drive_all
        listed = tuple(plans)
        scene = round_scene(listed) if listed else set_up_scene(secrets.token_bytes(16))
        if scene in self._scenes:
            raise ConfigError(
                f"round {listed[0].number} was played in this session already, and letters of then"
                " would be taken for letters of now: give its plan another session."
            )
        self._scenes.add(scene)
        now = self._enrolled
        others = {client_party(c): round_scene(told.values()) for c, told in plans_of.items()}
        return partial(
            drive_signed, keys=now.keys, directory=now.directory, scene=scene, others=others
        )


def _opener(server: ServerMember[O], plan: RoundPlan, summing: bool | None) -> Opener[Any]:
    """The server's part in a round."""
    if summing is None:
        return server.enter(plan)
    if not isinstance(server, SumsRows):
        raise ConfigError(f"{type(server).__name__} cannot add rows up as they come.")
    return server.enter_summing(plan, weighted=summing)
