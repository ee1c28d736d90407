"""The engine against Flower's simulation, against our own plain loop, and against copying memory.

``python -m benchmarks.engine [--quick] [--json] [--only CASE]``. The Flower case makes
``.venv-flower`` on first use.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import flower_env
from benchmarks.by_writer import writers
from benchmarks.harness import Row, cost, gain, interleaved, main, say
from benchmarks.pfl_peer import against_pfl
from privfl import Federation
from privfl.aggregators import Mean
from privfl.config import AuditConfig
from privfl.core import (
    FRAME_ROOM,
    Bounded,
    Broadcast,
    Channel,
    Dataset,
    FlatModel,
    LocalPlan,
    RoundPlan,
    Seeds,
)
from privfl.crypto import AdditiveSharing, Plain, SecAgg
from privfl.data import load
from privfl.dp import Clip, NoBound
from privfl.engine import Engine, Scenario, Session
from privfl.hybrid import TwoServer
from privfl.models import mlp
from privfl.training import LocalSGD, Sequential, Stacked, Task, Trained, Workload, cross_entropy

N, D = 100, 1_000_000


def zero_softmax() -> nn.Module:
    """Softmax regression from zero, as in ``peers.flower_app``."""
    layer = nn.Linear(784, 10)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.Flatten(), layer)


def hundred(train: Dataset) -> tuple[Tensor, ...]:
    """The clients' samples: 600 each, as in ``peers.flower_app``."""
    return torch.randperm(train.n, generator=torch.Generator().manual_seed(0)).split(600)


def flower(quick: bool) -> Iterator[Row]:
    """One round of 100 clients, softmax regression on MNIST, one local epoch: ours and Flower's
    simulation, turn by turn.
    """
    split = load("mnist")
    clients = [split.train.take(part) for part in hundred(split.train)]
    rounds, turns = 5, 1 if quick else 3
    unseen = AuditConfig(
        keep="none", evaluate_every=rounds
    )  # Flower's rounds are not evaluated either; of ours only the last
    ours: list[float] = []
    theirs: list[float] = []
    accuracy = flowers = 0.0
    for _ in range(turns):
        federation = Federation(
            zero_softmax(),
            clients,
            split.test,
            rounds=rounds,
            training=LocalSGD(lr=0.1),
            executor="stacked",
            audit=unseen,
        )
        run = federation.run()
        ours += [
            sum(seconds for stage, seconds in record.seconds.items() if stage != "evaluate")
            for record in run.history[1:]
        ]
        accuracy = run.accuracy
        measured = _flower_run(rounds)
        theirs += measured["seconds"]
        flowers = measured["accuracy"]
    yield cost(
        "flower", "Flower 1.41 simulation", "seconds a round", min(ours), min(theirs), target=10
    )
    yield gain(
        "flower",
        "Flower 1.41 simulation",
        "accuracy after 5 rounds",
        accuracy,
        flowers,
        target=0.995,
    )


def _flower_run(rounds: int) -> dict:
    command = [str(flower_env.python()), "-m", "benchmarks.peers.flower_run", str(rounds)]
    if os.geteuid() == 0 and shutil.which(
        "unshare"
    ):  # Ray listens on every interface whatever it is told: give it loopback alone
        command = ["unshare", "-n", "bash", "-c", 'ip link set lo up; exec "$@"', "-", *command]
    done = subprocess.run(
        command,
        env=flower_env.environment(),
        capture_output=True,
        text=True,
        check=False,
        cwd=flower_env.ROOT,
    )
    if done.returncode:
        say(done.stderr[-2000:])
        raise ImportError("Flower's simulation did not run")
    return json.loads(done.stdout.splitlines()[-1])


def stacked(quick: bool) -> Iterator[Row]:
    """A cohort trained stacked, and one client after the other by our own plain loop."""
    split = load("mnist")
    repeats = 3 if quick else 8
    yield _stacked_row(
        "softmax, 100 clients, batch 32",
        zero_softmax(),
        split.train,
        batch=32,
        n=100,
        target=4.0,
        repeats=repeats,
    )
    net = mlp((1, 28, 28), 10, hidden=(200,))
    yield _stacked_row(
        "MLP 784-200-10, 20 clients, batch 8",
        net,
        split.train,
        batch=8,
        n=20,
        target=4.0,
        repeats=repeats,
    )


