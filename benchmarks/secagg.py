"""Secure aggregation against Flower's SecAgg+, against the bare keystream, and how it grows.

``python -m benchmarks.secagg [--quick] [--json] [--only CASE]``. Times are CPU time of all threads.
The Flower cases make ``.venv-flower`` on first use and run both sides in it, turn by turn, with the
same n, k, t, d and resolution.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from benchmarks import flower_env
from benchmarks.harness import Row, cost, main, say
from benchmarks.secagg_kernels import compiled, keystream
from privfl.core import (
    NO_FAULTS,
    Bounded,
    Faults,
    Outcome,
    RoundPlan,
    client_party,
    drive,
    drive_all,
)
from privfl.crypto import AdditiveSharing, OneTimeRLWE, SecAgg
from privfl.crypto.enrolled import Enrolled

PEER = "Flower SecAgg+"


def _flower(n: int, d: int, k: int, t: int, drops: int, repeats: int) -> dict[str, float]:
    return _in_flower("secagg_flower", n, d, k, t, drops, repeats)


def _in_flower(module: str, *given: int) -> Any:
    """What a script prints in Flower's environment."""
    command = [str(flower_env.python()), "-m", f"benchmarks.peers.{module}", *map(str, given)]
    done = subprocess.run(
        command,
        env=flower_env.environment(),
        capture_output=True,
        text=True,
        check=False,
        cwd=flower_env.ROOT,
    )
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        raise ImportError("Flower's side of the benchmark failed")
    return json.loads(done.stdout.strip().splitlines()[-1])


def large(quick: bool) -> Iterator[Row]:
    """30 clients, 1M parameters, 20 neighbours, 3 drop out after key sharing."""
    found = _flower(30, 1_000_000, 20, 11, 3, 2 if quick else 4)
    for part, target in (("client", 6), ("server", None), ("round", 10)):
        yield cost(
            "1M parameters",
            PEER,
            f"CPU s, {part}",
            found[f"ours_{part}"],
            found[f"theirs_{part}"],
            target,
        )


def many(quick: bool) -> Iterator[Row]:
    """100 clients, 10k parameters, 50 neighbours, 10 drop out after key sharing."""
    found = _flower(100, 10_000, 50, 26, 10, 1 if quick else 2)
    for part, target in (("client", None), ("server", 300), ("round", 35)):
        yield cost(
            "10k parameters",
            PEER,
            f"CPU s, {part}",
            found[f"ours_{part}"],
            found[f"theirs_{part}"],
            target,
        )


def _updates(n: int, d: int) -> dict[int, Bounded]:
    vectors = torch.randn(16, d, generator=torch.Generator().manual_seed(0))
    vectors *= 0.99 / vectors.norm(dim=1, keepdim=True)
    return {i: Bounded(i, vectors[i % 16], 1.0) for i in range(1, n + 1)}


def _round(
    channel: SecAgg | AdditiveSharing,
    n: int,
    d: int,
    faults: Faults = NO_FAULTS,
    number: int = 0,
    met: bool = False,
) -> tuple[float, Outcome]:
    """CPU seconds of everything in one round, in one process. ``met``: all clients have agreed on
    what their lasting keys give, as they do in the rounds of a session one after the other.
    """
    updates, plan = _updates(n, d), RoundPlan(number, tuple(range(1, n + 1)), d=d, l2=1.0)
    now = Enrolled.fresh(channel, updates)
    members, helpers, server = now.clients, now.helpers, now.server
    if met:
        boxes = [now.keys[client_party(i)].public.box for i in updates]
        for member in members.values():
            for box in boxes:
                member.lasting.agreed(box)
    began = time.process_time()
    parties = {client_party(i): member.enter(plan, updates[i]) for i, member in members.items()}
    parties |= {who: helper.enter(plan) for who, helper in helpers.items()}
    outcome = drive(server.enter(plan), parties, faults)
    seconds = time.process_time() - began
    if outcome.opened is None:
        raise RuntimeError(f"the round failed: {list(outcome.aborts.values())[:3]}")
    exact = sum(updates[i].delta.double() for i in outcome.opened.survivors)
    if not torch.allclose(
        outcome.opened.what.value.double(), exact, atol=n / channel.code.scale(plan)
    ):
        raise RuntimeError("the sum is wrong")
    return seconds, outcome


