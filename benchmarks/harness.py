"""What every benchmark shares: rows, interleaved timing, and one command line.

A benchmark, a file or a package with a ``__main__``, has a list of cases, each a name and a
function that yields rows, and ends with ``main("name", CASES)``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table

from privfl.core import DataMissing


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. ``ratio``: how many times better ours is, higher is better. ``target`` None:
    shown only.
    """

    case: str
    peer: str
    metric: str
    ours: float
    theirs: float
    ratio: float
    target: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the ratio reaches its target; None where there is none."""
        return None if self.target is None else self.ratio >= self.target


def cost(
    case: str, peer: str, metric: str, ours: float, theirs: float, target: float | None = None
) -> Row:
    """A row where less is better: seconds, bytes, memory, error."""
    return Row(case, peer, metric, ours, theirs, theirs / ours if ours else math.inf, target)


def gain(
    case: str, peer: str, metric: str, ours: float, theirs: float, target: float | None = None
) -> Row:
    """A row where more is better: accuracy, throughput."""
    return Row(case, peer, metric, ours, theirs, ours / theirs if theirs else math.inf, target)


Case = Callable[[bool], Iterable[Row]]
"""A case is a function of ``quick`` that yields rows."""


def interleaved(
    runs: Mapping[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
    take: Literal["min", "median"] = "min",
) -> dict[str, float]:
    """Seconds of each, run in turn ``repeats`` times after one warm-up, so that a busy machine is
    as unfair to one as to the other.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            began = clock()
            run()
            if repeat:
                seconds[name].append(clock() - began)
    pick = min if take == "min" else statistics.median
    return {name: pick(measured) for name, measured in seconds.items()}


def take_turns(run: Callable[[], object], clock: Callable[[], float]) -> None:
    """One side of `apart`, in a process of its own: a line on stdin with a number asks for so many
    runs, and the answer is a line with the least seconds of one of them.
    """
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            began = clock()
            run()
            seconds.append(clock() - began)
        print(min(seconds), flush=True)


KEPT = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}
"""With these the C library keeps what is freed, and a step does not pay for its pages again."""


def apart(
    commands: Mapping[str, Sequence[str]],
    turns: int,
    runs: int,
    first: int = 3,
    environment: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """The least seconds of a run of each, every one in a process of its own (with more in its
    environment) that calls `take_turns`, in turn: ``runs`` runs a turn, after a first turn of
    ``first`` that does not count.

    In one process, what one leaves in the caches and in the allocator is the other's price: a step
    of 2 ms measured so cost half as much again. A user runs one of them, step after step.

    Raises:
        RuntimeError: one of the processes ended before its turn.
    """
    best = dict.fromkeys(commands, math.inf)
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    bufsize=1,
                    env={**os.environ, **(environment or {})},
                )
            )
            for name, command in commands.items()
        }
        for turn in range(turns + 1):
            for name, process in processes.items():
                if process.stdin is None or process.stdout is None:
                    raise RuntimeError(f"'{name}' has no pipes")
                process.stdin.write(f"{runs if turn else first}\n")
                process.stdin.flush()
                answer = process.stdout.readline()
                if not answer:
                    raise RuntimeError(f"'{name}' ended before its turn: {commands[name]}")
                if turn:
                    best[name] = min(best[name], float(answer))
    return best


def say(*words: object) -> None:
    """Tell the person, not the pipe."""
    print(*words, file=sys.stderr, flush=True)


def command_line(name: str, cases: Iterable[str]) -> argparse.ArgumentParser:
    """``--quick --json --only CASE``."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument(
        "--quick", action="store_true", help="repeat less: same cases, sizes and targets"
    )
    parser.add_argument("--json", action="store_true", help="one JSON row a line on stdout")
    parser.add_argument("--only", metavar="CASE", choices=list(cases), help="run one case")
    return parser


def main(name: str, cases: Mapping[str, Case], argv: Sequence[str] | None = None) -> None:
    """Parse the command line, run the cases, print the rows; exit as `play` does."""
    play(name, cases, command_line(name, cases).parse_args(argv))


def play(name: str, cases: Mapping[str, Case], options: argparse.Namespace) -> None:
    """Run the cases, print the rows; go on where a case fails, and at the end exit 1 where one did,
    on a missing peer, NaN or inf.
    """
    torch.set_num_threads(1)
    rows: list[Row] = []
    failed: list[str] = []
    broken = False
    for case, run in cases.items():
        if options.only not in (None, case):
            continue
        say(f"{name}: {case} ...")
        try:
            for row in run(options.quick):
                rows.append(row)
                broken |= not all(math.isfinite(x) for x in (row.ours, row.theirs, row.ratio))
                if options.json:
                    print(json.dumps(asdict(row)), flush=True)
        except (ImportError, DataMissing) as missing:
            say(f"{name}: {case}: missing: {missing}")
            broken = True
        except Exception:
            say(f"{name}: {case}: failed: {traceback.format_exc()}")
            failed.append(case)
    if not options.json:
        show(name, rows)
    if failed:
        say(f"{name}: failed: {', '.join(failed)}")
    if broken:
        say(f"{name}: something is missing, or a figure is NaN or infinite")
    if broken or failed:
        sys.exit(1)


def show(name: str, rows: Sequence[Row]) -> None:
    """The rows as a table on stdout, at full width away from a terminal."""
    table = Table(title=f"benchmarks.{name}")
    for column in ("case", "peer", "metric"):
        table.add_column(column)
    for column in ("ours", "theirs", "ratio", "target"):
        table.add_column(column, justify="right")
    for row in rows:
        mark = {None: "", True: " ok", False: " MISSED"}[row.met]
        target = "" if row.target is None else f"{row.target:g}{mark}"
        table.add_row(
            row.case,
            row.peer,
            row.metric,
            f"{row.ours:.4g}",
            f"{row.theirs:.4g}",
            f"{row.ratio:.3g}",
            target,
        )
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160"))
    Console(width=width).print(table)
