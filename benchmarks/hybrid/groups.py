"""Secure aggregation in groups beside one sum over all."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.harness import Row, cost, gain, interleaved
from benchmarks.hybrid.rounds import Rounds, bounded
from privfl.core import RoundPlan, client_party
from privfl.crypto import SecAgg
from privfl.hybrid import BucketedSecAgg


def bucketed(quick: bool) -> Iterator[Row]:
    """A whole round of 60 clients with 100k parameters, in groups, against one sum over them
    all.
    """
    sent = bounded(60, 100_000)
    plain = Rounds(SecAgg(), sent)
    for size in (2, 3, 5, 10):
        grouped = Rounds(BucketedSecAgg(size=size), sent)
        found = interleaved({"ours": grouped, "plain": plain}, 2 if quick else 5, time.process_time)
        yield cost(
            f"groups of {size}",
            "plain SecAgg",
            "CPU s, round of 60",
            found["ours"],
            found["plain"],
            target=1 / 1.2,
        )
        yield cost(
            f"groups of {size}",
            "plain SecAgg",
            "MB, round of 60",
            grouped.sent_bytes / 1e6,
            plain.sent_bytes / 1e6,
        )


def groups(quick: bool) -> Iterator[Row]:
    """What a group size buys of 50 clients: liars stood wherever they sit, and honest clients
    opened when the server and 10 collude.
    """
    n, rounds = 50, 1_000 if quick else 10_000
    colluding = {"server", *map(client_party, range(10))}
    found = {}
    for size in (2, 3, 5, 10):
        channel, opened = BucketedSecAgg(size=size), 0
        said = channel.guarantee
        for number in range(rounds):
            plan = RoundPlan(number, tuple(range(n)), 1, 1.0, session=b"benchmark")
            opened += len(said.victims(colluding, plan))
        found[size] = (float(channel.buckets.max_byzantine(n)), max(opened, 1) / rounds)
        yield gain(
            f"groups of {size}", "groups of 2", "liars stood of 50", found[size][0], found[2][0]
        )
        yield cost(
            f"groups of {size}",
            "groups of 2",
            "clients opened a round, 10 collude",
            found[size][1],
            found[2][1],
        )
