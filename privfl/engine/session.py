"""A channel at work: the members of all parties, set up once, and one protocol run a round."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from privfl.core import (
    NO_FAULTS,
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
    Outcome,
    Party,
    PartyId,
    Refusal,
    RoundPlan,
    client_party,
    drive,
    drive_all,
    drive_parts,
)
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

    ``enrol`` makes members and drives their key set-up; when clients come that were not there,
    everybody sets up anew. With ``mail="signed"`` every letter is signed and sealed, in the set-up
    too: identities are fresh for each set-up, and the directory is this object's own.
    """

    def __init__(self, channel: Channel[O], mail: MailMode = "bare") -> None:
        self.channel = channel
        self.mail = mail
        self.setup_messages: tuple[Message, ...] = ()
        self.setup_refused: tuple[Refusal, ...] = ()
        self.directory = Directory()
        self._keys: dict[PartyId, Identity] = {}
        self._clients: dict[ClientId, ClientMember] = {}

    def enrolled(self, clients: Iterable[ClientId]) -> bool:
        """Whether all these clients are set up."""
        return bool(self._clients) and set(clients) <= self._clients.keys()

    def enrol(self, clients: Iterable[ClientId], faults: Faults = NO_FAULTS) -> None:
        """Make sure that all these clients are set up.

        Raises:
            Abort: a party gave up during the set-up.
        """
        wanted = dict.fromkeys(clients)
        if self.enrolled(wanted):
            return
        self._clients = {
            client: self.channel.client(client) for client in {**self._clients, **wanted}
        }
        self._server = self.channel.server()
        self._helpers = dict(self.channel.helpers())
        if self.mail == "signed":
            self._keys = {who: Identity.fresh(who) for who in self.members}
            self.directory = Directory.of({who: me.public for who, me in self._keys.items()})
        starting = {who: member.set_up() for who, member in self.members.items()}
        outcome = self._driver([])(starting, faults, keep_bodies=False)
        for abort in outcome.aborts.values():
            raise abort
        self.setup_messages, self.setup_refused = outcome.messages, outcome.refused

    @property
    def members(self) -> Mapping[PartyId, Member]:
        """Everybody, by party."""
        clients: dict[PartyId, Member] = {
            client_party(client): member for client, member in self._clients.items()
        }
        return {**clients, **self._helpers, "server": self._server}

    def identity(self, who: PartyId) -> Identity:
        """The keys of a party, where mail is signed.

        Raises:
            ConfigError: mail is not signed, or nobody of that name is set up.
        """
        if who not in self._keys:
            raise ConfigError(f"{who} has no identity here: set mail to 'signed', and enrol it.")
        return self._keys[who]

    def inform(self, context: Context) -> None:
        """Tell the server's member the model, where the rule that its protocol runs needs it.

        Raises:
            ConfigError: the channel says so, and its server's member cannot be told.
        """
        if not self.channel.able.informed:
            return
        if not isinstance(self._server, InformedServer):
            raise ConfigError(
                f"{type(self.channel).__name__} declares an informed server, and its server's"
                " member has no inform(context)."
            )
        self._server.inform(context)

    def play(
        self,
        plan: RoundPlan,
        updates: Mapping[ClientId, Bounded],
        faults: Faults = NO_FAULTS,
        *,
        keep_bodies: bool = False,
    ) -> Outcome[O]:
        """One protocol run of one part. Clients of the plan without an update do not show up."""
        parties: dict[PartyId, Any] = {
            client_party(c): self._clients[c].enter(plan, update) for c, update in updates.items()
        }
        parties |= {who: helper.enter(plan) for who, helper in self._helpers.items()}
        driver = self._driver([plan])
        return drive(
            self._server.enter(plan), parties, faults, keep_bodies=keep_bodies, driver=driver
        )

    def play_parts(
        self,
        plans: Mapping[str, RoundPlan],
        clients: Mapping[ClientId, Mapping[str, Party]],
        faults: Faults = NO_FAULTS,
        *,
        keep_bodies: bool = False,
    ) -> Carried[O]:
        """A round, all parts together. ``clients`` are the clients' parties by part
        (`ClientSide.entered`); who is not there does not show up.
        """
        others: dict[PartyId, Mapping[str, Party]] = {
            client_party(client): parties for client, parties in clients.items()
        }
        for who, helper in self._helpers.items():
            others[who] = {part: helper.enter(plan) for part, plan in plans.items()}
        openers = {part: self._server.enter(plan) for part, plan in plans.items()}
        driver = self._driver(plans.values())
        return drive_parts(openers, others, faults, keep_bodies=keep_bodies, driver=driver)

    def member(self, client: ClientId) -> ClientMember:
        """A client's member."""
        return self._clients[client]

    def _driver(self, plans: Iterable[RoundPlan]) -> Driver:
        """What carries the mail of a round, or of the set-up where there is no plan."""
        if self.mail == "bare":
            return drive_all
        listed = tuple(plans)
        scene = round_scene(listed) if listed else set_up_scene(secrets.token_bytes(16))
        return partial(drive_signed, keys=self._keys, directory=self.directory, scene=scene)
