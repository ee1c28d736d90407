"""Runs that are killed at random moments and resumed, over channels, mechanisms, samplers or paces,
and methods: ``python -m benchmarks.killed [--quick]``.

Each run is killed (SIGKILL) once to three times, at a moment that is uniform over its time, and
resumed until it ends. Where all noise repeats it must then have the parameters of the run that
nobody killed, bit for bit, and the same rounds in its log; what it charged may be more.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from benchmarks.harness import Row, gain, main, say
from privfl import Federation
from privfl.core import ConfigError

LONGEST = 120.0
"""Seconds that a run may take that nobody kills."""
BASE: dict[str, Any] = {
    "data": {"name": "digits", "clients": 8, "partition": {"name": "iid"}},
    "rounds": 4,
    "executor": "sequential",
    "noise_seed": 1,
    "bound": {"name": "clip", "l2": 1.0},
    "audit": {"keep": "none", "evaluate_every": 2},
}
CHANNELS: list[dict[str, Any]] = [
    {"name": "plain"},
    {"name": "secagg"},
    {"name": "additive_sharing"},
    {"name": "bfv"},
    {"name": "one_time_rlwe"},
    {"name": "two_server"},
]
MECHANISMS: list[dict[str, Any]] = [
    {"name": "none"},
    {"name": "gaussian", "noise_multiplier": 1.0},
    {"name": "local_gaussian", "noise_multiplier": 1.0},
    {"name": "distributed_skellam", "noise_multiplier": 1.0},
]
PACES: list[dict[str, Any]] = [
    {"name": "buffered", "k": 3, "concurrency": 6},
    {"name": "buffered", "k": 2, "concurrency": 8, "gate": 2, "speeds": {0: 10.0}},
    {"name": "buffered", "k": 1, "concurrency": 5, "mixing": True},
    {"name": "stale_synchronous", "k": 3, "slack": 1},
]
SAMPLERS: list[dict[str, Any]] = [
    {"name": "all"},
    {"name": "poisson", "rate": 0.6},
    {"name": "fixed_size", "size": 5},
    {"name": "separated", "apart": 2},
]
METHODS: list[dict[str, Any]] = [
    {"training": {"name": "sgd", "lr": 0.3, "steps": 1}},
    {"training": {"name": "sgd", "lr": 0.3, "steps": 1, "momentum": 0.9}},
    {"training": {"name": "scaffold", "lr": 0.3, "steps": 1}},
    {
        "training": {"name": "sgd", "lr": 0.3, "steps": 1},
        "server_optimizer": {"name": "fedadam", "lr": 0.1},
    },
]


def worlds(seed: int, *, in_flight: bool = False) -> Iterable[dict[str, Any]]:
    """Configs that go together, in random order, again and again; ``in_flight``: asynchronous
    ones, of paces in the place of samplers.
    """
    draw, seam = random.Random(seed), "pace" if in_flight else "sampler"  # noqa: S311
    who = PACES if in_flight else SAMPLERS
    every = list(itertools.product(CHANNELS, MECHANISMS, who, METHODS))
    while True:
        draw.shuffle(every)
        for channel, mechanism, asked, method in every:
            parts = {"channel": channel, "mechanism": mechanism, seam: asked}
            config = {**BASE, **parts, **method, "seed": draw.randrange(1000)}
            if method["training"]["name"] == "scaffold":
                config["bound"] = {**BASE["bound"], "parts": {"control": 1.0}}
            try:
                Federation.from_config(config)
            except ConfigError:
                continue
            yield config


def ran(config: Mapping[str, Any], folder: Path, *, resume: bool, killed_after: float) -> bool:
    """Run a config in a process of its own, which is killed after so many seconds; whether it had
    ended before.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            Federation.from_config(config).run(folder, resume=resume)
            code = 0
        finally:
            os._exit(code)
    until = time.monotonic() + killed_after
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if os.waitstatus_to_exitcode(status) != 0:
                raise RuntimeError(f"the run in '{folder}' broke: {config}")
            return True
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def begun(folder: Path) -> bool:
    """Whether a run had begun when it was killed; what it left before that is removed."""
    if (folder / "fingerprint.json").exists():
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def left(folder: Path) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """A run's parameters, as bits, and its log without what a clock says."""
    flat = safetensors.torch.load_file(folder / "model.safetensors")["parameters"]
    lines = (folder / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    rounds = [json.loads(line) for line in lines]
    told = ("round", "cohort", "survivors", "accuracy", "train_losses")
    return flat.view(torch.int32), [{key: one[key] for key in told} for one in rounds]


def killed(runs: int, seed: int = 0, *, in_flight: bool = False) -> tuple[int, int]:
    """How many of so many killed runs ended as those that nobody killed, and the number of kills;
    ``in_flight`` as in `worlds`.
    """
    draw, equal, kills = random.Random(seed), 0, 0  # noqa: S311
    for config in itertools.islice(worlds(seed, in_flight=in_flight), runs):
        with tempfile.TemporaryDirectory(prefix="privfl-killed-") as held:
            whole, cut = Path(held, "whole"), Path(held, "cut")
            began = time.monotonic()
            ran(config, whole, resume=False, killed_after=LONGEST)
            took, ended = time.monotonic() - began, False
            for _ in range(draw.randint(1, 3)):
                ended = ran(config, cut, resume=begun(cut), killed_after=draw.uniform(0, took))
                kills += not ended
            if not ended:
                ran(config, cut, resume=begun(cut), killed_after=LONGEST)
            one, other = left(whole), left(cut)
            same = torch.equal(one[0], other[0]) and one[1] == other[1]
            equal += same
            if not same:
                say(f"killed: another end: {config}")
    return equal, kills


def case(quick: bool) -> Iterable[Row]:
    """Runs that ended as if nobody had killed them."""
    runs = 12 if quick else 100
    equal, kills = killed(runs)
    say(f"killed: {kills} kills")
    yield gain("SIGKILL", "a run that nobody killed", "equal runs", equal, runs, 1.0)


def in_flight(quick: bool) -> Iterable[Row]:
    """The same of asynchronous runs, with clients at work when the process ends."""
    runs = 12 if quick else 60
    equal, kills = killed(runs, in_flight=True)
    say(f"killed: {kills} kills")
    yield gain("in flight", "a run that nobody killed", "equal runs", equal, runs, 1.0)


CASES = {"SIGKILL": case, "in flight": in_flight}

if __name__ == "__main__":
    main("killed", CASES)
