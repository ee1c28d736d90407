"""Bucketed secure aggregation: the server reads the means of small random groups, and a robust rule
judges those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from privfl.core import (
    Able,
    ChannelKind,
    ClientId,
    ClientMember,
    DpEvent,
    Examples,
    Guarantee,
    HelperMember,
    KnownKeys,
    Liars,
    Member,
    PartyId,
    PartyKeys,
    Received,
    RoundPlan,
    Rows,
    ServerMember,
    Total,
    no_helper,
)
from privfl.crypto.secagg.parameters import quorum_of
from privfl.hybrid.bucketed_secagg.guarantee import bucketed_guarantee
from privfl.hybrid.bucketed_secagg.members import BucketedClient, BucketedServer
from privfl.hybrid.bucketed_secagg.parameters import BucketedSettings
from privfl.hybrid.bucketed_secagg.view import opened


@dataclass(frozen=True, slots=True)
class BucketedSecAgg(BucketedSettings):
    """Secure aggregation inside random groups of ``size`` clients, drawn anew each round (SHARE:
    Velicheti, Xia, Koyejo 2021).

    The server opens one mean per group, an anonymous row; any rule that needs no client ids decides
    over those rows. A group with one liar is a bad row: a rule that tolerates f of g rows tolerates
    f Byzantine clients (`Buckets.max_byzantine`), and fewer clients hide one another than in one
    big sum. Group means are unweighted, so that nobody pulls harder by claiming more samples.

    Guarantee: as semi-honest `SecAgg` in each group (``guarantee`` says it whole): a server that
    follows the protocol reads the groups' sums and no update; one that lies reads single updates,
    and so does one that colludes with over half of a group (2 of 3, 3 of 5, 6 of 10), whose shares
    open the others' secrets. It draws the groups by hashing the round's public facts; a server that
    picks ``bucketing_seed`` when it knows the cohort puts its friends together. What leaks beside
    one big sum: the g group means of every round, and who is in which group. Over rounds these are
    equations in what is lasting in a client's updates, and a few rounds solve them
    (`attacks.GradientDisaggregation`): small groups hide one round's update, not a habit. Grouping
    the SAME updates twice would open them at once, so all parts of a round have one grouping and a
    member enters it once. LYING CLIENTS are not stopped in their own group; the rule over the rows
    is what stops them. A group whose weights do not add up to its members, or with fewer survivors
    than over half of it, is left out by name.

    Args:
        size: clients a group; what is left over joins the last groups. Small is robust, large is
            private.
        bits, rounding, rotation: as in `SecAgg`.
        bucketing_seed: what the groups are drawn with, agreed before anybody knows a cohort; the
            same number draws the same groups again.
        noise: noise shares inside every group, as in `SecAgg`; what the server then reads is
            private, whatever rule follows.

    Raises:
        ConfigError: a size under 2; a cohort smaller than two groups when a round begins.

    >>> BucketedSecAgg(size=3).buckets.rows(20)
    6
    """

    examples: ClassVar[Examples] = {"": {"size": 3, "bits": 8}}
    kind: ClassVar[ChannelKind] = ChannelKind("rows", named=False, groups=True, takes_noise=True)

    @property
    def able(self) -> Able:
        """Rounding inside every group, and the groups."""
        return Able(
            encodes=self.inside().code,
            fewest=self.fewest,
            groups=self.buckets,
            noise=None if self.noise is None else self,
            joins=True,
        )

    def fewest(self, n: int) -> int:
        """The quorum of one group, in cohorts of at least two; raises as `Buckets.sizes`."""
        self.buckets.sizes(n)
        return self.quorum

    @property
    def helpers(self) -> tuple[PartyId, ...]:
        """None."""
        return ()

    def client(self, who: ClientId, identity: PartyKeys, directory: KnownKeys) -> ClientMember:
        """A client of secure aggregation in whatever group it is in; raises as `SecAgg.client`."""
        return BucketedClient(self, who, self.inside().client(who, identity, directory))

    def server(self, identity: PartyKeys, directory: KnownKeys) -> ServerMember[Rows]:
        """A server, which holds no secret; raises as `SecAgg.server`."""
        return BucketedServer(self, self.inside().server(identity, directory))

    def helper(self, who: PartyId, identity: PartyKeys, directory: KnownKeys) -> HelperMember:
        """There is none.

        Raises:
            ConfigError: always.
        """
        raise no_helper("bucketed_secagg", who, ())

    def noise_event(
        self, plan: RoundPlan, survivors: int | None = None, colluders: int = 0
    ) -> DpEvent | None:
        """What accounts for the noise: of one group, the smallest that can open, because one client
        is in one group only, and all who collude may be in it.

        Raises:
            ConfigError: nobody but colluders would be left in it.
        """
        inside = self.inside()
        if self.noise is None:
            return None
        smallest = self.plan_of(plan, self.groups(plan)[0], 0)
        return inside.noise_event(smallest, colluders=colluders)

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """Group means to whoever reads the server's mail, and single updates where over half of a
        group collude.
        """
        secret = {
            who: member.inside
            for who, member in members.items()
            if isinstance(member, BucketedClient)
        }
        return opened(self.inside(), received, secret)

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who may collude, who may lie and what the lie can do, as this channel is set."""
        inside = self.inside()
        return bucketed_guarantee(
            self.groups,
            self.size,
            inside.degree,
            lambda n: quorum_of(inside.degree(n), n),
        ).under(None if self.noise is None else self.noise.guarantee)

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        return (
            f"Secure aggregation in random groups of {self.size}; the rule decides over the groups'"
            f" means. {self.guarantee.describe()}"
        )
