"""A whole federation on this machine, as processes: a SuperLink with TLS and node authentication,
the server, and a resident node for each client and helper.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import yaml

from privfl import assembly
from privfl.config import Config
from privfl.core import client_of
from privfl.flower import setup, superlink
from privfl.flower.internals import NODES
from privfl.flower.node import run_node
from privfl.flower.superlink import RunLost
from privfl.flower.wire import Patience

START = 90.0
HOST = "127.0.0.1"


@dataclass(frozen=True)
class _Fork:
    """A forked process, with the face of a `subprocess.Popen`."""

    process: BaseProcess

    @property
    def pid(self) -> int:
        return self.process.pid or 0

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self.process.join(timeout)
        return self.process.exitcode


@dataclass
class LocalProcesses:
    """The processes of one federation, by the folder that each works in. Nodes are forked off a
    process that has imported what they need, once for all of them.
    """

    folder: Path
    running: dict[str, subprocess.Popen[bytes] | _Fork] = field(default_factory=dict)

    def start(self, name: str, kind: Literal["server", "node"]) -> None:
        """Start the SuperLink or a node on a folder of the federation; what it says is in
        ``NAME.log``.
        """
        home, log = self.folder / name, self.folder / f"{name}.log"
        if kind == "server":
            with log.open("ab") as told:
                command = [sys.executable, "-m", "privfl.cli", "net", "server", str(home)]
                self.running[name] = subprocess.Popen(
                    command,
                    stdout=told,
                    stderr=told,
                    env=superlink.environment(home),
                    start_new_session=True,
                )
            return
        os.environ.update(superlink.QUIET)  # before anything of Flower is imported
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload([__name__, *NODES])
        fork = forks.Process(target=_node, args=(home, log), daemon=True)
        fork.start()
        self.running[name] = _Fork(fork)

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process and all that it started."""
        process = self.running[name]
        if process.poll() is None:
            try:
                os.killpg(process.pid, how)
            except ProcessLookupError:  # it leads no group yet
                os.kill(process.pid, how)
        if how in (signal.SIGKILL, signal.SIGTERM):
            process.wait()

    def end(self) -> None:
        """End all of them."""
        for name in self.running:
            self.kill(name)


def _node(home: Path, log: Path) -> None:
    """What a forked process does: it is a node, and says what it says in its log."""
    os.setsid()
    with log.open("ab") as told:
        for stream in (1, 2):
            os.dup2(told.fileno(), stream)
    os.environ.update(superlink.environment(home))
    run_node(home)


def made(config: Config, folder: Path) -> tuple[str, ...]:
    """A federation for one config in a new folder: nodes hold what a simulation deals out to them,
    and take part in this run. The names of its nodes' folders.

    Raises:
        ConfigError: a config that cannot be, or a folder that is not empty.
    """
    scenario = assembly.scenario(config, "server")
    policy = {
        "channels": [config.channel["name"]],
        "training": [config.training["name"]],
        "quorum": 1,
        "repeatable": config.repeatable,
    }
    helpers, clients = scenario.channel.helpers, len(scenario.clients)
    at = setup.set_up(folder, clients, helpers, HOST, _free_port(), policy)
    for path in at:
        told = path / "node.yaml"
        if not told.exists():
            continue
        settings = yaml.safe_load(told.read_text(encoding="utf-8"))
        who = client_of(settings["party"])
        if who is not None:
            settings["data"] = config.data.model_dump() | {"client": who, "seed": config.seed}
        told.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return tuple(path.name for path in at if path.name != "server")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def address_of(home: Path) -> tuple[str, int]:
    """Where the SuperLink of a server's folder is."""
    told = yaml.safe_load((home / "server.yaml").read_text(encoding="utf-8"))
    return str(told["host"]), int(told["port"])


def wait_for(home: Path, seconds: float = START) -> None:
    """Wait until the SuperLink answers, and tell it the keys of its nodes.

    Raises:
        RunLost: it does not answer.
    """
    host, port = address_of(home)
    nodes = json.loads((home / "nodes.json").read_text(encoding="utf-8"))
    until, why = time.monotonic() + seconds, ""
    while time.monotonic() < until:
        try:
            keys = [str(pem).encode() for pem in nodes.values()]
            superlink.register(f"{host}:{port}", home / "ca.crt", keys)
        except (Exception, SystemExit) as error:
            why = f"{type(error).__name__}: {error}"
            time.sleep(0.5)
            continue
        return
    raise RunLost(f"the SuperLink at {host}:{port} does not answer ({why}).")


def play(
    home: Path,
    config: Config | None,
    out: Path,
    *,
    resume: bool = False,
    patience: Patience | None = None,
) -> None:
    """Play a run at the SuperLink of a server's folder, and wait for its end.

    Raises:
        RunLost: it did not end well.
    """
    host, port = address_of(home)
    address, ca = f"{host}:{port}", home / "ca.crt"
    told: dict[str, Any] = {
        "config": "" if config is None else json.dumps(config.model_dump(mode="json")),
        "home": str(home.resolve()),
        "out": str(out.resolve()),
        "resume": resume,
        **_floats(asdict(patience or Patience())),
    }
    superlink.played(address, ca, told)


def _floats(told: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in told.items()}
