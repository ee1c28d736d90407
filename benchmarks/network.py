"""Federations over Flower on this machine, with TLS and node authentication: what a message costs
beside Flower's own nodes, a round of secure aggregation, the bytes of a round, 20 nodes; runs of
`privfl net local` beside `privfl run`, runs whose SuperLink is killed, and rounds in which nodes
are killed or stopped at each of their envelopes.

``python -m benchmarks.network [--quick] [--json] [--only CASE]``. It makes Flower's environment on
first use (`benchmarks.flower_env`), and runs there (`benchmarks.peers.network_run`).
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

from benchmarks import flower_env
from benchmarks.harness import Row, cost, gain, main


def _measured(case: str, quick: bool) -> Any:
    done = subprocess.run(
        [str(flower_env.python()), "-m", "benchmarks.peers.network_run", case, str(quick)],
        env=flower_env.environment(),
        cwd=flower_env.ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ImportError(f"the federation of '{case}' did not run")
    return json.loads(done.stdout.splitlines()[-1])


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


def parity(quick: bool) -> Iterator[Row]:
    """Three rounds of three resident nodes, TLS and node authentication, from one file."""
    found = _measured("parity", quick)
    case = "`privfl net local`, 3 rounds: " + ", ".join(found)
    yield gain(case, "`privfl run`", "equal bits", sum(found.values()), len(found), 1.0)


def resumed(quick: bool) -> Iterator[Row]:
    """Kill -9 of the SuperLink and its app after a round, started again at once, then resumed."""
    found = _measured("resumed", quick)
    equal = sum(same for same, _ in found.values())
    case = "SuperLink killed, --resume: " + ", ".join(found)
    yield gain(case, "a run that nobody killed", "equal bits", equal, len(found), 1.0)
    slowest = max(seconds for _, seconds in found.values())
    yield cost("SuperLink killed", "goal", "seconds to the next round, most", slowest, 60.0)


def deaths(quick: bool) -> Iterator[Row]:
    """Every party killed as it is handed each of its envelopes, and a client stopped: the exact sum
    of the survivors or a sentence that names who is missing, nobody blamed.
    """
    found = _measured("deaths", quick)
    killed = [one for one in found if one["signal"] == signal.SIGKILL]
    clients = [one for one in killed if one["who"].startswith("client/")]
    kinds = {
        "a client killed": clients,
        "a helper killed": [one for one in killed if one not in clients],
        "a client stopped past the deadline": [r for r in found if r["signal"] == signal.SIGSTOP],
        "nobody killed, after such rounds": [one for one in found if not one["signal"]],
    }
    for case, rounds in kinds.items():
        if rounds:
            right = sum(not one["wrong"] for one in rounds)
            yield gain(case, "rounds", "as they must be", right, len(rounds), 1.0)
    slowest = max(one["seconds"] for one in found)
    yield cost("a round with a death", "its deadlines", "seconds, most", slowest, 33.0, 1.0)


CASES = {
    "message": message,
    "secagg": secagg,
    "bytes": sizes,
    "twenty": twenty,
    "parity": parity,
    "resumed": resumed,
    "deaths": deaths,
}

if __name__ == "__main__":
    main("network", CASES)
