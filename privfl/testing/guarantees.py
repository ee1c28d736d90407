"""Lies and coalitions, played through the real parties of a channel and measured: what a record
says of them is compared with what came of it.

A lie is played in a round of a few clients whose updates point in different directions. What the
round then published is written as a combination of these updates (least squares), and the least
power that explains the combination is what the lie did.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import (
    OUTSIDER,
    POWERS,
    BadUpdate,
    Bounded,
    Channel,
    ClientId,
    ConfigError,
    Context,
    Faults,
    Guarantee,
    InformedServer,
    Liars,
    Lie,
    Mechanism,
    Member,
    Opened,
    Outcome,
    Participation,
    Party,
    PartyId,
    Power,
    RingNoise,
    RoundPlan,
    Rows,
    SeededNoise,
    Sensitivity,
    Silent,
    Total,
    Vector,
    WithMemory,
    client_of,
    client_party,
    drive,
    drive_all,
)
from privfl.crypto.enrolled import Enrolled

N, D = 6, 10
"""Clients and values of a round that is played: enough that a sum of two is near to neither."""
L2 = 1.0
LENGTH = 0.98
"""How long each update is: a little under the bound, so that rounding keeps it there."""
NEAR = 0.94
"""The cosine from which on a vector is a client's update: nine tenths of its energy, nearly."""
CLOSE = 0.02
"""Relative error of a result that is as it was: rounding, and the noise of approximate schemes."""
ALONE = 20.0
"""How much heavier one update must weigh than every other to be read from a sum of them."""
DRAWS = 10_000
HONEST = Liars()
TRIES = 3
"""How often a lie is told before it counts as weaker than it says: some succeed by chance."""


@dataclass(frozen=True, slots=True)
class Contributions:
    """What the clients of a played round hold: rows [n, d] of one length, every entry plus or minus
    one number, so that signs and fixed point carry them exactly.
    """

    rows: Float[Tensor, "n d"]

    @property
    def together(self) -> Vector:
        """The sum [d] of all rows: a direction that every row has something of."""
        return self.rows.sum(dim=0)


def contributions(n: int = N, d: int = D) -> Contributions:
    """The updates of n clients, linearly independent, with a direction in common.

    Raises:
        ConfigError: none were found; so many clients need more values.

    >>> held = contributions()
    >>> int(torch.linalg.matrix_rank(held.rows)), bool((held.rows @ held.together > 0).all())
    (6, True)
    """
    for seed in range(DRAWS):
        drawn = torch.rand(n, d, generator=torch.Generator().manual_seed(seed))
        signs = torch.where(drawn < 0.7, 1.0, -1.0)
        cosines = signs @ signs.T / d - 2 * torch.eye(n)
        spread = torch.linalg.svdvals(signs)[-1] > d**0.5 / 4
        if bool(spread) and float(cosines.max()) <= 0.5 and bool((signs @ signs.sum(0) > 0).all()):
            return Contributions(signs * (LENGTH * L2 / d**0.5))
    raise ConfigError(f"no updates of {n} clients that differ in {d} values: take more values.")


