"""A whole federation on this machine, as processes: a SuperLink with TLS and node authentication,
the server, and a resident node for each client and helper.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from privfl import assembly
from privfl.config import Config
from privfl.core import PrivflError, client_of
from privfl.flower import setup, superlink
from privfl.flower.wire import Patience

START = 90.0
HOST = "127.0.0.1"


class RunLost(PrivflError):
    """A run that did not end well at the server, and what the SuperLink says of it."""


@dataclass
class LocalProcesses:
    """The processes of one federation, by the folder that each works in."""

    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *words: str) -> None:
        """Start one of privfl's commands on a folder of the federation, in a group of its own;
        what it says is in ``NAME.log``.
        """
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "privfl.cli", "net", *words, str(self.folder / name)],
                stdout=log,
                stderr=log,
                env=superlink.environment(self.folder / name),
                start_new_session=True,
            )

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process and all that it started."""
        process = self.running[name]
        if process.poll() is None:
            os.killpg(process.pid, how)
        if how in (signal.SIGKILL, signal.SIGTERM):
            process.wait()

    def end(self) -> None:
        """End all of them."""
        for name in self.running:
            self.kill(name)


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
    run = superlink.start_run(address, ca, told)
    misses = 0
    while True:
        time.sleep(0.3)
        try:
            how = superlink.ended(address, ca, run)
            misses = 0
        except (Exception, SystemExit) as gone:
            misses += 1
            if misses > 10:
                raise RunLost(
                    f"the SuperLink at {address} is away ({type(gone).__name__}): start it again,"
                    " and go on with the run (--resume)."
                ) from None
            continue
        if how is None:
            continue
        if how:
            raise RunLost(f"the run ended early: {how}. Go on with it (--resume).")
        return


def _floats(told: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in told.items()}
