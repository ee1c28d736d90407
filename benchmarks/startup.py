"""How long a person waits before anything happens: ``python -m benchmarks.startup [--quick]``.

Every figure is the least of several fresh processes, which take turns; the peers' imports run in
the same turns. Opacus and Flower are imported as their own first examples do.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import flower_env
from benchmarks.harness import Row, cost, interleaved, main

OURS = {
    "import privfl": ["-c", "import privfl"],
    "privfl --help": ["-m", "privfl.cli", "--help"],
    "privfl list": ["-m", "privfl.cli", "list"],
    "from privfl import Federation": ["-c", "from privfl import Federation"],
}
PEERS = {
    "import opacus": (sys.executable, "import opacus"),
    "import flwr": (str(flower_env.HOME / "bin" / "python"), "import flwr"),
}
"""Flower's is in an environment of its own (`benchmarks.flower_env`), where that was made."""
MOST = {"import privfl": 0.3, "privfl --help": 0.5, "privfl list": 1.0}
"""Seconds that each may take."""


def started(python: str, words: list[str]) -> Callable[[], object]:
    """A fresh process that does nothing else."""
    return lambda: subprocess.run([python, *words], check=True, capture_output=True)


def case(quick: bool) -> Iterable[Row]:
    """Ours beside what each may take, and beside each peer's import."""
    runs = {name: started(sys.executable, words) for name, words in OURS.items()}
    there = {
        name: started(python, ["-c", script])
        for name, (python, script) in PEERS.items()
        if Path(python).exists()
    }
    seconds = interleaved({**runs, **there}, 2 if quick else 5)
    for name in OURS:
        if name in MOST:
            yield cost(name, "what it may take", "seconds", seconds[name], MOST[name], 1.0)
        for peer in there:
            target = 1.0 if name in MOST else None
            yield cost(name, peer, "seconds", seconds[name], seconds[peer], target)


CASES = {"startup": case}

if __name__ == "__main__":
    main("startup", CASES)
