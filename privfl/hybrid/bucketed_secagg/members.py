"""Clients and the server between rounds."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from privfl.core import (
    Bounded,
    ClientId,
    ClientMember,
    ConfigError,
    KeepsSecrets,
    Opener,
    Party,
    RoundPlan,
    Rows,
    ServerMember,
    Silent,
    Total,
)
from privfl.crypto import cohort
from privfl.crypto.abort import StageAbort
from privfl.crypto.cohort import Entered
from privfl.hybrid.bucketed_secagg.coin import SIZE, CoinClient, CoinServer
from privfl.hybrid.bucketed_secagg.parameters import BucketedSettings
from privfl.hybrid.bucketed_secagg.server import BucketedServerParty


@dataclass(repr=False)
class BucketedClient(KeepsSecrets):
    """A client between rounds. A part of a round is entered once: a second grouping of the same
    update would help to open it.
    """

    settings: BucketedSettings
    who: ClientId
    inside: ClientMember
    entered: Entered = field(default_factory=Entered)

    def set_up(self) -> Party:
        """Nothing to say."""
        return Silent()

    def enter(self, plan: RoundPlan, update: Bounded) -> Party:
        """The party of one round, in its group.

        Raises:
            StageAbort: the same part of a round again.
            ConfigError: a client that is not in the cohort, or too small a cohort.
        """
        if why := self.entered.why_not(plan):
            raise StageAbort("enter", why, "server")
        self.settings.checked(plan)
        place = cohort.place_of(plan, self.who)
        unweighted = Bounded.claimed(
            self.who, update.delta, update.l2
        )  # checked when it was made, or a liar's
        settings = self.settings
        if settings.bucketing_seed is None:
            _one_part(plan)
            secret = secrets.token_bytes(SIZE)
            return CoinClient(settings, plan, unweighted, self.inside, place, secret)
        groups = settings.groups(plan)
        number = next(i for i, group in enumerate(groups) if self.who in group)
        return self.inside.enter(settings.plan_of(plan, groups[number], number), unweighted)


@dataclass
class BucketedServer:
    """The server between rounds."""

    settings: BucketedSettings
    inside: ServerMember[Total]

    def set_up(self) -> Party:
        """Nothing to say."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Opener[Rows]:
        """The party of one round: one server of secure aggregation a group.

        Raises:
            ConfigError: too small a cohort.
        """
        settings = self.settings
        settings.checked(plan)
        if settings.bucketing_seed is None:
            _one_part(plan)
            return CoinServer(settings, plan, self.inside)
        groups = settings.groups(plan)
        servers = [
            self.inside.enter(settings.plan_of(plan, group, number))
            for number, group in enumerate(groups)
        ]
        return BucketedServerParty(plan.cohort, groups, servers)


def _one_part(plan: RoundPlan) -> None:
    """A coin a part would group a round's vectors twice.

    Raises:
        ConfigError: another part than the update.
    """
    if plan.part != "delta":
        raise ConfigError(
            f"bucketed_secagg draws one coin a round, and '{plan.part}' would be grouped by another"
            " than the update: give channel.bucketing_seed a number, or train without extra"
            " vectors."
        )