@dataclass(frozen=True)
class PlayedRound:
    """One round of a channel through its real parties, with or without liars, and all its mail."""

    channel: Channel[Any]
    plan: RoundPlan
    members: Mapping[PartyId, Member]
    outcome: Outcome[Any]
    published: Opened[Any] | None
    took: Mapping[ClientId, Vector]

    @classmethod
    def play(
        cls,
        channel: Channel[Any],
        held: Contributions,
        liars: Liars = HONEST,
        who: Collection[PartyId] = (),
        absent: Collection[ClientId] = (),
    ) -> PlayedRound:
        """Set up and play a round in which ``who`` lie and ``absent`` clients do not show up."""
        plan = _plan(*held.rows.shape)
        d = plan.d
        everybody = Enrolled.fresh(channel, plan.cohort)
        clients = {client_party(c): member for c, member in everybody.clients.items()}
        helpers, server = dict(everybody.helpers), everybody.server
        members: dict[PartyId, Member] = {**clients, **helpers, "server": server}
        lying = Faults(
            byzantine={w: lambda party: party for w in who}
        )  # crashes are the liars' own
        ready: dict[PartyId, Party] = {w: member.set_up() for w, member in members.items()}
        drive_all(_cast(ready, who, liars.set_up), lying)
        if channel.able.informed and isinstance(server, InformedServer):
            for model in (torch.zeros(d), held.rows.mean(dim=0)):  # it has moved since the last
                server.inform(Context(plan, model, torch.Generator().manual_seed(0)))
        parties: dict[PartyId, Party] = {w: helper.enter(plan) for w, helper in helpers.items()}
        for c in plan.cohort:
            update = Bounded(c, held.rows[c].clone(), L2)
            if client_party(c) in who:
                update = liars.update(update)
            party = clients[client_party(c)].enter(plan, update)
            parties[client_party(c)] = Silent() if c in absent else party
        opener = server.enter(plan)
        parties["server"] = opener
        cast = dict(_cast(parties, who, lambda honest: liars.enter(plan, honest)))
        told = cast.pop("server")
        faults = Faults(byzantine={**lying.byzantine, "server": lambda party: told})
        outcome = drive(opener, cast, faults if "server" in who else lying, keep_bodies=True)
        published = liars.publish(outcome.opened) if "server" in who else outcome.opened
        return cls(channel, plan, members, outcome, published, liars.took(published))

    def rows_of(self, who: Collection[PartyId]) -> frozenset[ClientId]:
        """The clients whose single update a coalition computes from its mail and its members;
        `OUTSIDER` in it taps every wire.
        """
        seen = set(self.members) if OUTSIDER in who else set(who)
        own = {party: member for party, member in self.members.items() if party in who}
        found = self.channel.decode(self.outcome.received(seen), own)
        return frozenset(found.ids or ()) if isinstance(found, Rows) else frozenset()

    @cached_property
    def mean(self) -> Vector | None:
        """The mean [d] that was published; None where nothing was, or nothing that has one."""
        try:
            return None if self.published is None else _mean(self.published.what)
        except BadUpdate:
            return None


def _plan(n: int, d: int) -> RoundPlan:
    return RoundPlan(0, tuple(range(n)), d, l2=L2, session=b"privfl/testing")


def _cast(
    honest: Mapping[PartyId, Party],
    who: Collection[PartyId],
    how: Callable[[Mapping[PartyId, Party]], Mapping[PartyId, Party]],
) -> Mapping[PartyId, Party]:
    return {**honest, **how({party: honest[party] for party in honest if party in who})}


def _mean(what: Rows | Total) -> Vector:
    if isinstance(what, Total):
        return what.mean().double()
    return (what.weights.double() @ what.values.double()) / what.weights.double().sum()


def what_it_does(
    channel: Channel[Any], lie: Lie[Liars], held: Contributions | None = None
) -> Power:
    """Tell a lie through the real parties, and find the least power that explains what came of it.

    ``read``: a vector that the liars computed, or what was published less their own contributions,
    is nearly one update of somebody else. ``abort``: nothing was published. ``nothing``: what was
    published is what it would be if the liars followed the protocol, sent another update within the
    bound, or stayed away. ``choose``: it is made of honest updates that do not all count as they
    should. ``shift``: anything else. A lie that succeeds by chance is told up to three times.

    >>> from privfl.crypto import SecAgg
    >>> from privfl.crypto.secagg.lies import swaps_keys
    >>> from privfl.core import Coalition
    >>> swaps = Lie(Coalition.of("server"), "read", "swaps keys", swaps_keys)
    >>> what_it_does(SecAgg(), swaps), what_it_does(SecAgg(mode="active"), swaps)
    ('read', 'choose')
    """
    return _Measure(channel, held or contributions()).most(lie)


