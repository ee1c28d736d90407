"""The benchmark of the network, in Flower's own environment: ``python -m
benchmarks.peers.network_run CASE QUICK`` prints a line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmarks.harness import say
from benchmarks.peers import network_bits, network_deaths
from benchmarks.peers.network_app import STOCK, TURNS
from privfl.config import Config, load
from privfl.flower import local, superlink
from privfl.flower.wire import Patience

PATIENCE = Patience(120, 60, 60)
APP = {
    **superlink.APP,
    "pyproject.toml": superlink.APP["pyproject.toml"].replace(
        'config = ""\n', f'config = ""\n{TURNS} = 0\nasked = 0\n'
    ),
    "privfl_net/server_app.py": (
        "from benchmarks.peers.network_app import server_app\n\napp = server_app()\n"
    ),
    "privfl_net/client_app.py": (
        "from benchmarks.peers.network_app import client_app\n\napp = client_app()\n"
    ),
}


def config_of(clients: int, rounds: int, channel: Any, hidden: int | None = None) -> Config:
    model = {} if hidden is None else {"model": {"name": "mlp", "hidden": [hidden]}}
    return load(
        {
            "data": {"name": "digits", "clients": clients},
            "rounds": rounds,
            "repeatable": True,
            "executor": "sequential",
            "training": {"name": "sgd", "weighting": "uniform", "steps": 2},
            "bound": {"name": "clip", "l2": 1.0},
            "channel": channel,
            **model,
        }
    )


@contextmanager
def running(config: Config) -> Iterator[local.LocalProcesses]:
    """A federation for a config; the SuperLink runs, its nodes do not yet."""
    with tempfile.TemporaryDirectory(prefix="privfl-benchmark-") as name:
        home = Path(name) / "fed"
        local.made(config, home)
        processes = local.LocalProcesses(home)
        processes.start("server", "server")
        try:
            local.wait_for(home / "server")
            yield processes
        finally:
            processes.end()


def nodes_in(home: Path) -> list[str]:
    return sorted(path.parent.name for path in home.glob("*/node.yaml"))


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def message(quick: bool) -> dict[str, Any]:
    """Seconds of an empty message and its answer, a resident node and a stock one in turn."""
    with running(config_of(2, 1, "plain")) as processes:
        home = processes.folder
        address = "{}:{}".format(*local.address_of(home / "server"))
        processes.start("client-0", "node")
        command = [
            *(str(Path(sys.executable).parent / "flower-supernode"), "--superlink", address),
            *("--root-certificates", str(home / "client-1" / "ca.crt")),
            *("--auth-supernode-private-key", str(home / "client-1" / "node.key")),
            *("--port", str(local._free_port())),
        ]
        with (home / "client-1.log").open("wb") as log:
            stock = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=superlink.environment(home / "client-1"),
                start_new_session=True,
            )
        try:
            told = {"home": str(home / "server"), "out": str(home / "seconds.json")}
            more = {TURNS: 2 if quick else 5, "asked": 3}
            superlink.played(address, home / "server" / "ca.crt", told | more, APP)
        finally:
            os.killpg(stock.pid, signal.SIGKILL)
            stock.wait()
        found = json.loads((home / "seconds.json").read_text())
        return {"resident": median(found["client/0"]), "stock": median(found[STOCK])}


def secagg(quick: bool) -> dict[str, Any]:
    """Seconds of the rounds of three nodes, of a small model and of one of 100k parameters."""
    found = {}
    for name, hidden in (("650", None), ("100k", 1333)):
        config = config_of(3, 5 if quick else 10, {"name": "secagg", "mode": "active"}, hidden)
        with running(config) as processes:
            for node in nodes_in(processes.folder):
                processes.start(node, "node")
            out = processes.folder / "run"
            local.play(processes.folder / "server", config, out, patience=PATIENCE)
            found[name] = median([sum(one["seconds"].values()) for one in records(out)[1:]])
    return found


class Counting:
    """A relay of TCP in front of a SuperLink, which counts what nodes send and are sent."""

    def __init__(self, host: str, port: int) -> None:
        self.to = host, port
        self.up = self.down = 0
        self.socket = socket.create_server((host, 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self.socket.accept()
            try:
                far = socket.create_connection(self.to)
            except OSError:  # a node looks for a SuperLink that has ended
                near.close()
                continue
            for source, sink, up in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._carry, args=(source, sink, up), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        try:
            while block := source.recv(1 << 16):
                if up:
                    self.up += len(block)
                else:
                    self.down += len(block)
                sink.sendall(block)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return


def sizes(quick: bool) -> dict[str, Any]:
    """Bytes of a round of three nodes at 100k parameters, as TCP carries them from nodes and to
    them (TLS, HTTP and looks for mail included), beside what the protocol counts: runs of more and
    of fewer rounds, so that what a run costs by itself falls out.
    """
    found: dict[str, Any] = {}
    more, fewer = (5, 2) if quick else (8, 2)
    for name in ("plain", "secagg"):
        channel = {"name": name} | ({"mode": "active"} if name == "secagg" else {})
        config = config_of(3, more, channel, 1333)
        with running(config) as processes:
            home = processes.folder
            relay = Counting(*local.address_of(home / "server"))
            for node in nodes_in(home):
                path = home / node / "node.yaml"
                settings = yaml.safe_load(path.read_text())
                settings["superlink"] = f"{local.HOST}:{relay.port}"
                path.write_text(yaml.safe_dump(settings))
                processes.start(node, "node")
            counts: list[tuple[int, int]] = []
            for rounds in (fewer, fewer, more):  # the first one also connects
                before = relay.up, relay.down
                out = home / f"run-{len(counts)}"
                few = config_of(3, rounds, channel, 1333)
                local.play(home / "server", few, out, patience=PATIENCE)
                counts.append((relay.up - before[0], relay.down - before[1]))
            per = [(b - a) / (more - fewer) for a, b in zip(counts[1], counts[2], strict=True)]
            told = records(out)[-1]["bytes_sent"]
            found[name] = {
                "up": per[0],
                "down": per[1],
                "protocol": float(told),
                "model": 3 * 399_940,
            }
    return found


def twenty(quick: bool) -> dict[str, Any]:
    """20 nodes on this machine for 10 rounds: seconds and memory. One of them is no fork of the
    others, but a process that imported everything by itself.
    """
    import psutil

    config = config_of(20, 10, {"name": "secagg", "mode": "active"})
    with running(config) as processes:
        home = processes.folder
        *forked, alone = nodes_in(home)
        began = time.perf_counter()
        for node in forked:
            processes.start(node, "node")
        with (home / f"{alone}.log").open("wb") as log:
            single = subprocess.Popen(
                [sys.executable, "-m", "privfl.cli", "net", "node", str(home / alone)],
                stdout=log,
                stderr=log,
                env=superlink.environment(home / alone),
            )
        try:
            out = home / "run"
            local.play(home / "server", config, out, patience=PATIENCE)
            seconds = time.perf_counter() - began
            own = [
                psutil.Process(processes.running[node].pid).memory_full_info().pss / 1e6
                for node in forked
            ]
            apart = psutil.Process(single.pid).memory_full_info().uss / 1e6
        finally:
            single.kill()
            single.wait()
        told = records(out)
        return {
            "whole": sum(one["survivors"] == 20 for one in told),
            "seconds": seconds,
            "round": median([sum(one["seconds"].values()) for one in told[1:]]),
            "forked": sum(own) / len(own),
            "apart": apart,
        }


def parity(quick: bool) -> dict[str, Any]:
    """Which configs end over a network with the bits of a simulation, both by their commands."""
    found = {}
    for name, same in network_bits.parity(quick):
        say(f"network: {name}: {'equal bits' if same else 'OTHER BITS'}")
        found[name] = same
    return found


def resumed(quick: bool) -> dict[str, Any]:
    """Which runs end as without it where their SuperLink was killed, and after how long."""
    found = {}
    for name, same, seconds in network_bits.resumed(quick):
        say(f"network: {name}: {'equal' if same else 'OTHER BITS'} after {seconds:.1f} s")
        found[name] = [same, seconds]
    return found


def deaths(quick: bool) -> list[dict[str, Any]]:
    """Rounds in which somebody was killed or stopped, with what is wrong with them."""
    found = []
    for one in network_deaths.rounds(network_deaths.asked_of(quick)):
        how = signal.Signals(one["signal"]).name if one["signal"] else "nothing"
        outcome = one["wrong"] or f"{one['survivors']} survivors"
        said = "; ".join(line for line in one["said"] if line)
        case = f"{one['channel']} {one['who']} {how} at {one['at']}"
        say(f"network: {case}: {outcome} in {one['seconds']:.1f} s: {said}")
        found.append(one)
    return found


CASES: dict[str, Callable[[bool], dict[str, Any] | list[dict[str, Any]]]] = {
    "message": message,
    "secagg": secagg,
    "bytes": sizes,
    "twenty": twenty,
    "parity": parity,
    "resumed": resumed,
    "deaths": deaths,
}

if __name__ == "__main__":
    print(json.dumps(CASES[sys.argv[1]](sys.argv[2] == "True")), flush=True)
