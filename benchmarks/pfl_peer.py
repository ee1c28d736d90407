"""The case ``pfl`` of `benchmarks.engine`: rounds beside pfl-research's simulation (Granqvist et
al. 2024), which overwrites one model client by client and sums at once: it sends no messages and
keeps no rows, and ours does both.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.beside import ROOT, lay_over
from benchmarks.harness import Row, cost, gain, say
from benchmarks.peers.pfl_rounds import REQUIREMENTS

FASTER = {"cnn": 1.35, "softmax": 5.0}
SETTING = {
    "cnn": "CIFAR-10, CNN, 50 clients x 50, batch 10",
    "softmax": "MNIST, softmax, 100 clients x 600, batch 32",
}


def against_pfl(quick: bool) -> Iterator[Row]:
    """CPU seconds of a round on one core, both sides in processes of their own and in turn; test
    accuracy after as many rounds; peak memory.
    """
    lay_over(".venv-pfl", REQUIREMENTS)
    turns, rounds = (2, 3) if quick else (4, 5)
    for work, setting in SETTING.items():
        sides = {side: _start(side, work) for side in ("ours", "pfl")}
        told: dict[str, list[list[float]]] = {side: [] for side in sides}
        try:
            for _ in range(turns):
                for side, process in sides.items():
                    told[side].append(_asked(process, rounds))
        finally:
            for process in sides.values():
                process.kill()
                process.communicate()
        seconds, right, peak = (
            {side: [row[i] for row in told[side]] for side in told} for i in range(3)
        )
        yield cost(
            "pfl",
            "pfl 0.6.0",
            f"CPU seconds a round, {setting}",
            min(seconds["ours"]),
            min(seconds["pfl"]),
            FASTER[work],
        )
        yield gain(
            "pfl",
            "pfl 0.6.0",
            f"accuracy after {rounds + 2} rounds, {work}",
            right["ours"][-1],
            right["pfl"][-1],
        )
        yield cost(
            "pfl", "pfl 0.6.0", f"peak bytes, {work}", max(peak["ours"]), max(peak["pfl"]), 1 / 1.1
        )


def _start(side: str, work: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.peers.pfl_rounds", side, work]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
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
