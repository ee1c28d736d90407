"""Federations over Flower on this machine, with TLS and node authentication: what a message costs
beside Flower's own nodes, a round of secure aggregation, the bytes of a round, and 20 nodes.

``python -m benchmarks.network [--quick] [--json] [--only CASE]``. It makes Flower's environment on
first use (`benchmarks.flower_env`), and runs there (`benchmarks.peers.network_run`).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

from benchmarks import flower_env
from benchmarks.harness import Row, cost, gain, main, say


def _measured(case: str, quick: bool) -> dict[str, Any]:
    done = subprocess.run(
        [str(flower_env.python()), "-m", "benchmarks.peers.network_run", case, str(quick)],
        env=flower_env.environment(),
        cwd=flower_env.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        say(done.stderr[-3000:])
        raise ImportError(f"the federation of '{case}' did not run")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def message(quick: bool) -> Iterator[Row]:
    """An empty message and its answer, in one run, in turn, by one wire. Flower's own node runs an
    app that imports nothing but Flower; the resident one reads and signs envelopes.
    """
    found = _measured("message", quick)
    yield cost(
        "an empty message to a resident node and back",
        "a SuperNode of Flower 1.41",
        "seconds, median",
        found["resident"],
        found["stock"],
        10.0,
    )


def secagg(quick: bool) -> Iterator[Row]:
    """Rounds of three nodes in active mode."""
    for d, seconds in _measured("secagg", quick).items():
        label = f"a round of secagg, active, 3 nodes, d={d}"
        yield cost(label, "goal", "seconds, median", seconds, 5.0, 1.0)


def sizes(quick: bool) -> Iterator[Row]:
    """What three nodes send in a round, as TCP carries it, beside what the protocol counts; and
    all that travels, both ways and with the model, beside protocol and model.
    """
    for name, found in _measured("bytes", quick).items():
        case = f"{name}, 3 nodes, d=100k"
        both, due = found["up"] + found["down"], found["protocol"] + found["model"]
        if name == "plain":
            peer = "Outcome.bytes_sent"
            yield cost(case, peer, "bytes up a round", found["up"], found["protocol"], 1 / 1.05)
        peer = "Outcome.bytes_sent and the model"
        yield cost(case, peer, "bytes both ways a round", both, due, 1 / 1.05)


def twenty(quick: bool) -> Iterator[Row]:
    """20 nodes on one machine, secure aggregation in active mode, 10 rounds."""
    found = _measured("twenty", quick)
    case = "20 nodes, secagg active, 10 rounds"
    yield gain(case, "goal", "rounds with all of them", found["whole"], 10.0, 1.0)
    yield cost(case, "goal", "seconds from start to end", found["seconds"], 600.0)
    yield cost(case, "goal", "seconds a round, median", found["round"], 60.0)
    yield cost(case, "a node by itself", "MB a node", found["forked"], found["apart"])


CASES = {"message": message, "secagg": secagg, "bytes": sizes, "twenty": twenty}

if __name__ == "__main__":
    main("network", CASES)
