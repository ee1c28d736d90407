"""Norms proved to two servers, beside the budget for them and beside plain additive sharing.

``python -m benchmarks.pine [--quick] [--json] [--only CASE]``. CPU time of one thread; the same
proof serves every repeat, the coins are fresh.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.harness import Row, cost, interleaved, main
from privfl.core import Bounded, RoundPlan, client_party, drive
from privfl.crypto import AdditiveSharing
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.sharing.additive import split
from privfl.crypto.sharing.pine.parameters import KEY, parameters_of
from privfl.crypto.sharing.pine.vdaf import HELPER, LEADER, NONCE

CLIENT, SERVER, UPLOAD = 0.3, 0.1, 1.05
"""What d = 100k may cost: CPU seconds of a client and of each server for a client, and bytes over
those of the bare 64-bit values.
"""


def _update(d: int) -> Bounded:
    vector = torch.randn(d, generator=torch.Generator().manual_seed(0))
    return Bounded(1, 0.99 * vector / vector.norm(), 1.0)


def proofs(quick: bool) -> Iterator[Row]:
    """One client's proof and its verification at 10k, 100k and 1M values."""
    for d in (10_000, 100_000, 1_000_000):
        plan = RoundPlan(0, (1, 2), d=d, l2=1.0)
        now = parameters_of(AdditiveSharing(proof="pine"), plan)
        update, key, nonce = _update(d), bytes(KEY), bytes(NONCE)
        small = np.zeros(d + 1, dtype=np.uint32)
        vector, weight = now.encode(update)

        def shard(now=now, vector=vector, weight=weight, nonce=nonce):
            return now.pine.shard(vector, nonce, secrets.token_bytes(now.pine.rand), weight)

        report = shard()

        def prepare(role, share, now=now, key=key, nonce=nonce, public=report.public):
            return now.pine.prepare(role, key, nonce, public, share)

        found = interleaved(
            {
                "client": lambda now=now, update=update, shard=shard: (now.encode(update), shard()),
                "server": lambda p=prepare, report=report: p(LEADER, report.leader),
                "server/1": lambda p=prepare, report=report: p(HELPER, report.helper),
                "split": lambda small=small: split(small, 2),
            },
            2 if quick else 5,
            time.process_time,
        )
        halves = (prepare(LEADER, report.leader), prepare(HELPER, report.helper))
        if not now.pine.holds(*((half.said, half.seeds) for half in halves)):
            raise RuntimeError("an honest proof does not hold")
        wanted = d == 100_000
        case, target = f"d={d:,}", 1 if wanted else None
        for who, budget in (("client", CLIENT), ("server", SERVER), ("server/1", SERVER)):
            yield cost(
                case, f"budget of {budget} s at 100k", f"CPU s, {who}", found[who], budget, target
            )
        yield cost(
            case, "additive shares, 32 bits", "CPU s, client", found["client"], found["split"]
        )
        sent = len(report.leader) + len(report.helper) + 2 * len(report.public)
        yield cost(case, "1.05 promised at 100k", "bytes up / 8d", sent / 8 / d, UPLOAD, target)
        yield cost(
            case,
            "the vector",
            "bytes a client between the servers, each way",
            float(now.said),
            8.0 * d,
        )


def rounds(quick: bool) -> Iterator[Row]:
    """Whole rounds of 20 clients through the real parties, beside sharing without proofs."""
    d, clients = 100_000, tuple(range(1, 21))
    found = {}
    for name, channel in (
        ("proved", AdditiveSharing(proof="pine")),
        ("plain", AdditiveSharing()),
    ):
        updates = {i: Bounded(i, _update(d).delta, 1.0) for i in clients}
        everybody, best = Enrolled.fresh(channel, clients), float("inf")
        for number in range(1 if quick else 3):
            plan = RoundPlan(number, clients, d=d, l2=1.0)
            began = time.process_time()
            parties = {
                client_party(i): member.enter(plan, updates[i])
                for i, member in everybody.clients.items()
            }
            parties |= {who: one.enter(plan) for who, one in everybody.helpers.items()}
            outcome = drive(everybody.server.enter(plan), parties)
            best = min(best, time.process_time() - began)
            if outcome.opened is None or outcome.opened.what.count != len(clients):
                raise RuntimeError("the round failed")
        found[name] = best, float(outcome.bytes_sent("client/1"))
    for place, metric in enumerate(("CPU s, everybody", "bytes a client sends")):
        yield cost(
            "20 clients, d=100,000",
            "additive sharing",
            metric,
            found["proved"][place],
            found["plain"][place],
        )


CASES = {"proofs": proofs, "rounds": rounds}

if __name__ == "__main__":
    main("pine", CASES)