@dataclass
class _Measure:
    """Lies to one channel, against rounds without a lie that are played once for all of them."""

    channel: Channel[Any]
    held: Contributions
    without: dict[frozenset[ClientId], Vector | None] = field(default_factory=dict)

    @cached_property
    def honest(self) -> PlayedRound:
        return PlayedRound.play(self.channel, self.held)

    def most(self, lie: Lie[Liars]) -> Power:
        """The most that a lie does, told up to three times."""
        found: Power = "nothing"
        for _ in range(TRIES):
            found = max(found, self.of(lie), key=POWERS.index)
            if POWERS.index(found) >= POWERS.index(lie.can):
                break
        return found

    def of(self, lie: Lie[Liars]) -> Power:
        plan = self.honest.plan
        who = lie.who.example(plan)
        own = frozenset(c for c in map(client_of, who) if c is not None)
        played = PlayedRound.play(self.channel, self.held, lie.how(), who)
        others = [c for c in plan.cohort if c not in own]
        if any(self._near(vector, c) for c, vector in played.took.items() if c in others):
            return "read"
        if played.mean is None:
            return "abort"
        if self._one_of(played.mean, others):
            return "read"
        return self._moved(played.mean, own, others)

    def _near(self, vector: Vector, client: ClientId) -> bool:
        row = self.held.rows[client].double()
        return float(torch.cosine_similarity(vector.double(), row, dim=0)) >= NEAR

    def _weights(self, mean: Vector) -> tuple[Vector, float]:
        """The weights [n] of the rows in a vector, and what is left of it, relative to a row."""
        rows = self.held.rows.double()
        weights = torch.linalg.lstsq(rows.T, mean[:, None]).solution[:, 0]
        return weights, float((mean - weights @ rows).norm()) / LENGTH

    def _one_of(self, mean: Vector, others: Sequence[ClientId]) -> bool:
        """Whether a result less what the liars sent is one update of somebody else."""
        weights, left = self._weights(mean)
        heavy: list[float] = sorted(weights[list(others)].abs().tolist(), reverse=True)
        return left <= CLOSE * heavy[0] and heavy[0] > ALONE * sum(heavy[1:2])

    def _alone(self, own: frozenset[ClientId]) -> Vector | None:
        """The mean [d] of an honest round in which some clients do not show up."""
        if own not in self.without:
            self.without[own] = PlayedRound.play(self.channel, self.held, absent=own).mean
        return self.without[own]

    def _moved(self, mean: Vector, own: frozenset[ClientId], others: Sequence[ClientId]) -> Power:
        before = self.honest.mean
        alone = self._alone(own) if own else before
        if any(
            as_it_was is not None
            and float((mean - as_it_was).norm()) <= CLOSE * float(as_it_was.norm())
            for as_it_was in (before, alone)
        ):
            return "nothing"
        n = len(others) + len(own)
        if own and alone is not None:
            sent = n * mean - len(others) * alone
            if float(sent.norm()) <= len(own) * L2 * (1 + CLOSE):
                return "nothing"
        weights, left = self._weights(mean)
        most = 1.0 if before is None else max(float(self._weights(before)[0].sum()), 1.0)
        made_of_them = left <= CLOSE and float(weights.min()) >= -CLOSE
        return "choose" if made_of_them and float(weights.sum()) <= most * (1 + CLOSE) else "shift"


def who_reads(
    channel: Channel[Any], coalitions: Sequence[Collection[PartyId]]
) -> list[tuple[frozenset[ClientId], frozenset[ClientId]]]:
    """For each coalition the clients whose single update it reads: as the record says, and as
    `Channel.decode` computes from its mail of one honest round.
    """
    played = PlayedRound.play(channel, contributions())
    said: Guarantee[Liars] = channel.guarantee
    return [(said.victims(who, played.plan), played.rows_of(who)) for who in coalitions]


