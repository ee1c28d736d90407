"""FLTrust between two servers and a dealer, each in a process of its own: CPU seconds and memory by
process, while rows stream through in blocks.
"""

from __future__ import annotations

import multiprocessing
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Row, cost
from benchmarks.hybrid.two_servers import SECURITIES, SERVERS
from privfl.aggregators import FLTrust
from privfl.core import (
    Abort,
    Bounded,
    Context,
    InformedServer,
    Opened,
    Party,
    RoundPlan,
    Total,
    Vector,
    client_party,
)
from privfl.crypto.enrolled import Enrolled
from privfl.hybrid import TwoServer
from privfl.hybrid.two_server import Security
from privfl.hybrid.two_server.tampering import First

SIZES: Mapping[tuple[int, int], tuple[float, float | None]] = {
    (100, 1_000_000): (10.0, 1.0),
    (1000, 20_000): (6.0, None),
}
"""Rows and values of a round: how many CPU seconds and GB a process may take."""
CLOSE = 0.01


@dataclass(frozen=True, slots=True)
class Spent:
    """What one process took: CPU seconds, and the most memory that it had at a time, in bytes."""

    seconds: float
    memory: int
    error: str = ""
    mean: Vector | None = None


def _root(d: int) -> Vector:
    return 0.9 * torch.randn(d, generator=torch.Generator().manual_seed(1)) / d**0.5


def _row(client: int, d: int) -> Vector:
    """One client's update: it has something of the root's direction, and a norm under 1."""
    drawn = torch.randn(d, generator=torch.Generator().manual_seed(100 + client)) / d**0.5
    row = drawn + _root(d)
    return 0.9 * row / row.norm()


def _plain(n: int, d: int) -> Vector:
    """The rule's result [d] in the clear, row by row."""
    root = _root(d)
    total, mass = torch.zeros(d), 0.0
    for client in range(n):
        row = _row(client, d)
        trust = max(0.0, float(torch.cosine_similarity(row, root, dim=0)))
        total += trust * row * (root.norm() / row.norm())
        mass += trust
    return total / mass


def _memory() -> int:
    """The most that this process had in memory at a time."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _serve(
    who: str,
    enter: Any,
    clients: Connection,
    letters: int,
    peers: Mapping[str, Connection],
    control: Connection,
) -> None:
    """One server or the dealer: it hears its clients, then talks to the others until it is told to
    stop. What it writes is sent by a thread, because two that write to each other would wait.
    """
    began = time.process_time()
    leaving: queue.Queue[tuple[str, Any]] = queue.Queue()

    def send() -> None:
        while True:
            to, body = leaving.get()
            peers[to].send_bytes(body)

    threading.Thread(target=send, daemon=True).start()
    party: Party = enter()
    error = ""

    def step(mail: Mapping[str, bytes]) -> None:
        for to, body in party.step(mail).items():
            leaving.put((to, body))

    try:
        step({})
        heard = {}
        for client in range(letters):
            name, body = client_party(client), clients.recv_bytes()
            if who == "server/1":  # it speaks once it has heard everybody
                heard[name] = body
            else:
                step({name: body})
        if heard:
            step(heard)
        names = {connection: name for name, connection in peers.items()}
        done = False
        while not done:
            for ready in wait([control, *names]):
                if ready is control:
                    done = bool(control.recv())
                elif isinstance(ready, Connection):
                    step({names[ready]: ready.recv_bytes()})
            done = done or _result(party) is not None
    except Abort as abort:
        error = str(abort)
    found = _result(party)
    mean = None if found is None else found.what.mean()
    control.send(Spent(time.process_time() - began, _memory(), error, mean))
    control.recv()


def _result(party: Party) -> Opened[Total] | None:
    return party.result if isinstance(party, First) else None


def played(n: int, d: int, security: Security) -> dict[str, Spent]:
    """One round of n rows of d values, each of the three in a process of its own; the clients speak
    in turn.

    Raises:
        RuntimeError: the round failed, or its result is another than the rule's.
    """
    fork = multiprocessing.get_context("fork")
    root = _root(d)
    channel = TwoServer(FLTrust(lambda context: root), reveal="scores", security=security)
    plan = RoundPlan(0, tuple(range(n)), d, l2=1.0, session=b"apart")
    everybody = Enrolled.fresh(channel, plan.cohort)

    def first() -> Party:
        if isinstance(everybody.server, InformedServer):
            everybody.server.inform(Context(plan, torch.zeros(d), torch.Generator()))
        return everybody.server.enter(plan)

    enter = {who: lambda who=who: everybody.helpers[who].enter(plan) for who in SERVERS[1:]}
    enter["server"] = first
    pairs = [(a, b) for i, a in enumerate(SERVERS) for b in SERVERS[i + 1 :]]
    peers: dict[str, dict[str, Connection]] = {who: {} for who in SERVERS}
    for a, b in pairs:
        peers[a][b], peers[b][a] = fork.Pipe()
    controls, up, running = {}, {}, []
    for who in SERVERS:
        controls[who], theirs = fork.Pipe()
        heard, up[who] = fork.Pipe(duplex=False)
        letters = n if who != "dealer" or security == "malicious" else 0
        arguments = (who, enter[who], heard, letters, peers[who], theirs)
        running.append(fork.Process(target=_serve, args=arguments, daemon=True))
    for process in running:
        process.start()
    for client, member in everybody.clients.items():
        said = member.enter(plan, Bounded(client, _row(client, d), 1.0)).step({})
        for to, body in said.items():
            up[to].send_bytes(body)
    spent = {"server": controls["server"].recv()}
    for who in SERVERS[1:]:
        controls[who].send("stop")
        spent[who] = controls[who].recv()
    for who, process in zip(SERVERS, running, strict=True):
        controls[who].send("end")
        process.join()
    mean, wanted = spent["server"].mean, _plain(n, d)
    if mean is None or float((mean - wanted).norm()) > CLOSE * float(wanted.norm()):
        raise RuntimeError(f"the round failed: { {who: one.error for who, one in spent.items()} }")
    return spent


def _least(one: Mapping[str, Spent], other: Mapping[str, Spent]) -> dict[str, Spent]:
    return {who: min(one[who], other[who], key=lambda spent: spent.seconds) for who in one}


def fltrust_blocks(quick: bool) -> Iterator[Row]:
    """FLTrust with open scores of many rows and of long ones, between processes that pipes connect:
    what each of the three takes, semi-honest and enforced.
    """
    for (n, d), (seconds, memory) in SIZES.items():
        size = (n // 4, d // 4) if quick else (n, d)
        found = {security: played(*size, security) for security in SECURITIES}
        for security in () if quick else SECURITIES:  # a busy machine takes from one or the other
            found[security] = _least(found[security], played(*size, security))
        for security, spent in found.items():
            name = f"fltrust by blocks, {security}: n={size[0]}, d={size[1]}"
            goal = None if security == "malicious" else 1.0
            for who, one in spent.items():
                yield cost(name, "goal", f"CPU s, {who}", one.seconds, seconds, target=goal)
            for who, one in spent.items():
                gigabytes, aim = one.memory / 1e9, None if memory is None else goal
                yield cost(name, "goal", f"GB, {who}", gigabytes, memory or 1.0, target=aim)
        one, three = (sum(s.seconds for s in found[security].values()) for security in SECURITIES)
        name = f"fltrust by blocks, malicious: n={size[0]}, d={size[1]}"
        yield cost(name, "semi_honest", "CPU s, servers and dealer", three, one, target=1 / 3)
