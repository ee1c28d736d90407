"""Lies and coalitions, played through the real parties of a channel and measured: what a record
says of them is compared with what came of it.

A lie is played in a round of a few clients whose updates point in different directions. What the
round then published is written as a combination of these updates (least squares), and the least
power that explains the combination is what the lie did.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch

from privfl.core import (
    OUTSIDER,
    Channel,
    ClientId,
    ConfigError,
    Guarantee,
    Liars,
    Lie,
    Mechanism,
    Participation,
    PartyId,
    Power,
    RingNoise,
    SeededNoise,
    Sensitivity,
    WithMemory,
    client_party,
)
from privfl.testing.played_rounds import (
    Contributions,
    D,
    N,
    PlayedRound,
    contributions,
    plan_of,
)
from privfl.testing.told_lies import LiesTold


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
    return LiesTold(channel, held or contributions()).most(lie).power


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
        least = coalition.example(plan_of(n, D))
        some += [least, least - {"server"} | {OUTSIDER}, *(least - {party} for party in least)]
    return [who for who in dict.fromkeys(some) if who]


def check_guarantee(channel: Channel[Any], most: int = 2) -> list[str]:
    """Where a channel's record is not what its parties do, in sentences; nothing where it is right.

    Every lie is played and measured: one that does more than the record says and one that does less
    are both wrong. Every coalition of up to ``most`` parties must read whose updates the record
    says, no more and no fewer.
    """
    wrong, measure = [], LiesTold(channel, contributions())
    for lie in channel.guarantee.lies:
        met = measure.most(lie).power
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
    liar, who = lie.how(), lie.who.example(plan_of(N, d))
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
