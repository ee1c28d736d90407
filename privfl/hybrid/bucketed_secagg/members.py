"""Clients and the server between rounds."""

from __future__ import annotations

from dataclasses import dataclass, field

from privfl.core import (
    Abort,
    Bounded,
    ClientId,
    ClientMember,
    ConfigError,
    KeepsSecrets,
    Opener,
    Party,
    RoundPlan,
    Rows,
    Silent,
)
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
    entered: set[tuple[bytes, int, str]] = field(default_factory=set)

    def set_up(self) -> Party:
        """Nothing to say."""
        return Silent()

    def enter(self, plan: RoundPlan, update: Bounded) -> Party:
        """The party of one round, in its group.

        Raises:
            Abort: the same part of a round again.
            ConfigError: a client that is not in the cohort, or too small a cohort.
        """
        this = (plan.session, plan.number, plan.part)
        if this in self.entered:
            raise Abort(
                f"round {plan.number} was entered before: a second grouping of one update would"
                " help to open it",
                "server",
            )
        self.entered.add(this)
        for number, group in enumerate(self.settings.groups(plan)):
            if self.who in group:
                unweighted = Bounded.claimed(
                    self.who, update.delta, update.l2
                )  # checked when it was made, or a liar's
                return self.inside.enter(self.settings.plan_of(plan, group, number), unweighted)
        raise ConfigError(f"round {plan.number}: client {self.who} is not in the cohort.")


@dataclass
class BucketedServer:
    """The server between rounds."""

    settings: BucketedSettings

    def set_up(self) -> Party:
        """Nothing to say."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Opener[Rows]:
        """The party of one round: one server of secure aggregation a group.

        Raises:
            ConfigError: too small a cohort.
        """
        settings = self.settings
        groups = settings.groups(plan)
        inside = settings.inside()
        servers = [
            inside.server().enter(settings.plan_of(plan, group, number))
            for number, group in enumerate(groups)
        ]
        return BucketedServerParty(plan.cohort, groups, servers)
