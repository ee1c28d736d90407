"""A SuperLink as its operator sees it: the command that runs it, the nodes that it is told of, and
the runs that are started on it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from privfl.config import load
from privfl.core import PrivflError
from privfl.crypto.primitives import Directory, Identity
from privfl.flower.grid_wire import GridWire, in_one_form, nodes_of
from privfl.flower.internals import away, control
from privfl.flower.wire import Patience

LOG = logging.getLogger("privfl.network")
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
_LOOK = "0.25"
"""Seconds from one look for a run that was started to the next, where Flower looks every second."""
APP = {
    "pyproject.toml": """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "privfl-net"
version = "1.0.0"
description = "A privfl run over nodes that fetch no code"
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41,<1.42"]

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "privfl"
fab-format-version = 1
flwr-version-target = "1.41.0"

[tool.flwr.app.components]
serverapp = "privfl_net.server_app:app"
clientapp = "privfl_net.client_app:app"

[tool.flwr.app.config]
config = ""
home = ""
out = ""
resume = false
joining = 120.0
training = 600.0
mail = 60.0
""",
    "LICENSE": "Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0\n",
    "privfl_net/__init__.py": "",
    "privfl_net/server_app.py": (
        "from privfl.flower.superlink import server_app\n\napp = server_app()\n"
    ),
    "privfl_net/client_app.py": (
        "from privfl.flower.client_app import client_app\n\napp = client_app()\n"
    ),
}
"""The app that is started on the SuperLink: a line that names the installed server, and one for the
SuperNodes of Flower (`flower.client_app`). Resident nodes never fetch it.
"""


def server_app() -> Any:
    """The ServerApp that plays a run over the grid."""
    from flwr.serverapp import ServerApp

    def main(grid: Any, context: Any) -> None:
        told = context.run_config
        play(GridWire(grid, nodes_of(Path(told["home"]))), told)

    app: Any = ServerApp()
    app.main()(main)
    return app


def play(wire: GridWire, told: Mapping[str, Any]) -> None:
    """A run as it was asked for: its config, the server's folder, and where it goes."""
    from privfl.flower.server import federation_over
    from privfl.report import config_in, write_report

    home, out, resume = Path(told["home"]), Path(told["out"]), bool(told["resume"])
    config = load(config_in(out) if resume else json.loads(str(told["config"])))
    identity = Identity.read(home / "identity")
    directory = Directory.read(home / "directory.json")
    patience = Patience(float(told["joining"]), float(told["training"]), float(told["mail"]))
    federation = federation_over(config, wire, identity, directory, patience=patience)

    def said(record: Any, rounds: int) -> None:
        LOG.info("round %d of %d: %s", record.round + 1, rounds, "; ".join(record.incidents))

    federation.run(out, resume=resume, progress=said)
    write_report(out)


# ---- registration and runs


def register(address: str, ca: Path, keys: Sequence[bytes]) -> None:
    """Tell the SuperLink the keys [PEM] of its nodes; those that it knows stay known."""
    with control(address, ca) as its:
        known = set(map(in_one_form, its.keys()))
        for key in keys:
            if in_one_form(key) not in known:
                its.register(key)


class RunLost(PrivflError):
    """A run that did not end well at the server, and what the SuperLink says of it."""


def played(address: str, ca: Path, told: Mapping[str, Any], app: Mapping[str, str] = APP) -> None:
    """Start the server's app (its files) with these settings, and wait until it has ended.

    Raises:
        RunLost: it does not start, or did not end well.
    """
    misses = 0
    with control(address, ca) as its:
        try:
            run = its.start(app, told)
        except (Exception, SystemExit) as gone:
            if not away(gone):
                raise
            raise RunLost(
                f"the SuperLink at {address} does not answer ({type(gone).__name__}): start it"
                " (privfl net server), and run again when it says that it listens."
            ) from None
        if run is None:
            raise RunLost("the SuperLink did not start the run; its log says why.")
        while True:
            time.sleep(0.2)
            try:
                how, misses = its.ended(run), 0
            except (Exception, SystemExit) as gone:
                misses += 1
                if misses > 15:
                    raise RunLost(
                        f"the SuperLink at {address} is away ({type(gone).__name__}): start it"
                        " again, and go on with the run (--resume)."
                    ) from None
                continue
            if how:
                why = how.rstrip(" .")
                raise RunLost(f"the run ended early: {why}. Go on with it (--resume).")
            if how is not None:
                return


def superlink_command(home: Path, host: str, port: int) -> list[str]:
    """The command that runs a SuperLink in the server's folder, with TLS and node authentication;
    it listens on this machine alone where nodes reach it by 127.0.0.1. It has no database: what
    travels would stay in it, and a run goes on without. From other machines it answers nodes alone
    (`flower.gate`).
    """
    local = host in ("127.0.0.1", "localhost")
    return [
        *(sys.executable, "-m", "privfl.flower.gate"),
        *("--host", "127.0.0.1" if local else "0.0.0.0"),  # noqa: S104
        *("--port", str(port)),
        *("--ssl-ca-certfile", str(home / "ca.crt")),
        *("--ssl-certfile", str(home / "server.crt")),
        *("--ssl-keyfile", str(home / "server.key")),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
    ]


def environment(home: Path) -> dict[str, str]:
    """The variables that Flower's processes run with: what it keeps is kept in ``home``."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return {
        **os.environ,
        **QUIET,
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": _LOOK,
        "FLWR_HOME": str(home / "flwr"),
        "PATH": path,
    }
