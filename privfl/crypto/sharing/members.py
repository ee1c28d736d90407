"""Clients and servers between rounds, with proved norms or without."""

from __future__ import annotations

from dataclasses import dataclass, field

from privfl.core import (
    BadUpdate,
    Bounded,
    ClientId,
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
from privfl.crypto import cohort
from privfl.crypto.cohort import Entered
from privfl.crypto.sharing.client import SharingClientParty
from privfl.crypto.sharing.parameters import SharingSettings, parameters_of
from privfl.crypto.sharing.pine import parameters as pine
from privfl.crypto.sharing.pine.client import PineClientParty
from privfl.crypto.sharing.pine.server import PineHelperParty, PineServerParty
from privfl.crypto.sharing.pine.vdaf import HELPER, LEADER
from privfl.crypto.sharing.pine.verification import Verification
from privfl.crypto.sharing.server import HelperParty, SharingServerParty


@dataclass
class SharingClient:
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
            ConfigError: as `AdditiveSharing`, or a client that is not in the cohort, or servers
                whose keys nobody knows.
        """
        if self.settings.proof is not None:
            return self._proving(plan, update)
        now = parameters_of(self.settings, plan)
        position = cohort.place_of(plan, self.who)
        boxes = {who: cohort.boxes_of(self.directory, who) for who in now.others}
        vector, refused = None, None
        try:
            vector = now.encode(update)
        except BadUpdate as bad:
            refused = str(bad)
        return SharingClientParty(now, self.who, position, boxes, vector, refused)

    def _proving(self, plan: RoundPlan, update: Bounded) -> Party:
        now = pine.parameters_of(self.settings, plan)
        position = cohort.place_of(plan, self.who)
        boxes = cohort.boxes_of(self.directory, now.other)
        contribution, refused = None, None
        try:
            contribution = now.encode(update)
        except BadUpdate as bad:
            refused = str(bad)
        return PineClientParty(now, self.who, position, boxes, contribution, refused)


@dataclass(repr=False)
class SharingServer(KeepsSecrets):
    """The first server between rounds. It needs its keys, and enters a round once, where it
    verifies proofs.
    """

    settings: SharingSettings
    identity: PartyKeys
    directory: KnownKeys
    entered: Entered = field(default_factory=Entered)

    def set_up(self) -> Party:
        """Nothing to say: its public key is in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Opener[Total]:
        """The party of one round.

        Raises:
            ConfigError: as `AdditiveSharing`, or the other server's keys are not known.
        """
        if self.settings.proof is None:
            return SharingServerParty(parameters_of(self.settings, plan))
        now = pine.parameters_of(self.settings, plan)
        boxes = cohort.boxes_of(self.directory, now.other)
        verification = Verification(now, LEADER, self.identity, boxes)
        return PineServerParty(now, verification, refused=self.entered.why_not(plan))


@dataclass(repr=False)
class SharingHelper(KeepsSecrets):
    """Another server between rounds: the key to which clients seal its seeds. It enters a round
    once.
    """

    settings: SharingSettings
    who: PartyId
    identity: PartyKeys
    directory: KnownKeys
    entered: Entered = field(default_factory=Entered)

    def set_up(self) -> Party:
        """Nothing to say: its public key is in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Party:
        """The party of one round.

        Raises:
            ConfigError: as `SharingServer.enter`.
        """
        if self.settings.proof is None:
            now, refused = parameters_of(self.settings, plan), self.entered.why_not(plan)
            return HelperParty(now, self.who, self.identity, refused=refused)
        proved = pine.parameters_of(self.settings, plan)
        boxes = cohort.boxes_of(self.directory, "server")
        verification = Verification(proved, HELPER, self.identity, boxes)
        return PineHelperParty(proved, verification, refused=self.entered.why_not(plan))
