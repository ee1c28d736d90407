"""`privfl net local` beside `privfl run`, and runs whose SuperLink is killed: in Flower's own
environment, as `network_run`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from privfl.config import load
from privfl.core import ConfigError
from privfl.engine import RunFolder
from privfl.federation import Federation
from privfl.flower import local
from privfl.flower.superlink import RunLost
from privfl.flower.wire import Patience

PATIENCE = Patience(120.0, 60.0, 60.0)
LONGEST = 120.0
BASE: Mapping[str, Any] = {
    "data": {"name": "digits", "clients": 3},
    "rounds": 3,
    "repeatable": True,
    "executor": "sequential",
    "training": {"name": "sgd", "weighting": "uniform", "steps": 2},
    "bound": {"name": "clip", "l2": 1.0},
}
CASES: Mapping[str, dict[str, Any]] = {
    "plain": {"channel": "plain"},
    "secagg active": {"channel": {"name": "secagg", "mode": "active"}},
    "additive_sharing": {"channel": "additive_sharing"},
    "two_server": {"channel": "two_server"},
    "bfv": {"channel": "bfv"},
    "one_time_rlwe": {"channel": "one_time_rlwe"},
    "SCAFFOLD over secagg active": {
        "training": {"name": "scaffold", "steps": 2},
        "channel": {"name": "secagg", "mode": "active"},
        "bound": {"name": "clip", "l2": 1.0, "parts": {"control": 1.0}},
    },
    "adaptive clip over bfv": {"channel": "bfv", "bound": {"name": "adaptive_clip"}},
}
KILLED = ("plain", "secagg active", "two_server", "one_time_rlwe", "bfv")


def parity(quick: bool) -> Iterator[tuple[str, bool]]:
    """Whether both commands end with the same bits, of one file, for each case."""
    for name, more in list(CASES.items())[: 2 if quick else None]:
        with tempfile.TemporaryDirectory(prefix="privfl-benchmark-") as held:
            told, ends = Path(held, "exp.yaml"), []
            told.write_text(yaml.safe_dump({**BASE, **more}), encoding="utf-8")
            for words in (("net", "local"), ("run",)):
                out = Path(held, words[0])
                command = [sys.executable, "-m", "privfl.cli", *words, str(told), "--out"]
                subprocess.run([*command, str(out)], check=True, capture_output=True)
                ends.append(_model(out))
            yield name, torch.equal(*ends)


def resumed(quick: bool) -> Iterator[tuple[str, bool, float]]:
    """Whether a run whose SuperLink was killed in the middle (kill -9, and everything that it
    started) ends with the bits and rounds of one that nobody killed, once it is resumed; and the
    seconds from the kill to the first round after it.
    """
    for name in KILLED[: 1 if quick else None]:
        config = load({**BASE, **CASES[name], "rounds": 4})
        with tempfile.TemporaryDirectory(prefix="privfl-benchmark-") as held:
            home, out = Path(held, "fed"), Path(held, "run")
            nodes = local.made(config, home)
            processes = local.LocalProcesses(home)
            processes.start("server", "server")
            try:
                for node in nodes:
                    processes.start(node, "node")
                local.wait_for(home / "server")
                seconds = _killed(processes, config, out)
            finally:
                processes.end()
            rounds = [one["round"] for one in _records(out)]
            alone = Federation.from_config({**BASE, **CASES[name], "rounds": 4}).run()
            same = torch.equal(_model(out), alone.parameters) and rounds == list(range(4))
            yield name, same, seconds


def _killed(processes: local.LocalProcesses, config: Any, out: Path) -> float:
    home, lost = processes.folder / "server", list[str]()

    def play() -> None:
        try:
            local.play(home, config, out, patience=PATIENCE)
        except RunLost as how:
            lost.append(str(how))

    player = threading.Thread(target=play)
    player.start()
    _until(lambda: _records(out) != [])
    began = time.monotonic()
    processes.kill("server")
    processes.start("server", "server")
    player.join()
    before = len(_records(out))
    if not lost or before == config.rounds:
        raise RuntimeError("the run was over before its SuperLink was killed")
    local.wait_for(home)
    _until(lambda: _free(out))
    player = threading.Thread(
        target=local.play, args=(home, None, out), kwargs={"resume": True, "patience": PATIENCE}
    )
    player.start()
    _until(lambda: len(_records(out)) > before)
    seconds = time.monotonic() - began
    player.join()
    return seconds


def _until(done: Any) -> None:
    end = time.monotonic() + LONGEST
    while not done():
        if time.monotonic() > end:
            raise RuntimeError(f"nothing happened within {LONGEST:g} s")
        time.sleep(0.05)


def _free(out: Path) -> bool:
    """Whether nobody writes to a run's folder any more."""
    folder = RunFolder(out)
    try:
        folder.lock()
    except ConfigError:
        return False
    folder.close()
    return True


def _records(out: Path) -> list[dict[str, Any]]:
    path = out / "rounds.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _model(out: Path) -> torch.Tensor:
    return load_file(out / "model.safetensors")["parameters"]
