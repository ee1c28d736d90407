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

    Guarantee: as `SecAgg` of the same ``mode`` in each group (``guarantee`` says it whole): a
    server that follows the protocol reads the groups' sums and no update; one that lies reads
    single updates unless ``mode`` is active, and in both modes whoever shares a group with so many
    of its friends that the group opens without anybody else: with a quorum of all (the default) all
    others of the group, with a lower ``threshold`` one fewer than the quorum, because it can say of
    the rest that they dropped out. With ``bucketing_seed`` None groups are uniform against a lying
    server with any clients, but for rounds that it ends and tries again; drawn by a seed, a server
    that picks cohorts or the seed puts its friends around a client. What leaks beside one big sum:
    the g group means of every round, and who is in which group. Over rounds these are equations in
    what is lasting in a client's updates, and a few rounds solve them
    (`attacks.GradientDisaggregation`): small groups hide one round's update, not a habit. Grouping
    the SAME updates twice would open them at once, so all parts of a round have one grouping and a
    member enters it once. LYING CLIENTS are not stopped in their own group; the rule over the rows
    is what stops them. A group whose weights do not add up to its members, or with fewer survivors
    than its quorum, is left out by name. Under a joint coin one client that commits and does not
    open ends the round.

    Args:
        size: clients a group; what is left over joins the last groups. Small is robust, large is
            private.
        mode: as in `SecAgg`.
        threshold: the fraction of a group's shares that open a secret, and of its members that must
            be there to the end; None is just over half. Lower stands drop-outs and needs fewer of
            the server's friends in a group.
        corrupt: the fraction of the COHORT that may collude with the server; all of them may sit in
            one group, so noise is accounted as the honest members' alone.
        bits, rounding, rotation: as in `SecAgg`.
        bucketing_seed: what the groups are drawn with, agreed before anybody knows a cohort; the
            same number draws the same groups again. None: a joint coin, drawn by the clients when
            the cohort is fixed, in four more exchanges.
        noise: noise shares inside every group, as in `SecAgg`; what the server then reads is
            private, whatever rule follows.

    Raises:
        ConfigError: a size under 2; when a round begins, a cohort smaller than two groups, or a
            threshold too low for the corrupt of one group in active mode.

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
            seeded=self.noise is not None and self.noise_source.repeatable,
            joins=True,
            keyed=self.mode == "active",
        )

    def fewest(self, n: int) -> int:
        """The quorum of one group; raises as `Buckets.sizes`, and where the threshold is too low
        for the corrupt of one group.
        """
        self.checked(RoundPlan(0, tuple(range(n)), 1, 1.0))
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
        """What accounts for the noise: of the honest members of one group, the smallest that can
        open, because one client is in one group only. All who collude, or may (``corrupt``), may be
        in it; the client that is protected is not one of them, and its own share counts.
        """
        inside = self.inside()
        if self.noise is None:
            return None
        smallest = self.plan_of(plan, plan.cohort[: self.buckets.sizes(plan.n)[0]], 0)
        most = max(colluders, self.colluding(plan, smallest.n))
        return inside.noise_event(smallest, colluders=min(most, self.quorum - 1))

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
            None if self.bucketing_seed is None else self.groups,
            self.size,
            inside.degree,
            lambda n: quorum_of(inside, n),
            active=inside.active,
        ).under(None if self.noise is None else self.noise.guarantee)

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        return (
            f"Secure aggregation in random groups of {self.size}; the rule decides over the groups'"
            f" means. {self.guarantee.describe()}"
        )