def _stacked_row(
    name: str, module: nn.Module, train: Dataset, *, batch: int, n: int, target: float, repeats: int
) -> Row:
    model, parts = FlatModel(module), hundred(train)
    workload = Workload(model, cross_entropy, LocalSGD(lr=0.1, plan=LocalPlan(batch)), train)
    sent = Broadcast(0, model.read())
    tasks = [Task(client, parts[client]) for client in range(n)]
    out = torch.empty(n, model.d)
    fast, plain = Stacked(workload), Sequential(workload)
    runs = {
        "stacked": lambda: fast.train(sent, tasks, out, Seeds(0)),
        "plain": lambda: plain.train(sent, tasks, out, Seeds(0)),
    }
    seconds = interleaved(runs, repeats, clock=time.thread_time)
    return cost(
        "stacked",
        "our sequential loop",
        f"CPU seconds, {name}",
        seconds["stacked"],
        seconds["plain"],
        target=target,
    )


class Prefilled:
    """An executor whose updates are there already: what is left of a round is the engine."""

    together = 1

    def train(
        self, broadcast: Broadcast, tasks: Sequence[Task], out: Tensor, seeds: Seeds
    ) -> list[Trained]:
        """Nothing but the answers."""
        if broadcast.version == 0:
            out.normal_(generator=torch.Generator().manual_seed(0)).mul_(1e-3)
        return [Trained(task.client, 1.0, loss=0.0) for task in tasks]

    def close(self) -> None:
        """Nothing to give back."""


def bare_engine() -> Engine:
    """100 clients with one sample each, and a million parameters."""
    data = Dataset(torch.zeros(N, 1000), torch.zeros(N, dtype=torch.int64), classes=1000)
    workload = Workload(
        FlatModel(nn.Linear(1000, 1000, bias=False)), cross_entropy, LocalSGD(), data
    )
    clients = {client: torch.tensor([client]) for client in range(N)}
    return Engine(
        Scenario(workload, clients, data, NoBound(), Plain(), Mean(), rounds=100), Prefilled()
    )


def overhead(quick: bool) -> Iterator[Row]:
    """A round without its training at 100 clients x 1M parameters, against copying the update
    matrix three times; peak memory.
    """
    engine = bare_engine()
    state = engine.play(engine.begin("prefilled")).state
    matrix, copy = torch.randn(N, D), torch.empty(N, D)
    spent: list[float] = []
    copies: list[float] = []
    for _ in range(5 if quick else 15):
        played = engine.play(state)
        spent.append(
            sum(seconds for stage, seconds in played.transcript.seconds.items() if stage != "train")
        )
        began = time.perf_counter()
        for _ in range(3):
            copy.copy_(matrix)
        copies.append(time.perf_counter() - began)
    yield cost(
        "overhead", "three copies", f"seconds, {N} x {D:,}", min(spent), min(copies), target=0.667
    )
    yield cost("overhead", "goal", "peak bytes of rounds", _peak(N, D), 2.5 * 4 * N * D, target=1)


def plain_round(n: int, d: int) -> Callable[[], object]:
    """A protocol run of the plain channel for n clients that are set up, with updates of length d
    that lie in one matrix as an engine's do.
    """
    session = Session(Plain())
    session.enrol(range(n))
    room = FRAME_ROOM // 4
    rows = 1e-3 * torch.randn(n, room + d, generator=torch.Generator().manual_seed(0))
    frames, stride = rows.numpy().data.cast("B"), 4 * (room + d)
    updates = {
        c: Bounded(c, rows[c, room:], l2=1.0, frame=frames[c * stride : (c + 1) * stride])
        for c in range(n)
    }
    plan = RoundPlan(0, tuple(range(n)), d, l2=1.0)
    return lambda: session.play(plan, updates)


def many_clients(quick: bool) -> Iterator[Row]:
    """The plain channel's protocol run for 1,000 to 100,000 clients of 100 values: CPU seconds, and
    the exponent of their growth (the slope of the line through the sizes, both axes logarithmic).
    """
    sizes = (1_000, 10_000, 100_000)
    runs = {str(n): plain_round(n, 100) for n in sizes}
    seconds = interleaved(runs, 5 if quick else 10, clock=time.process_time)
    for n in sizes:
        goal = 0.3 * n / 10_000
        yield cost("many clients", "goal", f"CPU seconds, {n:,} x 100", seconds[str(n)], goal, 1)
    exponent, _ = statistics.linear_regression(
        [math.log(n) for n in sizes], [math.log(seconds[str(n)]) for n in sizes]
    )
    yield cost("many clients", "goal", "exponent of their growth", exponent, 1.1, 1)


