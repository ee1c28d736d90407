"""Own data on disk: the memory of a run over the number of clients in its file."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import Row, cost, main
from privfl import Federation

ROWS, FEATURES, COHORT, ROUNDS = 40, 200, 100, 5


def write(path: Path, clients: int) -> None:
    """An npz file of so many clients, 40 rows of 200 numbers each, and one of test rows."""
    rng = np.random.default_rng(0)
    n = clients * ROWS
    x = rng.standard_normal((n, FEATURES), dtype=np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    owners = np.repeat(np.arange(clients), ROWS)
    np.savez(path, x=x, y=y, client=owners)
    np.savez(f"{path}.test.npz", x=x[:4000], y=y[:4000], client=owners[:4000])


def memory(path: str) -> None:
    """Peak memory of reading such a file and of five rounds of 100 of its clients, in a process of
    its own; printed in MB (Linux only).
    """
    torch.set_num_threads(1)
    federation = Federation.from_config(
        {
            "data": {
                "name": "npz",
                "path": path,
                "test": f"{path}.test.npz",
                "target": "y",
                "client_column": "client",
            },
            "sampler": {"name": "fixed_size", "size": COHORT},
            "rounds": ROUNDS,
            "executor": "sequential",
            "audit": {"keep": "none", "evaluate_every": ROUNDS},
        }
    )
    federation.run()
    lines = Path("/proc/self/status").read_text().splitlines()  # getrusage has the parent's too
    print(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")))


def population(quick: bool) -> Iterator[Row]:
    """Peak memory of rounds of 100 clients, with 10,000 clients on disk (320 MB) over 1,000."""
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for clients in (1_000, 10_000):
            path = Path(folder) / f"{clients}.npz"
            write(path, clients)
            command = [sys.executable, "-m", "benchmarks.own_data", "--memory", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks[clients] = float(done.stdout)
    few, many = peaks.values()
    yield cost(
        "population", "goal", "peak MB, 10,000 clients on disk over 1,000", many, 1.2 * few, 1
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        memory(sys.argv[2])
    else:
        main("own_data", {"population": population})