def _leaving(n: int, share: float) -> Faults:
    """That share of the cohort falls silent at each of the four stages, spread over the cohort."""
    each = int(n * share)
    order = np.random.default_rng(0).permutation(np.arange(1, n + 1))
    return Faults(
        silent_from={
            client_party(int(who)): 2 * (i // each) for i, who in enumerate(order[: 4 * each])
        }
    )


def scale(quick: bool) -> Iterator[Row]:
    """1,000 clients with 5 % lost at every stage; 10,000 clients."""
    channel = SecAgg(graph="k_regular", corrupt=0.05, drop=0.05)
    say(f"  1,000 clients: {channel.degree(1000)}")
    seconds, outcome = _round(channel, 1000, 100_000, _leaving(1000, 0.05))
    say(f"  survivors: {outcome.opened.what.count}")
    yield cost(
        "n=1,000 d=100k, 5 % drops at every stage",
        "budget of 15 s",
        "CPU s, everybody",
        seconds,
        15.0,
        target=1,
    )
    say(f"  10,000 clients: {channel.degree(10_000)}")
    seconds, outcome = _round(channel, 10_000, 1000)
    yield Row("n=10,000 d=1,000", "none", "CPU s, everybody", seconds, seconds, 1.0)


def curve(quick: bool) -> Iterator[Row]:
    """Cost against n, the complete graph against the computed degree."""
    for n in (50, 100, 200, 400):
        sparse, _ = _round(SecAgg(graph="k_regular", corrupt=0.05, drop=0.05), n, 10_000)
        whole, _ = _round(SecAgg(graph="complete"), n, 10_000)
        yield cost(f"n={n} d=10k", "our complete graph", "CPU s, everybody", sparse, whole)


def size(quick: bool) -> Iterator[Row]:
    """Bytes a client sends: 1M parameters, 20 share holders, active mode."""
    for ring, promised in ((24, 3.01), (32, 4.01)):
        channel = SecAgg(mode="active", graph=20, ring=ring, corrupt=0.0)
        _, outcome = _round(channel, 24, 1_000_000)
        sent = outcome.bytes_sent("client/1")
        yield cost(
            f"{ring}-bit ring",
            f"{promised} promised",
            "bytes a parameter",
            sent / 1_000_000,
            promised,
            target=1,
        )
        yield cost(
            f"{ring}-bit ring",
            "3,500 promised",
            "bytes of key material",
            sent - channel.code.length(RoundPlan(0, (1, 2), 1_000_000, 1.0)) * ring // 8,
            3500.0,
            target=1,
        )


def active(quick: bool) -> Iterator[Row]:
    """What it costs to stand a server that lies: 1,000 clients, 10k parameters, in turn."""
    n, found, sent = 1000, dict[str, float](), dict[str, float]()
    ways = {"": "semi_honest", "first round": "active", "later": "active"}
    for _ in range(1 if quick else 3):
        for name, mode in ways.items():
            channel = SecAgg(mode=mode, corrupt=0.05, drop=0.05)
            seconds, outcome = _round(channel, n, 10_000, met=name == "later")
            say(f"  {name or mode}: {channel.degree(n)}, {seconds:.2f} s")
            found[name] = min(found.get(name, seconds), seconds)
            sent[name] = outcome.bytes_sent() / n
    case = f"active, n={n} d=10k"
    for name in ("first round", "later"):
        yield cost(case, "semi-honest", f"CPU s, everybody, {name}", found[name], found[""], 1 / 2)
    yield cost(case, "semi-honest", "bytes a client", sent["first round"], sent[""], 1 / 1.3)


def exchanges(quick: bool) -> Iterator[Row]:
    """How often a client speaks in a round."""
    for name, channel, most in (
        ("semi-honest", SecAgg(graph="complete"), 4),
        ("active", SecAgg(graph="complete", mode="active"), 5),
        ("active, keys carried", SecAgg(graph="complete", mode="active", carry=True), 4),
    ):
        updates = _updates(8, 10)
        now = Enrolled.fresh(channel, updates)
        members, server = now.clients, now.server
        for number in range(2):
            plan = RoundPlan(number, tuple(updates), d=10, l2=1.0)
            outcome = drive(
                server.enter(plan),
                {client_party(i): m.enter(plan, updates[i]) for i, m in members.items()},
            )
        count = len(
            {message.exchange for message in outcome.messages if message.sender == "client/1"}
        )
        yield cost(
            name, f"{most} promised", "exchanges a round", float(count), float(most), target=1
        )


def _by_clients(n: int, d: int, gone: int) -> tuple[int, float, float]:
    """A round whose decryptors are drawn among the clients, some of whom leave: its exchanges, the
    CPU seconds of the slowest client, and those of the server.
    """
    channel = OneTimeRLWE(committee="clients", holders=16, threshold=11, corrupt=0.05)
    updates = _updates(n, d)
    now = Enrolled.fresh(channel, updates)
    drive_all({who: member.set_up() for who, member in now.members.items()})
    plan = RoundPlan(0, tuple(updates), d=d, l2=1.0, session=b"benchmark")
    parties = {client_party(i): m.enter(plan, updates[i]) for i, m in now.clients.items()}
    drawn = now.server.draw.drawn
    leaving = Faults(silent_from=dict.fromkeys(drawn[:gone], 2))
    outcome = drive(now.server.enter(plan), parties, leaving)
    if outcome.opened is None or outcome.opened.what.count != n:
        raise RuntimeError(f"the round failed: {list(outcome.aborts.values())[:3]}")
    heard = {m.exchange for m in outcome.messages if m.receiver == "server"}
    slowest = max(outcome.seconds[who] for who in parties)
    return len(heard), slowest, outcome.seconds["server"]


def network(quick: bool) -> Iterator[Row]:
    """Seconds of a round where each exchange takes 100 ms, and where it takes 5 s: exchanges, and
    the CPU seconds of a client and of the server. 100 clients, 10k parameters, drop-outs.
    """
    n, d = 100, 10_000
    found = _flower(n, d, 50, 26, 10, 1)
    ours = {
        "SecAgg": (found["ours_exchanges"], found["ours_client"], found["ours_server"]),
        "one-time keys, decryptors among clients": _by_clients(n, d, gone=4),
    }
    theirs = found["theirs_exchanges"], found["theirs_client"], found["theirs_server"]
    for name, (exchanges, client, server) in ours.items():
        yield cost(name, PEER, "exchanges a round", exchanges, theirs[0])
        for each in (0.1, 5.0):
            times = [count * each + a + b for count, a, b in ((exchanges, client, server), theirs)]
            yield cost(name, PEER, f"s a round, {each:g} s an exchange", *times)
    yield cost(name, "3 promised", "exchanges a round", exchanges, 3.0, target=1)


def attacks_flower(quick: bool) -> Iterator[Row]:
    """The suite's attacks on Flower's own clients, where its messages can say them, and on ours in
    active mode, n = 12: of how many updates the smallest sum is that the server reads (0: it reads
    none); where a client lies, the sum that opens all the same.
    """
    for row in _in_flower("secagg_attacks_flower", 12):
        mine, theirs = row["ours"], float(row["theirs"])
        numbers = [word for word in mine["leaked"].split() if word.isdigit()]
        least = float(min(numbers, key=int, default=mine["leaked"] == "a single update"))
        refused = f"{mine['refused by']}, {mine['at']}"
        say(f"  {row['attack']}: {row['happened']}; ours: {mine['leaked']} ({refused})")
        if row["attack"].startswith("client"):
            ratio = max(least, 1.0) / max(theirs, 1.0)  # no sum counts as a sum of one
            yield Row(row["attack"], PEER, "updates in the sum that opens", least, theirs, ratio)
        else:
            ratio = (least or 12) / (theirs or 12)
            yield Row(row["attack"], PEER, "updates in the smallest sum read", least, theirs, ratio)


def ten_thousand(quick: bool) -> Iterator[Row]:
    """Active, 10,000 clients, 1,000 parameters: minutes; key mail of a client."""
    n, d = 10_000, 1000
    channel = SecAgg(mode="active", corrupt=0.05, drop=0.05)
    say(f"  {channel.degree(n)}")
    seconds, outcome = _round(channel, n, d)
    yield Row(f"active, n={n} d={d}", "none", "CPU s, everybody", seconds, seconds, 1.0)
    vector = channel.code.length(RoundPlan(0, (1, 2), d, 1.0)) * 4
    for way, keys in (
        ("sent", outcome.bytes_sent("client/1") - vector),
        ("received", sum(m.size for m in outcome.messages if m.receiver == "client/1")),
    ):
        yield Row(f"active, n={n}", "none", f"bytes of key mail, {way}", keys, keys, 1.0)


def sharing(quick: bool) -> Iterator[Row]:
    """Additive sharing over two servers beside secure aggregation: 30 clients, 1M parameters."""
    found = {}
    for name, channel in (("sharing", AdditiveSharing()), ("secagg", SecAgg(graph=20))):
        found[name] = min(
            _round(channel, 30, 1_000_000, number=i)[0] for i in range(1 if quick else 3)
        )
    yield cost(
        "two servers, 1M", "our SecAgg, k=20", "CPU s, everybody", found["sharing"], found["secagg"]
    )


CASES = {
    "large": large,
    "many": many,
    "keystream": keystream,
    "compiled": compiled,
    "size": size,
    "active": active,
    "exchanges": exchanges,
    "network": network,
    "attacks_flower": attacks_flower,
    "ten_thousand": ten_thousand,
    "scale": scale,
    "curve": curve,
    "sharing": sharing,
}

if __name__ == "__main__":
    main("secagg", CASES)