class OneRow:
    """An executor that hands everybody a copy of one update, in whatever row it is given."""

    together = 1

    def __init__(self, d: int) -> None:
        self.row = torch.empty(d).normal_(generator=torch.Generator().manual_seed(0)).mul_(1e-5)

    def train(
        self, broadcast: Broadcast, tasks: Sequence[Task], out: Tensor, seeds: Seeds
    ) -> list[Trained]:
        """Nothing but copies."""
        out.copy_(self.row.expand_as(out))
        return [Trained(task.client, 1.0, loss=0.0) for task in tasks]

    def close(self) -> None:
        """Nothing to give back."""


CHANNELS: dict[str, Callable[[], Channel]] = {
    "plain": Plain,
    "secagg": SecAgg,
    "sharing": AdditiveSharing,
    "two_server": TwoServer,
    "two_server_semi_honest": lambda: TwoServer(security="semi_honest"),
}
"""The channels whose peaks are measured, each as it is by default."""


def ready_engine(n: int, d: int, channel: str = "plain") -> Engine:
    """An engine whose n clients' updates of d values are there already."""
    data = Dataset(torch.zeros(n, 1), torch.zeros(n, dtype=torch.int64), classes=d)
    workload = Workload(FlatModel(nn.Linear(1, d, bias=False)), cross_entropy, LocalSGD(), data)
    clients = {client: torch.tensor([client]) for client in range(n)}
    bound = NoBound() if channel == "plain" else Clip(1.0)
    scenario = Scenario(workload, clients, data, bound, CHANNELS[channel](), Mean(), rounds=100)
    return Engine(scenario, OneRow(d))


def engine_clients(quick: bool) -> Iterator[Row]:
    """A round of the whole engine without its training, 100 values a client: CPU seconds of 20,000
    clients over those of 2,000, and microseconds a client of 100,000.
    """
    sizes = (2_000, 20_000, 100_000)
    rounds: dict[str, Callable[[], object]] = {}
    for n in sizes:
        engine = ready_engine(n, 100)
        begun = engine.play(engine.begin("prefilled")).state
        rounds[str(n)] = partial(engine.play, begun)
    seconds = interleaved(rounds, 3 if quick else 6, clock=time.process_time)
    few, many, most = (seconds[str(n)] for n in sizes)
    yield cost("engine clients", "goal", "CPU seconds, 20,000 over 2,000", many / few, 12, 1)
    yield cost("engine clients", "goal", "CPU us a client of 100,000", 1e6 * most / 1e5, 80, 1)


def peaks(quick: bool) -> Iterator[Row]:
    """Peak memory of rounds whose updates have 10M values, without training, each channel as it is
    by default: at 40 clients over 10 where nothing but a sum is wanted, over the rows where servers
    hold a share of each.
    """
    d = 10_000_000
    for channel in ("plain", "secagg", "sharing"):
        few, many = (_peak(n, d, channel) for n in (10, 40))
        yield cost(
            "peaks", "its own at 10", f"peak bytes, {channel}, 40 x {d:,}", many, few, 1 / 1.1
        )
    for channel in ("two_server", "two_server_semi_honest"):
        for n in (10,) if quick else (10, 40):
            name = f"peak bytes, {channel}, {n} x {d:,}"
            yield cost("peaks", "2.5 times its rows", name, _peak(n, d, channel), 10.0 * n * d, 1)


def _peak(n: int, d: int, channel: str = "plain") -> float:
    command = [sys.executable, "-m", "benchmarks.engine", "--memory", str(n), str(d), channel]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def memory(n: int, d: int, channel: str) -> None:
    """Peak memory of two rounds without training in a process of its own, beyond what it had
    before: a small round went before them, so that what the libraries load once is not counted.
    Printed in bytes (Linux only).
    """
    torch.set_num_threads(1)
    small = ready_engine(n, 1000, channel)
    small.play(small.begin("prefilled"))
    engine = ready_engine(n, d, channel)
    state = engine.begin("prefilled")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = _status("VmRSS")
    for _ in range(2):
        state = engine.play(state).state
    print(_status("VmHWM") - before)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        memory(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        main(
            "engine",
            {
                "flower": flower,
                "stacked": stacked,
                "overhead": overhead,
                "many clients": many_clients,
                "engine clients": engine_clients,
                "peaks": peaks,
                "pfl": against_pfl,
                "writers": writers,
            },
        )
