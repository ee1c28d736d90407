"""Bucketed secure aggregation: the server reads the means of small random groups, and a robust rule
judges those.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
import torch

from privfl.core import (
    Able,
    Abort,
    Bounded,
    Buffer,
    ChannelKind,
    ClientId,
    ClientMember,
    ConfigError,
    DpEvent,
    Guarantee,
    HelperMember,
    KeepsSecrets,
    Liars,
    Mail,
    Member,
    NoiseSource,
    Opened,
    Opener,
    OsNoise,
    Party,
    PartyId,
    Received,
    RingNoise,
    RoundPlan,
    RowBound,
    Rows,
    ServerMember,
    Silent,
    Total,
    client_party,
    require,
)
from privfl.crypto import SecAgg
from privfl.crypto.primitives import Directory, fields
from privfl.crypto.secagg import wire
from privfl.crypto.secagg.parameters import quorum_of
from privfl.crypto.secagg.stage import Kind
from privfl.hybrid.bucketed_guarantee import bucketed_guarantee
from privfl.hybrid.buckets import Buckets

WEIGHT_SLACK = 1e-3


@dataclass(frozen=True, slots=True)
class BucketedSecAgg:
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

    kind: ClassVar[ChannelKind] = ChannelKind("rows", named=False, groups=True, takes_noise=True)

    size: int = 3
    bits: int = 16
    rounding: Literal["nearest", "stochastic"] = "nearest"
    rotation: bool = False
    bucketing_seed: int = 0
    noise: RingNoise | None = None
    noise_source: NoiseSource = field(default_factory=OsNoise, compare=False)
    directory: Directory = field(default_factory=Directory, compare=False, repr=False)

    def __post_init__(self) -> None:
        require.at_least(2, size=self.size)
        self._inside()

    def _inside(self) -> SecAgg:
        return SecAgg(
            graph="complete",
            bits=self.bits,
            rounding=self.rounding,
            rotation=self.rotation,
            corrupt=0.0,
            noise=self.noise,
            noise_source=self.noise_source,
            directory=self.directory,
        )

    @property
    def buckets(self) -> Buckets:
        """How rows become fewer rows."""
        return Buckets(self.size, self._quorum)

    @property
    def able(self) -> Able:
        """Rounding inside every group, and the groups."""
        return Able(
            encodes=self._inside().code,
            groups=self.buckets,
            noise=None if self.noise is None else self,
        )

    def groups(self, plan: RoundPlan) -> tuple[tuple[ClientId, ...], ...]:
        """The round's groups: the cohort, shuffled by a hash of the bucketing_seed, the round and
        the cohort, cut into pieces.

        Raises:
            ConfigError: fewer than two groups: one would be plain secure aggregation.
        """
        sizes = self.buckets.sizes(plan.n)
        cohort = ",".join(map(str, plan.cohort))
        facts = f"{self.bucketing_seed}|{plan.number}|{self.size}|{cohort}".encode()
        ranks = {
            c: hashlib.sha256(b"privfl/1/buckets|" + facts + b"|" + str(c).encode()).digest()
            for c in plan.cohort
        }
        order = sorted(plan.cohort, key=ranks.__getitem__)
        ends = np.cumsum(sizes).tolist()
        return tuple(tuple(order[end - size : end]) for size, end in zip(sizes, ends, strict=True))

    def plan_of(self, plan: RoundPlan, group: Sequence[ClientId], number: int) -> RoundPlan:
        """A group's own plan: its clients, weights of one, and a part of its own, so that nothing
        fits another group.
        """
        return replace(
            plan, cohort=tuple(group), max_weight=1.0, part=f"{plan.part}/group/{number}"
        )

    def client(self, who: ClientId) -> ClientMember:
        """A client, with a fresh identity in secure aggregation."""
        return BucketedClient(self, who, self._inside().client(who))

    def server(self) -> ServerMember[Rows]:
        """A server, which holds no secret."""
        return BucketedServer(self)

    def helpers(self) -> Mapping[PartyId, HelperMember]:
        """None."""
        return {}

    def row_bound(self, l2: float, d: int) -> RowBound:
        """A group's mean is no longer than its longest member; one client moves it by two norms
        over the fewest that are ever summed.
        """
        longest = self._inside().row_bound(l2, d).l2
        return RowBound(longest, 2 * longest / self._quorum)

    @property
    def _quorum(self) -> int:
        return self._inside().parameters(RoundPlan(0, tuple(range(self.size)), 1, 1.0)).quorum

    def noise_event(self, plan: RoundPlan, survivors: int) -> DpEvent | None:
        """What accounts for the noise: of one group, the smallest that can open, because one client
        is in one group only.
        """
        inside = self._inside()
        if self.noise is None:
            return None
        smallest = self.plan_of(plan, self.groups(plan)[0], 0)
        event = inside.noise_event(smallest, inside.parameters(smallest).quorum)
        if event is None:
            return None
        doubled = {
            key: 2 * event.parameters[key] for key in ("l1", "l2") if key in event.parameters
        }  # replaced, not removed
        return replace(event, parameters={**event.parameters, **doubled})

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """Group means to whoever reads the server's mail, and single updates where over half of a
        group collude.
        """
        inside = self._inside()
        secret = {
            who: member.inside
            for who, member in members.items()
            if isinstance(member, BucketedClient)
        }
        rows: list[tuple[torch.Tensor, float, ClientId | None]] = []
        for mail in _by_group(received):
            found = inside.decode(mail, secret)
            if isinstance(found, Rows) and found.ids is not None:
                rows += [
                    (value, 1.0, who) for value, who in zip(found.values, found.ids, strict=True)
                ]
            elif isinstance(found, Total) and found.count:
                rows.append((found.value / found.count, float(found.count), None))
        if not rows:
            return None
        single = [row for row in rows if row[2] is not None]
        shown = single or rows
        ids = tuple(who for _, _, who in single if who is not None) or None
        return Rows(
            torch.stack([value for value, _, _ in shown]),
            torch.tensor([weight for _, weight, _ in shown]),
            ids,
        )

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who may collude, who may lie and what the lie can do, as this channel is set."""
        inside = self._inside()
        return bucketed_guarantee(
            self.groups,
            _servers_of,
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


@dataclass(repr=False)
class BucketedClient(KeepsSecrets):
    """A client between rounds. A part of a round is entered once: a second grouping of the same
    update would help to open it.
    """

    channel: BucketedSecAgg
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
        for number, group in enumerate(self.channel.groups(plan)):
            if self.who in group:
                unweighted = Bounded.claimed(
                    self.who, update.delta, update.l2
                )  # checked when it was made, or a liar's
                return self.inside.enter(self.channel.plan_of(plan, group, number), unweighted)
        raise ConfigError(f"round {plan.number}: client {self.who} is not in the cohort.")


@dataclass
class BucketedServer:
    """The server between rounds."""

    channel: BucketedSecAgg

    def set_up(self) -> Party:
        """Nothing to say."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Opener[Rows]:
        """The party of one round: one server of secure aggregation a group.

        Raises:
            ConfigError: too small a cohort.
        """
        channel = self.channel
        groups = channel.groups(plan)
        inside = channel._inside()
        servers = [
            inside.server().enter(channel.plan_of(plan, group, number))
            for number, group in enumerate(groups)
        ]
        return BucketedServerParty(plan.cohort, groups, servers)


@dataclass(repr=False)
class BucketedServerParty(KeepsSecrets):
    """The server in one round: it hands each group's mail to that group's own server; a group that
    gives up is left out.
    """

    cohort: tuple[ClientId, ...]
    groups: tuple[tuple[ClientId, ...], ...]
    servers: list[Opener[Total]]
    started: bool = False
    lost: dict[int, str] = field(default_factory=dict)

    def step(self, mail: Mail) -> Mail:
        """Every group goes on for itself."""
        home = {
            client_party(client): number
            for number, group in enumerate(self.groups)
            for client in group
        }
        inboxes: dict[int, dict[PartyId, Buffer]] = {}
        for who, body in mail.items():
            if who in home:
                inboxes.setdefault(home[who], {})[who] = body
        out: dict[PartyId, Buffer] = {}
        for number, server in enumerate(self.servers):
            if number in self.lost or (self.started and number not in inboxes):
                continue
            try:
                out |= server.step(inboxes.get(number, {}))
            except Abort as abort:
                self.lost[number] = str(abort)
        self.started = True
        return out

    @property
    def result(self) -> Opened[Rows] | None:
        """The means of the groups that got through; None where no group did."""
        means: list[torch.Tensor] = []
        counts: list[float] = []
        of_group: list[int] = []
        survivors: list[ClientId] = []
        excluded: dict[PartyId, str] = {}
        for number, (group, server) in enumerate(zip(self.groups, self.servers, strict=True)):
            opened = server.result
            if opened is not None:
                excluded |= opened.excluded
            why = self.lost.get(number) or _unfit(opened)
            if opened is None or why:
                names = ", ".join(str(client) for client in sorted(group))
                excluded |= {
                    client_party(c): f"group of clients {names}: {why}"
                    for c in group
                    if client_party(c) not in excluded
                }
                continue
            means.append(opened.what.value / opened.what.count)
            counts.append(float(opened.what.count))
            of_group.append(number)
            survivors += opened.survivors
        if not means:
            return None
        home = {client: number for number, group in enumerate(self.groups) for client in group}
        disclosed = {
            "group_counts": torch.tensor(counts),
            "groups": torch.tensor(of_group),
            "membership": torch.tensor([home[client] for client in self.cohort]),
        }
        return Opened(
            Rows(torch.stack(means), torch.tensor(counts)),
            tuple(sorted(survivors)),
            disclosed,
            excluded,
        )


def _servers_of(party: Party) -> list[Opener[Total]]:
    if not isinstance(party, BucketedServerParty):
        raise ConfigError(f"{type(party).__name__} is no server of groups.")
    return party.servers


def _unfit(opened: Opened[Total] | None) -> str:
    if opened is None:
        return "too few of them answered"
    total = opened.what
    if not math.isclose(total.weight, total.count, rel_tol=WEIGHT_SLACK):
        return (
            f"its weights sum to {total.weight:.3g} and not to its {total.count} members, so one of"
            " them lied"
        )
    return ""


def _by_group(received: Received) -> list[Received]:
    """The server's mail, group by group in the order of their numbers: messages carry their group's
    tag, and vectors its name.
    """
    mails: dict[bytes, list[Mapping[PartyId, Buffer]]] = {}
    number: dict[bytes, int] = {}
    for mail in received.get("server", ()):
        own: dict[bytes, dict[PartyId, Buffer]] = {}
        for who, body in mail.items():
            try:
                kind, _, tag, content = wire.read(body)
                if kind is Kind.MASKED:
                    number[tag] = int(fields.read_facts(content)[0].part.rpartition("/")[2])
            except (fields.Malformed, ValueError):  # what the server could not read either
                continue
            own.setdefault(tag, {})[who] = body
        for tag, mine in own.items():
            mails.setdefault(tag, []).append(mine)
    return [{"server": mails[tag]} for tag in sorted(number, key=number.__getitem__)]