def small_coalitions(channel: Channel[Any], most: int, n: int = N) -> list[frozenset[PartyId]]:
    """All coalitions of up to ``most`` parties of a played round; the least that the channel's
    record says read; these with one party fewer, and with a tap in the server's place.
    """
    parties = [OUTSIDER, "server", *channel.helpers, *map(client_party, range(n))]
    some = [frozenset(c) for k in range(1, most + 1) for c in combinations(parties, k)]
    for coalition in channel.guarantee.reads:
        least = coalition.example(_plan(n, D))
        some += [least, least - {"server"} | {OUTSIDER}, *(least - {party} for party in least)]
    return [who for who in dict.fromkeys(some) if who]


def check_guarantee(channel: Channel[Any], most: int = 2) -> list[str]:
    """Where a channel's record is not what its parties do, in sentences; nothing where it is right.

    Every lie is played and measured: one that does more than the record says and one that does less
    are both wrong. Every coalition of up to ``most`` parties must read whose updates the record
    says, no more and no fewer.
    """
    wrong, measure = [], _Measure(channel, contributions())
    for lie in channel.guarantee.lies:
        met = measure.most(lie)
        if met != lie.can:
            wrong.append(f"{lie.who.describe()} {lie.does}: says '{lie.can}', and met '{met}'")
    coalitions = small_coalitions(channel, most)
    for who, (said, met_rows) in zip(coalitions, who_reads(channel, coalitions), strict=True):
        if bool(said) != bool(met_rows) or not said <= met_rows:
            wrong.append(
                f"{', '.join(sorted(who))}: said to read {sorted(said)}, and reads"
                f" {sorted(met_rows)}"
            )
    return wrong


def what_noise_is_left(
    mechanism: Mechanism | RingNoise | WithMemory,
    lie: Lie[Mechanism] | Lie[RingNoise] | Lie[WithMemory],
    d: int = 4096,
) -> Power:
    """What comes of a lie about noise, in one release of `N` contributions of zeros: ``read`` where
    less than a tenth of the honest deviation is left, else ``nothing``.

    Distributed noise is planned for one honest contribution fewer than there are.

    >>> from privfl.dp import Gaussian
    >>> [what_noise_is_left(Gaussian(1.0), lie) for lie in Gaussian(1.0).guarantee.lies]
    ['read']
    """
    liar, who = lie.how(), lie.who.example(_plan(N, d))
    honest, left = (_deviation(mechanism, told, who, d) for told in (mechanism, liar))
    return "read" if left < 0.1 * honest else "nothing"


def _deviation(
    mechanism: Mechanism | RingNoise | WithMemory,
    liar: Mechanism | RingNoise | WithMemory,
    who: Collection[PartyId],
    d: int,
) -> float:
    """The deviation of what is released when some parties use another mechanism."""
    noise, unit = SeededNoise(0), 1000.0
    told = [liar if client_party(i) in who else mechanism for i in range(N)]
    if isinstance(mechanism, RingNoise):
        zeros = np.zeros(d, dtype=np.int64)
        sums = [t.add(zeros, unit, N - 1, noise) for t in told if isinstance(t, RingNoise)]
        return float(np.sum(sums, axis=0).std())
    shares = [
        t.at(0).share(torch.zeros(d), Sensitivity(1.0), N, noise)[0]
        for t in told
        if isinstance(t, Mechanism)
    ]
    last = liar if "server" in who else mechanism
    if isinstance(last, WithMemory):
        run = last.over(Participation(rounds=1, most=1))
        return float(run.release(torch.zeros(d), Sensitivity(1.0), run.init(d), noise)[0].std())
    if not isinstance(last, Mechanism):
        raise ConfigError("a lie about noise is told by a mechanism of the same kind.")
    mean = torch.stack(shares).mean(dim=0)
    return float(last.at(0).release(mean, Sensitivity(1.0), N, noise)[0].std())
