"""Clients and servers between rounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privfl.core import (
    BadUpdate,
    Bounded,
    ClientId,
    ConfigError,
    KeepsSecrets,
    Opener,
    Party,
    PartyId,
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
        boxes = {who: settings.directory.boxes(who) for who in settings.others}
        unknown = [who for who, known in boxes.items() if not known]
        if unknown:
            raise ConfigError(
                f"the directory knows no key of {unknown[0]}: make the helpers before a round"
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
    """Another server between rounds: the key to which clients seal its seeds."""

    settings: SharingSettings
    who: PartyId
    secret: bytes

    def set_up(self) -> Party:
        """Nothing to say: its public key is in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Party:
        """The party of one round.

        Raises:
            ConfigError: as `AdditiveSharing`.
        """
        return HelperParty(parameters_of(self.settings, plan), self.who, self.secret)
