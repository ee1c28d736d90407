"""Clients and servers between rounds."""

from __future__ import annotations

from dataclasses import dataclass, field

from privfl.core import (
    BadUpdate,
    Bounded,
    ClientId,
    ConfigError,
    KeepsSecrets,
    KnownKeys,
    Opener,
    Party,
    PartyId,
    PartyKeys,
    RoundPlan,
    Silent,
    Total,
)
from privfl.crypto.sharing.parameters import SharingSettings
from privfl.crypto.sharing.pine.client import PineClientParty
from privfl.crypto.sharing.pine.parameters import parameters_of
from privfl.crypto.sharing.pine.server import PineHelperParty, PineServerParty
from privfl.crypto.sharing.pine.vdaf import HELPER, LEADER
from privfl.crypto.sharing.pine.verification import Verification


def boxes_of(directory: KnownKeys, who: PartyId) -> tuple[bytes, ...]:
    """The keys to which boxes for a server are sealed.

    Raises:
        ConfigError: the directory knows none.
    """
    boxes = directory.boxes(who)
    if not boxes:
        raise ConfigError(
            f"the directory knows no key of {who}: enter its identity before a round begins."
        )
    return boxes


@dataclass
class PineClient:
    """A client between rounds."""

    settings: SharingSettings
    who: ClientId
    directory: KnownKeys

    def set_up(self) -> Party:
        """Nothing to say: the servers' keys are in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan, update: Bounded) -> Party:
        """The party of one round.

        Raises:
            ConfigError: as `AdditiveSharing`, or a client that is not in the cohort, or a server
                whose keys nobody knows.
        """
        now = parameters_of(self.settings, plan)
        if self.who not in plan.cohort:
            raise ConfigError(f"round {plan.number}: client {self.who} is not in the cohort.")
        boxes, position = boxes_of(self.directory, now.other), plan.cohort.index(self.who)
        try:
            return PineClientParty(now, self.who, position, boxes, now.encode(update))
        except BadUpdate as bad:
            return PineClientParty(now, self.who, position, boxes, None, str(bad))


@dataclass(repr=False)
class PineServer(KeepsSecrets):
    """The first server between rounds: its key, and the nonces of all that it verified."""

    settings: SharingSettings
    identity: PartyKeys
    directory: KnownKeys
    seen: set[bytes] = field(default_factory=set)

    def set_up(self) -> Party:
        """Nothing to say: its public key is in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Opener[Total]:
        """The party of one round.

        Raises:
            ConfigError: as `AdditiveSharing`, or the other server's keys are not known.
        """
        now = parameters_of(self.settings, plan)
        boxes = boxes_of(self.directory, now.other)
        return PineServerParty(now, Verification(now, LEADER, self.identity, boxes, self.seen))


@dataclass(repr=False)
class PineHelper(KeepsSecrets):
    """The second server between rounds: the key to which clients seal its shares, and the nonces of
    all that it verified.
    """

    settings: SharingSettings
    who: PartyId
    identity: PartyKeys
    directory: KnownKeys
    seen: set[bytes] = field(default_factory=set)

    def set_up(self) -> Party:
        """Nothing to say: its public key is in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Party:
        """The party of one round.

        Raises:
            ConfigError: as `PineServer.enter`.
        """
        now = parameters_of(self.settings, plan)
        boxes = boxes_of(self.directory, "server")
        return PineHelperParty(now, Verification(now, HELPER, self.identity, boxes, self.seen))
