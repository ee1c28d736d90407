"""Clients and servers between rounds."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

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
from privfl.crypto.ring import word
from privfl.crypto.sharing.client import SharingClientParty
from privfl.crypto.sharing.parameters import SharingSettings, parameters_of
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
        settings, now = self.settings, parameters_of(self.settings, plan)
        if self.who not in plan.cohort:
            raise ConfigError(f"round {plan.number}: client {self.who} is not in the cohort.")
        boxes = {who: self.directory.boxes(who) for who in settings.others}
        unknown = [who for who, known in boxes.items() if not known]
        if unknown:
            raise ConfigError(
                f"the directory knows no key of {unknown[0]}: enter its identity before a round"
                " begins."
            )
        vector, refused = None, None
        try:
            vector = (
                settings.code.encode(update, plan, dtype=np.int32)
                .view(np.uint32)
                .astype(word(now.ring), copy=False)
            )
        except BadUpdate as bad:
            refused = str(bad)
        return SharingClientParty(
            now, self.who, plan.cohort.index(self.who), boxes, vector, refused
        )


@dataclass
class SharingServer:
    """The first server between rounds."""

    settings: SharingSettings

    def set_up(self) -> Party:
        """Nothing to say."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Opener[Total]:
        """The party of one round.

        Raises:
            ConfigError: as `AdditiveSharing`.
        """
        return SharingServerParty(parameters_of(self.settings, plan))


@dataclass(repr=False)
class SharingHelper(KeepsSecrets):
    """Another server between rounds: the key to which clients seal its seeds. A part of a round is
    entered once: the sums over two sets that differ in one client would open that client.
    """

    settings: SharingSettings
    who: PartyId
    identity: PartyKeys
    entered: set[tuple[bytes, int, str]] = field(default_factory=set)

    def set_up(self) -> Party:
        """Nothing to say: its public key is in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Party:
        """The party of one round.

        Raises:
            ConfigError: as `AdditiveSharing`.
        """
        now, this = parameters_of(self.settings, plan), (plan.session, plan.number, plan.part)
        refused = None
        if this in self.entered:
            refused = (
                f"round {plan.number} was entered before: two sums of it would open who is in one"
                " of them alone"
            )
        self.entered.add(this)
        return HelperParty(now, self.who, self.identity, refused=refused)
