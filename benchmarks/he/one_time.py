"""One-time-pad RLWE in whole rounds beside the multi-party scheme and secure aggregation, and 300
random sums.
"""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Row, cost, gain, say
from privfl.core import (
    Bounded,
    Faults,
    Party,
    PartyId,
    RoundPlan,
    Total,
    client_of,
    client_party,
    drive,
    drive_all,
)
from privfl.crypto import MultiPartyRLWE, OneTimeRLWE, SecAgg
from privfl.crypto.enrolled import Enrolled

D = 1_000_000
GROUPS = [(k, t) for k in range(2, 10) for t in range(k // 2 + 1, k + 1) if t > 1]
"""Every number of decryptors, with every threshold that is more than half of them."""


@dataclass(frozen=True)
class Played:
    """CPU seconds of a whole round by role, and bytes that one client sends."""

    client: float
    server: float
    helpers: float
    up: int

    @property
    def total(self) -> float:
        return self.client + self.server + self.helpers


def rounds(channel: Any, n: int, repeats: int) -> Played:
    """The cheapest of some rounds of a million values, with the channel's defaults."""
    everybody: Enrolled[Any] = Enrolled.fresh(channel, range(n))
    members = everybody.members
    drive_all({who: member.set_up() for who, member in members.items()})
    row = torch.rand(D, generator=torch.Generator().manual_seed(0)) - 0.5
    row = 0.9 * row / row.norm()
    played = []
    for number in range(repeats):
        plan = RoundPlan(number, tuple(range(n)), D, l2=1.0, session=b"benchmark")
        others: dict[PartyId, Party] = {
            client_party(i): everybody.clients[i].enter(plan, Bounded(i, row, 1.0))
            for i in range(n)
        }
        others |= {who: member.enter(plan) for who, member in everybody.helpers.items()}
        outcome = drive(everybody.server.enter(plan), others)
        if outcome.opened is None:
            raise RuntimeError(f"a round of the benchmark opened nothing: {outcome.aborts}")
        clients = sum(s for who, s in outcome.seconds.items() if client_of(who) is not None)
        helpers = sum(outcome.seconds.get(who, 0.0) for who in channel.helpers)
        played.append(
            Played(clients, outcome.seconds["server"], helpers, outcome.bytes_sent(client_party(0)))
        )
    return min(played, key=lambda one: one.total)


def one_time_rlwe(quick: bool) -> Iterator[Row]:
    """Whole rounds of a million values, CPU seconds of all roles and bytes up."""
    repeats = 1 if quick else 3
    found: dict[tuple[str, int], Played] = {}
    cases = {
        "one_time_rlwe": OneTimeRLWE(),
        "secagg, active": SecAgg(mode="active"),
        "secagg": SecAgg(),
        "mp_rlwe": MultiPartyRLWE(),
    }
    for n in (10, 100):
        for name, channel in cases.items():
            if n == 100 and name == "mp_rlwe":
                continue  # 1.6 GB of ciphertexts, and no more than at 10 is to be learnt from it
            one = found[name, n] = rounds(channel, n, repeats)
            say(
                f"{name}, {n} clients: clients {one.client:.2f} s, server {one.server:.2f} s,"
                f" helpers {one.helpers:.2f} s, {one.up / D:.2f} bytes a value up"
            )
    ours = found["one_time_rlwe", 10]
    against = found["mp_rlwe", 10]
    case = "one-time-rlwe"
    yield cost(case, "mp_rlwe", "round of 10, CPU s", ours.total, against.total, 4)
    yield cost(case, "mp_rlwe", "bytes up", ours.up, against.up, 4)
    yield cost(case, "3.1 B a value and 26 kB", "bytes up", ours.up, 3.1 * D + 26_000, 1)
    big = found["one_time_rlwe", 100]
    for name in ("secagg, active", "secagg"):
        few, many = found[name, 10], found[name, 100]
        yield cost(case, name, "round of 10, CPU s", ours.total, few.total)
        yield cost(case, name, "round of 100, CPU s", big.total, many.total, 1)
        yield cost(case, name, "bytes up, 100 clients", big.up, many.up)
    held = {n: server_memory(n) for n in (10, 100)}
    what = "server's memory at 100, MB"
    yield cost(case, "10 of a cohort of 100", what, held[100], held[10], 0.95)


def server_memory(n: int) -> float:
    """Megabytes at the server's peak in a round that ``n`` of a cohort of 100 take part in, where
    messages come one after the other.

    The round is played, its mail put on disk, and given to another party of the same server, so
    that nothing but the server is counted.
    """
    everybody: Enrolled[Total] = Enrolled.fresh(OneTimeRLWE(corrupt=0.0, min_clients=2), range(n))
    drive_all({who: member.set_up() for who, member in everybody.members.items()})
    plan = RoundPlan(0, tuple(range(100)), D, l2=1.0, session=b"memory")
    row = torch.full((D,), 1e-4)
    with tempfile.TemporaryDirectory() as folder:
        server: Any = everybody.server.enter(plan)
        helpers = {who: member.enter(plan) for who, member in everybody.helpers.items()}
        files = {}
        for i, member in everybody.clients.items():
            sent = member.enter(plan, Bounded(i, row, 1.0)).step({})["server"]
            files[client_party(i)] = Path(folder) / str(i)
            files[client_party(i)].write_bytes(sent)
            server.take({client_party(i): sent})
        answers: list[Mapping[PartyId, bytes]] = [
            {who: bytes(helper.step({})["server"]) for who, helper in helpers.items()}
        ]
        for _ in range(2):
            asked = server.step(answers[-1])
            answers.append(
                {who: bytes(helpers[who].step({"server": b})["server"]) for who, b in asked.items()}
            )
        del helpers, server, sent, asked
        tracemalloc.start()
        again: Any = everybody.server.enter(plan)
        for who, path in files.items():
            again.take({who: path.read_bytes()})
        for answer in answers:
            again.step(answer)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    if again.result is None or again.result.what.count != n:
        raise RuntimeError("the server that was watched opened nothing")
    return peak / 1e6


def random_sum(seed: int, most: int = 1300) -> str:
    """Play one round with random values, cohort, bits, decryptors and drop-outs, and say what was
    wrong; nothing where the sum is exact.
    """
    rng = np.random.default_rng(seed)
    k, t = GROUPS[seed % len(GROUPS)]
    n = int(np.exp(rng.uniform(np.log(2), np.log(most + 1)))) if seed % 100 else most
    d, bits = int(rng.integers(1, 400)), int(rng.integers(2, 21))
    secrets = ("binomial", "gaussian")[seed // len(GROUPS) % 2]
    channel = OneTimeRLWE(bits=bits, holders=k, threshold=t, secrets=secrets)
    everybody: Enrolled[Total] = Enrolled.fresh(channel, range(n))
    drive_all({who: member.set_up() for who, member in everybody.members.items()})
    plan = RoundPlan(int(rng.integers(100)), tuple(range(n)), d, l2=1.0, session=b"random")
    rows = rng.integers(-channel.code.top, channel.code.top + 1, (n, d))
    if seed % 7 == 0:
        rows[:] = (-1) ** seed * channel.code.top
    scale = channel.code.scale(plan)
    others: dict[PartyId, Party] = {who: m.enter(plan) for who, m in everybody.helpers.items()}
    for i, member in everybody.clients.items():
        update = Bounded.claimed(i, torch.from_numpy(rows[i] / scale).double(), 1.0)
        others[client_party(i)] = member.enter(plan, update)
    gone = rng.permutation(n)[: rng.integers(0, n - channel.quorum(n) + 1)]
    silent = {client_party(int(i)): int(rng.integers(0, 3)) for i in gone}
    spare = rng.permutation(k)[: rng.integers(0, k - t + 1)]
    silent |= {f"decryptor/{i}": int(rng.integers(0, 5)) for i in spare}
    outcome = drive(everybody.server.enter(plan), others, Faults(silent_from=silent))
    setting = f"seed {seed}: n={n} d={d} bits={bits} {t} of {k} {secrets}"
    if outcome.opened is None:
        return f"{setting}: opened nothing: {outcome.aborts}"
    there = [i for i in range(n) if silent.get(client_party(i), 1) > 0]
    if outcome.opened.survivors != tuple(there):
        return f"{setting}: not the clients that spoke"
    total = outcome.opened.what
    exact = channel.code.decode(
        np.append(rows[there].sum(axis=0), len(there) * channel.code.top), plan, len(there)
    )
    if not torch.equal(total.value, exact.value) or total.weight != exact.weight:
        return f"{setting}: another sum"
    return ""


def one_time_sums(quick: bool) -> Iterator[Row]:
    """300 random sums through the real parties: cohorts of 2 to 1300, 2 to 20 bits, every number
    and threshold of decryptors, clients and decryptors that leave.
    """
    count = 30 if quick else 300
    wrong = [said for seed in range(count) if (said := random_sum(seed))]
    for said in wrong:
        say(said)
    exact = float(count - len(wrong))
    yield gain("one-time-rlwe", "all", "random sums that are exact", exact, float(count), 1)
