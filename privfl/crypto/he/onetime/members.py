"""Clients, the server and the decryptors between rounds."""

from __future__ import annotations

from privfl.core import (
    Bounded,
    KeepsSecrets,
    KnownKeys,
    Opener,
    Party,
    PartyKeys,
    RoundPlan,
    Silent,
    Total,
)
from privfl.crypto.he.onetime.client import OneTimeClientParty
from privfl.crypto.he.onetime.committee import CarriesLots, Draw, Draws
from privfl.crypto.he.onetime.decryptor import OneTimeDecryptorParty
from privfl.crypto.he.onetime.drawn import DrawnClientParty
from privfl.crypto.he.onetime.parameters import OneTimeSettings
from privfl.crypto.he.onetime.server import OneTimeServerParty
from privfl.crypto.he.onetime.set_up import Asks, Occasions, SessionMemory, Tells


class _Between(KeepsSecrets):
    """What every member has."""

    def __init__(
        self, settings: OneTimeSettings, identity: PartyKeys, directory: KnownKeys
    ) -> None:
        self.settings, self.identity, self.directory = settings, identity, directory


class OneTimeClient(_Between):
    """A client between rounds: what the decryptors drew. No key outlives a round."""

    def __init__(
        self, settings: OneTimeSettings, identity: PartyKeys, directory: KnownKeys
    ) -> None:
        super().__init__(settings, identity, directory)
        self.occasions = Occasions(settings.decryptors)
        self.draw, self.memory = Draw(), SessionMemory()

    def set_up(self) -> Party:
        """Ask the decryptors what they drew; where clients are decryptors, draw them."""
        if self.settings.committee == "helpers":
            return Asks(self.occasions)
        self.memory.renew()
        return Draws(self.identity.who, self.draw, self.directory, self.settings.holders)

    def enter(self, plan: RoundPlan, update: Bounded) -> Party:
        """Encrypt one update under a key of its own.

        Raises:
            ConfigError: as `OneTimeSettings.layout`.
        """
        self.settings.layout(plan)
        settings, occasions = self.draw.settings(self.settings), self.occasions
        if settings.committee == "clients":
            occasions = Occasions(settings.decryptors)
            occasions.heard = dict.fromkeys(settings.decryptors, self.draw.coin)
        client = OneTimeClientParty(
            settings, self.identity, self.directory, occasions, plan, update
        )
        if settings.committee == "helpers":
            return client
        decryptor = None
        if self.identity.who in settings.decryptors:
            self.memory.occasion = self.draw.coin
            decryptor = OneTimeDecryptorParty(
                settings, self.identity, self.directory, self.memory, plan
            )
        return DrawnClientParty(client, decryptor, self.draw.refusal(settings, plan))


class OneTimeServer(_Between):
    """The server between rounds. It holds no secret but its own identity."""

    def __init__(
        self, settings: OneTimeSettings, identity: PartyKeys, directory: KnownKeys
    ) -> None:
        super().__init__(settings, identity, directory)
        self.draw = Draw()

    def set_up(self) -> Party:
        """Nothing to say, but where clients draw decryptors what they say to each other."""
        if self.settings.committee == "helpers":
            return Silent()
        return CarriesLots(self.draw, self.settings.holders)

    def enter(self, plan: RoundPlan) -> Opener[Total]:
        """Collect one sum; raises as `OneTimeClient.enter`."""
        self.settings.layout(plan)
        settings = self.draw.settings(self.settings)
        return OneTimeServerParty(settings, self.identity, self.directory, plan)


class OneTimeDecryptor(_Between):
    """A decryptor between rounds: what it drew for the session, and what it has opened."""

    def __init__(
        self, settings: OneTimeSettings, identity: PartyKeys, directory: KnownKeys
    ) -> None:
        super().__init__(settings, identity, directory)
        self.memory = SessionMemory()

    def set_up(self) -> Party:
        """Begin a session."""
        return Tells(self.memory)

    def enter(self, plan: RoundPlan) -> Party:
        """Its part in one opening; raises as `OneTimeClient.enter`."""
        self.settings.layout(plan)
        return OneTimeDecryptorParty(
            self.settings, self.identity, self.directory, self.memory, plan
        )
