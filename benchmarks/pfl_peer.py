"""The case ``pfl`` of `benchmarks.engine`: rounds beside pfl-research's simulation (Granqvist et
al. 2024), which overwrites one model client by client and sums at once: it sends no messages and
keeps no rows, and ours does both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from benchmarks.beside import ROOT, lay_over
from benchmarks.harness import Row, cost, gain, say
from benchmarks.peers.pfl_rounds import BESIDE, REQUIREMENTS

PEER = "pfl 0.6.0"
FASTER = {"cnn": 1.35, "softmax": 5.0}
SETTING = {
    "cnn": "CIFAR-10, CNN, 50 clients x 50, batch 10",
    "softmax": "MNIST, softmax, 100 clients x 600, batch 32",
}


def against_pfl(quick: bool) -> Iterator[Row]:
    """CPU seconds of a round on one core, both sides in processes of their own and in turn; test
    accuracy after as many rounds; peak memory.
    """
    for work, setting in SETTING.items():
        ours, theirs, rounds = _measured(work, quick, "cpu")
        metric = f"CPU seconds a round, {setting}"
        yield cost("pfl", PEER, metric, ours.seconds, theirs.seconds, FASTER[work])
        metric = f"accuracy after {rounds} rounds, {work}"
        yield gain("pfl", PEER, metric, ours.accuracy, theirs.accuracy)
        yield cost("pfl", PEER, f"peak bytes, {work}", ours.peak, theirs.peak, 1 / 1.1)


def on_device(device: torch.device, quick: bool) -> Iterator[Row]:
    """Seconds of a round on an accelerator, and test accuracy after as many rounds."""
    for work, setting in SETTING.items():
        ours, theirs, rounds = _measured(work, quick, str(device))
        metric = f"seconds a round, {setting}"
        yield cost("pfl", PEER, metric, ours.seconds, theirs.seconds)
        metric = f"accuracy after {rounds} rounds, {work}"
        yield gain("pfl", PEER, metric, ours.accuracy, theirs.accuracy)


@dataclass(frozen=True, slots=True)
class Side:
    """The least seconds of a round, the test accuracy at the end, the peak memory in bytes."""

    seconds: float
    accuracy: float
    peak: float


def _measured(work: str, quick: bool, device: str) -> tuple[Side, Side, int]:
    """Ours, pfl's, and after how many rounds."""
    lay_over(".venv-pfl", REQUIREMENTS)
    turns, rounds = (2, 3) if quick else (4, 5)
    sides = {side: _start(side, work, device) for side in ("ours", "pfl")}
    told: dict[str, list[list[float]]] = {side: [] for side in sides}
    try:
        for _ in range(turns):
            for side, process in sides.items():
                told[side].append(_asked(process, rounds))
    finally:
        for process in sides.values():
            process.kill()
            process.communicate()
    ours, theirs = (
        Side(min(row[0] for row in rows), rows[-1][1], max(row[2] for row in rows))
        for rows in told.values()
    )
    return ours, theirs, rounds + BESIDE


def _start(side: str, work: str, device: str) -> subprocess.Popen[str]:
    rounds = "benchmarks.peers.pfl_rounds"
    command = [sys.executable, "-W", "ignore", "-m", rounds, side, work, device]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PFL_PYTORCH_DEVICE": device},
    )


def _asked(process: subprocess.Popen[str], rounds: int) -> list[float]:
    if process.stdin is None or process.stdout is None:
        raise ImportError("a side of the comparison has no pipes")
    process.stdin.write(f"{rounds}\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        say(f"{process.args} ended before its turn")
        raise ImportError("a side of the comparison did not run")
    told: list[float] = json.loads(answer)
    return told
