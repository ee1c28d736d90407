"""Nodes that are killed, or stopped past a deadline, before they are handed their envelope number
k, for every k of a round and everybody who takes part: in Flower's own environment, as
`network_run`.

One SuperLink, nodes as processes of their own, and a ServerApp that plays one round after the other
in runs of their own. Its wire sends the signal before an envelope; who was killed is started again
when its round is over, and wakes up for the next one.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from privfl.config import load
from privfl.core import Faults, PartyId, PrivflError
from privfl.crypto.primitives import Directory, Identity
from privfl.engine.files import write_atomically
from privfl.federation import Federation
from privfl.flower import local, setup, superlink
from privfl.flower.grid_wire import GridWire, nodes_of
from privfl.flower.server import federation_over
from privfl.flower.wire import Patience, Wire

DEADLINE = 6.0
PATIENCE = Patience(15.0, DEADLINE, DEADLINE)
LONGEST = PATIENCE.joining + 3 * DEADLINE
"""Seconds that a round may take in which one machine dies: its deadlines, and what is played on."""
CLOSE = 1e-3
"""How far from the simulation an encrypted_cosine round may be, whose sums are never the same."""
HELPERS = ("server/1", "dealer", "decryptor/0", "decryptor/1", "decryptor/2", "key_holder")
CHANNELS: Mapping[str, dict[str, Any]] = {
    "plain": {"channel": "plain"},
    "secagg": {"channel": {"name": "secagg", "mode": "active"}},
    "additive_sharing": {"channel": "additive_sharing"},
    "two_server": {"channel": "two_server"},
    "bfv": {"channel": "bfv"},
    "one_time_rlwe": {"channel": "one_time_rlwe"},
    "encrypted_cosine": {"channel": "encrypted_cosine", "aggregator": "fltrust"},
}
PARTIES: Mapping[str, Sequence[PartyId]] = {
    "plain": ("client/1",),
    "secagg": ("client/1",),
    "additive_sharing": ("client/1", "server/1"),
    "two_server": ("client/1", "server/1", "dealer"),
    "bfv": ("client/1", "decryptor/0"),
    "one_time_rlwe": ("client/1", "decryptor/0"),
    "encrypted_cosine": ("client/1", "key_holder"),
}
APP = superlink.APP | {
    "privfl_net/server_app.py": (
        "from benchmarks.peers.network_deaths import server_app\n\napp = server_app()\n"
    )
}


def config_of(channel: str) -> dict[str, Any]:
    """One round of three clients."""
    return {
        "data": {"name": "digits", "clients": 3, "root": 60},
        "rounds": 1,
        "repeatable": True,
        "executor": "sequential",
        "training": {"name": "sgd", "weighting": "uniform", "steps": 2},
        "bound": {"name": "clip", "l2": 1.0},
        **CHANNELS[channel],
    }


# ---- at the server


class Deadly:
    """A `wire.Wire` that counts the envelopes of each party and, before it hands ``who`` its number
    ``at``, sends the process of it a signal: after that it may have answered.
    """

    def __init__(self, wire: Wire, who: PartyId, at: int, process: int, number: int) -> None:
        self.wire, self.who, self.at = wire, who, at
        self.process, self.number = process, number
        self.counts: dict[PartyId, int] = {}

    def send(self, envelopes: Mapping[PartyId, bytes], seconds: float) -> None:
        """Strike, and hand over all."""
        if self.who in envelopes and self.counts.get(self.who, 0) == self.at:
            os.killpg(self.process, self.number)
        self.wire.send(envelopes, seconds)
        for who in envelopes:
            self.counts[who] = self.counts.get(who, 0) + 1

    def collect(self, seconds: float) -> Sequence[tuple[PartyId, bytes]]:
        """As the wire does."""
        return self.wire.collect(seconds)


def server_app() -> Any:
    from flwr.serverapp import ServerApp

    def main(grid: Any, context: Any) -> None:
        told = context.run_config
        home, at = Path(told["home"]), Path(told["out"])
        Rounds(grid, home, at).play(json.loads(told["config"]))

    app: Any = ServerApp()
    app.main()(main)
    return app


class Rounds:
    """The rounds that are asked for, each with its result in a file of its own."""

    def __init__(self, grid: Any, home: Path, at: Path) -> None:
        self.grid, self.home, self.at, self.number = grid, home, at, 0
        self.keys = Identity.read(home / "identity"), Directory.read(home / "directory.json")

    def play(self, asked: Sequence[Mapping[str, Any]]) -> None:
        """Each channel once undisturbed, then once for each envelope of each party."""
        for one in asked:
            counts = self.round(one["channel"], "", -1, 0)
            for who in one["parties"]:
                for at in range(0, counts[who], one["every"]):
                    self.round(one["channel"], who, at, signal.SIGKILL)
            if one["stop"]:
                self.round(one["channel"], "client/1", 1, signal.SIGSTOP)
                self.round(one["channel"], "", -1, 0)

    def round(self, channel: str, who: PartyId, at: int, number: int) -> Mapping[PartyId, int]:
        """One run of one round; how many envelopes each party was handed."""
        pids = self.pids()
        wire = Deadly(GridWire(self.grid, nodes_of(self.home)), who, at, pids.get(who, 0), number)
        out, why, began = self.at / f"run-{self.number}", "", time.monotonic()
        config = load(config_of(channel))
        try:
            federation_over(config, wire, *self.keys, patience=PATIENCE).run(out)
        except PrivflError as lost:
            why = str(lost)
        found = {"channel": channel, "who": who, "at": at, "signal": number, "why": why}
        found |= {"seconds": time.monotonic() - began, "out": str(out)}
        if number == signal.SIGSTOP:
            os.killpg(pids[who], signal.SIGCONT)
        elif number == signal.SIGKILL:
            found["killed"] = self.ended(pids[who])
            (self.at / "again").touch()
        write_atomically(self.at / f"{self.number:04d}.json", json.dumps(found))
        self.number += 1
        return wire.counts

    def pids(self) -> dict[PartyId, int]:
        """Everybody's process, once all who were killed are back."""
        while (self.at / "again").exists():
            time.sleep(0.05)
        found: dict[PartyId, int] = json.loads((self.at / "pids.json").read_text())
        return found

    def ended(self, process: int) -> bool:
        """Whether a process is no more, which takes a moment to be so."""
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until:
            try:
                os.kill(process, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.02)
        return False


# ---- on the operator's side


def rounds(asked: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """What came of each round that is asked for (``channel``; ``parties``, every one of whose
    envelopes, or each ``every``-th, it is killed at; ``stop``, whether one is stopped as well).
    """
    with tempfile.TemporaryDirectory(prefix="privfl-benchmark-") as name:
        home, results = Path(name) / "fed", Path(name) / "results"
        results.mkdir()
        policy = {"channels": list(CHANNELS), "training": ["sgd"], "quorum": 1, "repeatable": True}
        at = setup.set_up(home, 3, HELPERS, local.HOST, local._free_port(), policy)
        _deal(home)
        processes = local.LocalProcesses(home)
        processes.start("server", "server")
        nodes = [path.name for path in at[1:]]
        try:
            for node in nodes:
                processes.start(node, "node")
            local.wait_for(home / "server")
            _noted(processes, results)
            told = {"config": json.dumps(asked), "home": str(at[0]), "out": str(results)}
            address = "{}:{}".format(*local.address_of(at[0]))
            failed: list[BaseException] = []
            player = threading.Thread(target=_played, args=(address, at[0], told, failed))
            player.start()
            given = 0
            while player.is_alive() or (results / f"{given:04d}.json").exists():
                if (results / "again").exists():
                    for node in nodes:
                        if processes.running[node].poll() is not None:
                            processes.start(node, "node")
                    _noted(processes, results)
                    (results / "again").unlink()
                path = results / f"{given:04d}.json"
                if not path.exists():
                    time.sleep(0.05)
                    continue
                yield _judged(json.loads(path.read_text()))
                given += 1
            player.join()
            if failed:
                raise failed[0]
        finally:
            processes.end()


def _played(address: str, home: Path, told: Mapping[str, Any], failed: list[BaseException]) -> None:
    try:
        superlink.played(address, home / "ca.crt", told, APP)
    except PrivflError as lost:
        failed.append(lost)


def _deal(home: Path) -> None:
    """Every client has what a simulation deals out to it, beside the samples of the server."""
    data = load(config_of("plain")).data.model_dump()
    for client in range(3):
        path = home / f"client-{client}" / "node.yaml"
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings["data"] = data | {"client": client, "seed": 0}
        write_atomically(path, yaml.safe_dump(settings, sort_keys=False))


def _noted(processes: local.LocalProcesses, results: Path) -> None:
    pids = {}
    for name, process in processes.running.items():
        kind, _, number = name.partition("-")
        pids[f"{kind}/{number}" if number else name] = process.pid
    write_atomically(results / "pids.json", json.dumps(pids))


def _judged(found: dict[str, Any]) -> dict[str, Any]:
    """A round with ``wrong``: why it is not as it must be, or "". Somebody who is killed or stopped
    leaves the exact sum of the survivors, or ends the round with a sentence that names them and
    the model as it was; nobody else is named as silent, and nobody is blamed.
    """
    who, out = found["who"], Path(found.pop("out"))
    survivors, incidents, error = _left(out, found)
    found |= {"survivors": survivors, "said": [*incidents, found["why"]]}
    lines = [line for line in found["said"] if line]
    others = [x for x in ("client/0", "client/2", *HELPERS) if x != who]
    wrong = ""
    if found["seconds"] > LONGEST:
        wrong = f"it took {found['seconds']:.0f} s"
    elif who and found["signal"] == signal.SIGKILL and not found["killed"]:
        wrong = "the node was not killed"
    elif any("(blames" in line or "was excluded" in line for line in lines):
        wrong = "somebody is blamed"
    elif any(f"{other} did not answer within" in line for line in lines for other in others):
        wrong = "somebody else is called silent"
    elif not who and (lines or survivors != 3):
        wrong = "a round without any death"
    elif who and not any(f"{who} did not answer within" in line for line in lines):
        wrong = "nobody says who is missing"
    elif survivors not in _may_be(found):
        wrong = f"{survivors} survivors"
    elif error > (CLOSE if found["channel"] == "encrypted_cosine" else 0.0):
        wrong = f"the model is off by {error:g}"
    return found | {"wrong": wrong}


def _may_be(found: Mapping[str, Any]) -> Sequence[int]:
    """How many survivors a round may have: a helper that had done its part is not missed."""
    if found["signal"] == signal.SIGSTOP:
        return (2,)
    if not found["who"]:
        return (3,)
    return (2, 3) if found["who"].startswith("client/") else (0, 3)


def _left(out: Path, found: Mapping[str, Any]) -> tuple[int, list[str], float]:
    """Who counts in a round, what is said of it, and how far its model is from the simulation's
    with these survivors (0 where the run ended before any).
    """
    if found["why"]:
        return 0, [], 0.0
    (told,) = map(json.loads, (out / "rounds.jsonl").read_text().splitlines())
    made = load_file(out / "model.safetensors")["parameters"]
    federation = Federation.from_config(config_of(found["channel"]))
    due: torch.Tensor = federation.scenario.workload.model.flat
    if told["survivors"]:
        faults = Faults(silent_from={} if told["survivors"] == 3 else {"client/1": 0})
        due = federation.run(faults=faults).parameters
    return told["survivors"], told["incidents"], float((made - due).abs().max())


def asked_of(quick: bool) -> list[dict[str, Any]]:
    """Every envelope of every party; or one in four of some."""
    every = 4 if quick else 1
    return [
        {"channel": channel, "parties": parties, "every": every, "stop": not quick}
        for channel, parties in PARTIES.items()
    ]
